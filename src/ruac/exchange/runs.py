"""Run lengths by rows: the lengths of background and mask in turn, background first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ruac.regions import Mask


def run_lengths(mask: Mask) -> NDArray[np.int64]:
    """They add up to the number of pixels; the first is 0 where the first pixel belongs to the mask."""
    flat = mask.ravel()
    ends = np.flatnonzero(np.diff(flat, append=~flat[-1:], prepend=False))
    return np.diff(ends, prepend=0)


def from_run_lengths(lengths: Sequence[int], size: tuple[int, int]) -> Mask:
    """[height, width]; what the lengths do not reach is background. Raises ValueError when they are negative or too long."""
    height, width = size
    if min(lengths, default=0) < 0 or sum(lengths) > height * width:
        raise ValueError(f"run lengths that do not fit {width} x {height} pixels")
    flat = np.zeros(height * width, np.bool_)
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    flat[: len(inside)] = inside
    return flat.reshape(size)
