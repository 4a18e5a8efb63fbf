"""A simulated annotator for a whole batch: first prompts, then clicks that correct the model's own answers."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ruac.data.prompts import first_click, jittered_box, next_click
from ruac.features import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND, NO_POINT, ImageFeatures, Prompts
from ruac.model import RuacModel, chosen_token


def simulate(
    model: RuacModel,
    features: ImageFeatures,
    truth: Tensor,
    valid: Tensor,
    clicks: int,
    rngs: Sequence[np.random.Generator] | None,
) -> Prompts:
    """What an annotator has said after `clicks` clicks, each correcting the model's answer to those before. No gradient.

    truth: [B, P, h, w] and valid: [B, 1, h, w] at any resolution; rngs: one a picture, so that what is said about a picture does not
    depend on the others. Without them every click is the most interior one.
    """
    targets = (truth > 0.5).cpu().numpy()
    counted = (valid > 0).cpu().numpy()[:, 0]
    images, objects, side = truth.shape[0], truth.shape[1], truth.shape[-1]
    scale, device = model.side / side, truth.device
    prompts = _first_prompts(targets, scale, rngs, device)
    detached = features.detach()
    for _ in range(clicks - 1):
        with torch.no_grad():
            decoded = model.decode(detached, prompts)
            mask = model(decoded.select(chosen_token(decoded, prompts, model.stability))).prompt[:, :, 0]
            found = (F.interpolate(mask, size=(side, side), mode="bilinear") > 0).cpu().numpy()
        points, labels = np.zeros((images, objects, 1, 2), np.float32), np.full((images, objects, 1), NO_POINT)
        for b, p in np.ndindex(images, objects):
            rng = None if rngs is None else rngs[b]
            inside = rng if rng is not None and rng.random() < 0.4 else None
            click = next_click(found[b, p], targets[b, p], counted[b], inside)
            if click is not None:
                points[b, p, 0], labels[b, p, 0] = click[:2], click[2]
        prompts = prompts.with_points(_to_input(points, scale, device), torch.from_numpy(labels).to(device)).with_mask(mask)
    return prompts


def _first_prompts(
    targets: NDArray[np.bool_], scale: float, rngs: Sequence[np.random.Generator] | None, device: torch.device
) -> Prompts:
    """A click on every object or, for one object in seven, a box; one in six gets a click beside the object as well."""
    images, objects = targets.shape[:2]
    points = np.zeros((images, objects, 2, 2), np.float32)
    labels = np.full((images, objects, 2), NO_POINT)
    for b, p in np.ndindex(images, objects):
        mask = targets[b, p]
        if not mask.any():
            continue
        rng = None if rngs is None else rngs[b]
        kind = 1.0 if rng is None else rng.random()
        if rng is not None and kind < 0.15:
            box = np.array(jittered_box(mask, rng), np.float32).reshape(2, 2)
            points[b, p], labels[b, p] = box, (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)
            continue
        points[b, p, 0] = first_click(mask, rng if rng is not None and rng.random() < 0.5 else None)
        labels[b, p, 0] = FOREGROUND
        if rng is not None and kind > 0.83:
            near = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool) & ~mask
            if near.any():
                points[b, p, 1], labels[b, p, 1] = first_click(near, rng), BACKGROUND
    return Prompts(_to_input(points, scale, device), torch.from_numpy(labels).to(device))


def _to_input(points: NDArray[np.float32], scale: float, device: torch.device) -> Tensor:
    return torch.from_numpy((points + 0.5) * scale - 0.5).float().to(device)
