"""The line that foretells the true IoU, and how well groups are foretold from all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ruac.quality.expected import Quality

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fit:
    """quality: fitted on all examples; foretold: [n] expected IoU of each example by a fit on all groups but its own."""

    quality: Quality
    foretold: Numbers


def fit(x: Numbers, y: Numbers, groups: Sequence[str]) -> Fit:
    """x: what the masks' logits say, y: their true IoUs, both [n]; groups: of each example, at least two. All groups count alike.

    Raises ValueError when there are fewer groups, or an example is not finite.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} groups of examples: one must be foretold from another")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a read-out or an IoU is not a finite number")
    weight = 1 / np.bincount(group)[group]
    foretold = np.empty(len(y))
    for number in range(len(names)):
        own = group == number
        line = least_squares(x[~own], y[~own], weight[~own])
        foretold[own] = (line.intercept + line.slope * x[own]).clip(0, 1)
    return Fit(least_squares(x, y, weight), foretold)


def least_squares(x: Numbers, y: Numbers, weight: Numbers) -> Quality:
    """The line that is nearest to y in the mean weighted square; level where x is the same everywhere."""
    share = weight / weight.sum()
    centre, mean = float(share @ x), float(share @ y)
    spread = float(share @ (x - centre) ** 2)
    slope = float(share @ ((x - centre) * (y - mean))) / spread if spread > 1e-12 else 0.0
    return Quality(mean - slope * centre, slope)
