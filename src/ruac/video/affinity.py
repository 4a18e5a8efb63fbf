"""Labels that go from frame to frame along the likeness of features, without training.

A place of the new frame takes the labels of the places most like it in the frames remembered, weighted by a softmax of their cosine
similarity, as in space-time correspondence and DINO's video evaluation (Jabri et al. 2020; Caron et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NEAREST, TEMPERATURE = 10, 0.05
REACH = 3  # cells: how far anything moves between frames


@dataclass(frozen=True, eq=False)
class Remembered:
    """A frame in memory. features: [D, h, w] of length one; anywhere: whether an object may have moved to any place since."""

    features: Tensor
    anywhere: bool


def unit_features(level: Tensor) -> Tensor:
    """The coarsest feature level of one image, [1, D, h, w], as vectors of length one: [D, h, w]."""
    return F.normalize(level[0].float(), dim=0)


def propagate(now: Tensor, memory: Sequence[Remembered], labels: Sequence[Tensor]) -> Tensor:
    """now: [D, h, w] of length one; labels: of each frame of the memory, [P, h, w] in [0, 1]. Returns [P, h, w] in [0, 1]."""
    size = now.shape[1:]
    query = now.flatten(1).T  # (hw, D)
    near = _near(size[0], size[1])
    likeness = []
    for seen in memory:
        alike = query @ seen.features.flatten(1)
        likeness.append(alike if seen.anywhere else alike.masked_fill(~near, -torch.inf))
    alike, place = torch.cat(likeness, 1).topk(NEAREST, 1)  # (hw, NEAREST)
    known = torch.cat([label.flatten(1) for label in labels], 1)  # (P, frames * hw)
    return (known[:, place] * torch.softmax(alike / TEMPERATURE, 1)).sum(-1).unflatten(1, size)


def _near(height: int, width: int) -> Tensor:
    """[hw, hw], pairs of places within REACH of each other in both directions."""
    rows, columns = (torch.arange(n) for n in (height, width))
    near_rows, near_columns = ((along[:, None] - along).abs() <= REACH for along in (rows, columns))
    return (near_rows[:, None, :, None] & near_columns[None, :, None, :]).reshape(height * width, -1)
