"""An attack tried on a model: labelled pictures in, the model's answers and how well its doubt fits its errors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ruac.attack.batch import LabelledBatch, Objective, Slope
from ruac.data.folder import IGNORE
from ruac.data.prompts import first_click
from ruac.data.scenes import Scene
from ruac.distribution import MaskDistribution
from ruac.features import FOREGROUND, NO_POINT, Prompts
from ruac.losses import alignment
from ruac.model import RuacModel, chosen_token


def labelled_batch(scenes: Sequence[Scene], chosen: Sequence[Sequence[int]]) -> LabelledBatch:
    """Square pictures of one size with the ids of the objects to ask for, each clicked at its most interior pixel."""
    objects = max(1, *(len(ids) for ids in chosen))
    ids = torch.from_numpy(np.stack([scene.ids for scene in scenes]))
    # an id that no pixel has makes an empty mask
    wanted = torch.full((len(scenes), objects), IGNORE)
    points = torch.zeros(len(scenes), objects, 1, 2)
    labels = torch.full((len(scenes), objects, 1), NO_POINT)
    for b, (scene, names) in enumerate(zip(scenes, chosen, strict=True)):
        for p, name in enumerate(names):
            wanted[b, p], labels[b, p] = name, FOREGROUND
            points[b, p, 0] = torch.tensor(first_click(scene.ids == name, None))
    present = wanted != IGNORE
    masks = (ids[:, None] == wanted[..., None, None]) & present[..., None, None]
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float()
    return LabelledBatch(images, masks.float(), (ids == IGNORE)[:, None].float(), Prompts(points, labels), present)


def answer(model: RuacModel, batch: LabelledBatch) -> MaskDistribution:
    """The mask the model would return for every object, at the resolution of the batch: [B, P, 1, S, S]. Differentiable."""
    decoded = model.decode(model.encode(batch.images, ()), batch.prompts)
    distribution = model(decoded.select(chosen_token(decoded, batch.prompts, model.stability)))
    return distribution.grown((batch.masks.shape[-2], batch.masks.shape[-1]))


def misalignment(distribution: MaskDistribution, batch: LabelledBatch, kind: Literal["paper", "proper"] = "proper") -> Tensor:
    """`losses.alignment` over all pixels of all objects that are there. A scalar."""
    valid = batch.counted[:, None] * batch.present[..., None, None, None]
    return alignment(distribution.scaled_mean(), batch.masks.unsqueeze(2), valid, kind)


def with_slope(batch: LabelledBatch, objective: Objective) -> LabelledBatch:
    """The batch with the slope of an objective, for attacks that follow it. No gradient goes anywhere else."""
    images, masks = batch.images.detach().requires_grad_(), batch.masks.detach().requires_grad_()
    with torch.enable_grad():
        value = objective(replace(batch, images=images, masks=masks)).sum()
        of_images, of_masks = torch.autograd.grad(value, [images, masks])
    return replace(batch, slope=Slope(of_images, of_masks))
