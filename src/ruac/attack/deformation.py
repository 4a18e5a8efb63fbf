"""Attack by shape: every object is bent a little, where that hurts most."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.attack.batch import LabelledBatch, untouched
from ruac.attack.layers import PACE, pooled, uphill
from ruac.attack.reversal import reverse_gradient
from ruac.attack.warp import deform
from ruac.features import ImageFeatures


def object_fields(offsets: Tensor, masks: Tensor, epsilon: float) -> Tensor:
    """Offsets [B, P, 2, h, w] in [-1/2, 1/2] as displacements in pixels of the masks [B, P, S, S].

    The mean over each object is taken off, so that it bends and does not travel; then 2ε times the stride of the grid. A
    component is at most 2ε strides: ε from the offset itself, and as much from the mean.
    """
    flat = offsets.flatten(0, 1)
    mean = pooled(flat, masks.flatten(0, 1)[:, None])[:, 0]  # (B * P, 2)
    stride = masks.shape[-1] / offsets.shape[-1]
    return ((flat - mean[..., None, None]) * (2 * epsilon * stride)).reshape(offsets.shape)


@torch.enable_grad()
def field_slope(batch: LabelledBatch, shape: torch.Size, epsilon: float) -> Tensor:
    """How fast the loss rises with the offsets [B, P, 2, h, w] of that shape, where nothing has moved yet: pictures and masks move
    together."""
    assert batch.slope is not None
    still = batch.images.new_zeros(shape, requires_grad=True)
    moved = deform(untouched(batch), object_fields(still, batch.objects, epsilon))
    rise = (batch.slope.images * moved.images).sum() + (batch.slope.masks * moved.masks).sum()
    (slope,) = torch.autograd.grad(rise, still)
    return slope


class DeformationAttacker(nn.Module):
    """Proposes a field for every object from its mask and the features of the image.

    Where the slope of the loss is known, it learns how far to follow it.
    """

    def __init__(self, channels: int, epsilon: float = 0.15):
        """channels: D of the coarsest features; epsilon: size of an offset in cells of their grid."""
        super().__init__()
        self.epsilon = epsilon
        # four times finer than the grid, down to it; no bias, which the normalisation would take off again
        self.embed_mask = nn.Sequential(
            nn.Conv2d(1, channels // 8, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(channels // 8, channels // 4, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(channels // 4, channels, 1, bias=False),
        )
        self.follow = nn.Parameter(torch.zeros(()))
        last = nn.Conv2d(64, 2, 1, bias=False)
        nn.init.normal_(last.weight, std=0.01)
        self.offsets = nn.Sequential(
            nn.InstanceNorm2d(channels),
            nn.Conv2d(channels, 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 64, 3, padding=1),
            nn.ReLU(),
            last,
        )

    def forward(self, batch: LabelledBatch, features: ImageFeatures) -> Tensor:
        """Fields [B, P, 2, h, w] in input pixels, whose gradient is reversed."""
        masks, level = batch.objects, features.levels[-1].detach().float()
        height, width = level.shape[-2:]
        fine = F.adaptive_avg_pool2d(masks, (4 * height, 4 * width)).flatten(0, 1)[:, None]
        objects = self.embed_mask(fine).reshape(*masks.shape[:2], *level.shape[1:])  # (B, P, D, h, w)
        raw = self.offsets((level[:, None] + objects).flatten(0, 1)).float().unflatten(0, masks.shape[:2])
        if batch.slope is not None:
            raw = raw + PACE * self.follow * uphill(field_slope(batch, raw.shape, self.epsilon), (2, 3, 4))
        return reverse_gradient(object_fields(raw.sigmoid() - 0.5, masks, self.epsilon))
