"""Attacks on pixels that know the model: projected gradient ascent, and a patch that learns."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ruac.attack.batch import AttackedBatch, LabelledBatch, Objective, repainted
from ruac.attack.layers import visible
from ruac.attack.reversal import reverse_gradient
from ruac.features import ImageFeatures


@dataclass(frozen=True)
class GradientAscent:
    """PGD (Madry et al. 2018): signed steps up the objective from a random start, no pixel changed by more than the budget.

    budget, step: in grey levels. The objective must be a sum over images, or they are not attacked each for itself. Gradients are
    taken with respect to the images alone: neither `grad` nor `requires_grad` of a model's parameters is touched.
    """

    objective: Objective
    generator: Generator
    budget: float = 8.0
    step: float = 2.0
    steps: int = 5

    def __call__(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        clean = batch.images.detach()
        low, high = (clean - self.budget).clamp_min(0), (clean + self.budget).clamp_max(255)
        start = torch.rand(clean.shape, generator=self.generator, device=self.generator.device).to(clean)
        images = torch.lerp(low, high, start)
        for _ in range(self.steps):
            images = images.requires_grad_()
            with torch.enable_grad():
                value = self.objective(replace(batch, images=images)).sum()
                (gradient,) = torch.autograd.grad(value, images)
            images = (images.detach() + self.step * gradient.sign()).clamp(low, high)
        return repainted(batch, images)


class PatchAttack(nn.Module):
    """One picture, learnt, pasted at a random place next to an object of every image and behind all of them, so that labels stay true.

    share: of the area of the image that the square patch takes at most.
    """

    CELLS = 64  # side of the grid on which places are drawn

    def __init__(self, generator: Generator, share: float = 0.02, resolution: int = 32):
        super().__init__()
        self.generator, self.share = generator, share
        self.logits = nn.Parameter(0.01 * torch.randn(3, resolution, resolution, generator=generator, device=generator.device))

    def forward(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        side = batch.images.shape[-1]
        size = max(1, math.floor(math.sqrt(self.share) * side))
        corner = self._places(batch.objects, batch.counted, size)  # (B, 2)
        pixel = torch.arange(side, device=corner.device)
        inside = (pixel >= corner[..., None]) & (pixel < corner[..., None] + size)  # (B, 2, S) columns, rows
        grid = (2 * (pixel - corner[..., None]) + 1) / size - 1
        grid = torch.stack(torch.broadcast_tensors(grid[:, 0, None, :], grid[:, 1, :, None]), -1)
        texture = 255 * reverse_gradient(self.logits).sigmoid()
        texture = texture.to(batch.images).expand(len(grid), -1, -1, -1)
        pasted = F.grid_sample(texture, grid.to(texture), padding_mode="border", align_corners=False)
        share = visible(batch.objects)[:, :1] * (inside[:, 0, None, :] & inside[:, 1, :, None])[:, None]
        return repainted(batch, torch.lerp(batch.images, pasted, share))

    @torch.no_grad()
    def _places(self, masks: Tensor, counted: Tensor, size: int) -> Tensor:
        """Corners (x, y) [B, 2] of patches whose centres count and lie within half a patch of an object [B, P, S, S], not on one."""
        side = masks.shape[-1]
        cells = min(self.CELLS, side)
        covered = F.adaptive_max_pool2d(1 - visible(masks)[:, :1], cells)
        reach = math.ceil(size / 2 * cells / side)
        around = F.max_pool2d(covered, 2 * reach + 1, stride=1, padding=reach) * (covered < 0.5)
        around = (around * F.adaptive_avg_pool2d(counted, cells)).flatten(1)
        # without an object, or without room beside it, anywhere
        around = torch.where(around.sum(1, keepdim=True) > 0, around, 1.0)
        cell = torch.multinomial(around.to(self.generator.device), 1, generator=self.generator).to(masks.device)
        centre = (torch.cat([cell % cells, cell // cells], 1) + 0.5) * (side / cells)
        return (centre - size / 2).long().clamp(0, side - size)
