"""How far a light track can be trusted on a frame, beyond what the frame's own mask tells: has it gone over to something else?

Two signs of it: what the frames with prompts alone recognise of the mask, by the likeness of features; and the largest jump that area
or extent have made since the prompt. The constants were chosen on made-up clips, cut-outs of held-out training pictures that move over
others, leave, are hidden or vanish: see benchmarks/video_trust.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ruac.video.motion import moments

SUPPORT_POWER, JUMP_RATE = 0.5, 0.5
LARGEST_JUMP = 3.0  # of a mask that comes out of nothing or goes into it


@dataclass(frozen=True)
class Signs:
    """support: of the mask, see below; jump: the largest one since the prompt."""

    support: float
    jump: float

    @property
    def trust(self) -> float:
        """In [0, 1], to be multiplied with the expected IoU."""
        return self.support**SUPPORT_POWER * math.exp(-JUMP_RATE * self.jump)


def support(cells: Tensor, recognised: Tensor) -> float:
    """What the frames with prompts recognise of a mask, in [0, 1]; 0 of an empty one.

    cells: [h, w] probability of the object; recognised: [h, w], what `propagate` makes of the prompts' frames alone.
    """
    inside = cells * (cells > 0.5) if (cells > 0.5).any() else cells
    return float((inside * recognised).sum() / inside.sum().clamp_min(torch.finfo(inside.dtype).tiny))


def jump(before: Tensor, after: Tensor) -> float:
    """By how much a mask [H, W] (probabilities) has grown or shrunk from one frame to the next: in logarithms of its area, or of its
    extent squared in one direction, whichever changed more.
    """
    inside = [(each > 0.5).float() for each in (before, after)]
    extents = [found and found[1] for found in map(moments, inside)]
    if extents[0] is None or extents[1] is None:
        return 0.0 if extents[0] is extents[1] else LARGEST_JUMP
    area = torch.log(inside[1].sum() / inside[0].sum()).abs()
    extent = 2 * torch.log(extents[1] / extents[0]).abs().max()
    return min(float(torch.maximum(area, extent)), LARGEST_JUMP)
