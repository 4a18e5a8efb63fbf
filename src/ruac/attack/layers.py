"""Objects as layers painted over a background, a later one over an earlier one. R = P + 1 regions, the background first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PACE = 40.0  # of how far to follow the slope of the loss: a few numbers that every picture teaches


def uphill(slope: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The slope without its size, in (-1, 1): half where it is as steep as on average over these dimensions."""
    size = slope.abs()
    return slope / (size + size.mean(dims, keepdim=True)).clamp_min(torch.finfo(slope.dtype).tiny)


def regions(masks: Tensor) -> Tensor:
    """Masks [B, P, S, S] and before them the background, what no object covers: [B, R, S, S]. Regions may overlap."""
    return torch.cat([(1 - masks).prod(1, keepdim=True), masks], 1)


def visible(masks: Tensor) -> Tensor:
    """The share of every pixel that shows each region, [B, R, S, S], which add up to one."""
    stack = F.pad(masks, (0, 0, 0, 0, 1, 0), value=1.0)
    # what lets one look through all layers above
    above = F.pad(1 - stack[:, 1:], (0, 0, 0, 0, 0, 1), value=1.0).flip(1).cumprod(1).flip(1)
    return stack * above


def topmost(masks: Tensor) -> Tensor:
    """The region that every pixel mostly shows: [B, S, S], 0 the background, p + 1 object p."""
    layer = torch.arange(1, masks.shape[1] + 1, device=masks.device)[:, None, None]
    return F.pad((masks > 0.5) * layer, (0, 0, 0, 0, 1, 0)).amax(1)


def pooled(features: Tensor, weights: Tensor) -> Tensor:
    """Mean of the features [B, D, h, w] in every region [B, R, S, S]: [B, R, D], zero in an empty one."""
    height, width = features.shape[-2:]
    weights = F.adaptive_avg_pool2d(weights, (height, width))
    return region_sums(features, weights) / weights.sum((-2, -1))[..., None].clamp_min(1e-6)


def region_sums(maps: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of maps [B, C, S, S], one a region: weights [B, R, S, S] -> [B, R, C]."""
    # not in half precision, and row by row first, so that no small value is added to the sum of a million
    with torch.autocast(maps.device.type, enabled=False):
        return torch.einsum("brys,bcys->byrc", weights.float(), maps.float()).sum(1)


def painted(values: Tensor, shares: Tensor) -> Tensor:
    """Values [B, R, C] of regions as maps [B, C, S, S], mixed by the shares [B, R, S, S] of `visible`."""
    with torch.autocast(shares.device.type, enabled=False):
        return (values.float().mT @ shares.float().flatten(2)).unflatten(-1, shares.shape[-2:])
