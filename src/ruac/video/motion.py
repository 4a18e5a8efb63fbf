"""How a mask itself moved from one frame to the next, and what the frame before says once it has moved along. No optical flow."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.distribution import MaskDistribution

LARGEST_GROWTH = 1.5  # of an object's extent, between neighbouring frames
FAR = 10.0  # logits beyond are as good as certain, and count as this


def moments(probability: Tensor) -> tuple[Tensor, Tensor] | None:
    """Centre (x, y) and extent (x, y) of a mask [H, W], in cells; None of one that is as good as empty."""
    mass = probability.sum()
    if mass < 1:
        return None
    height, width = probability.shape
    places = torch.arange(max(height, width), dtype=probability.dtype, device=probability.device)
    shares = probability.sum(0) / mass, probability.sum(1) / mass  # (W,), (H,)
    along = places[:width], places[:height]
    centre = torch.stack([(share * place).sum() for share, place in zip(shares, along, strict=True)])
    squares = torch.stack([(share * place.square()).sum() for share, place in zip(shares, along, strict=True)])
    return centre, (squares - centre.square()).clamp_min(0.25).sqrt()


def carried(previous: MaskDistribution, current: MaskDistribution) -> MaskDistribution | None:
    """The previous frame's distribution [1, H, W], shifted and stretched as the mask was from that frame to the current one.

    None where either mask is empty, so that there is no motion to follow.
    """
    before, after = (moments(distribution.probability()[0]) for distribution in (previous, current))
    if before is None or after is None:
        return None
    growth = (after[1] / before[1]).clamp(1 / LARGEST_GROWTH, LARGEST_GROWTH)
    height, width = current.mean.shape[-2:]
    x = (torch.arange(width, device=growth.device) - after[0][0]) / growth[0] + before[0][0]
    y = (torch.arange(height, device=growth.device) - after[0][1]) / growth[1] + before[0][1]
    # grid_sample's own units: -1 and 1 are the outer edges
    columns, rows = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1
    places = torch.stack(torch.broadcast_tensors(columns[None, :], rows[:, None]), -1)[None]
    moved = F.grid_sample(
        torch.stack([previous.mean, previous.variance], 1), places, padding_mode="border", align_corners=False
    )  # (1, 2, H, W)
    return MaskDistribution(moved[:, 0], moved[:, 1])


def steadied(current: MaskDistribution, before: MaskDistribution | None) -> MaskDistribution:
    """The current distribution with the doubt that the frame before, carried along, adds to it. The mask stays what it is.

    The current frame and the carried one are two opinions of equal weight about the logit: by the law of total variance, the
    variance is the mean of theirs, and the square of half their difference.
    """
    if before is None:
        return current
    apart = current.mean.clamp(-FAR, FAR) - before.mean.clamp(-FAR, FAR)
    return replace(current, variance=(current.variance + before.variance) / 2 + apart.square() / 4)
