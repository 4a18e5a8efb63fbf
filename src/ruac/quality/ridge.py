"""Ridge regression in closed form, its strength chosen by how well groups are foretold from all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ruac.quality.read_outs import FEATURES, Quality

Numbers = NDArray[np.float64]

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of the pull towards the mean, in units of the read-outs' variance


@dataclass(frozen=True, eq=False)
class Line:
    """intercept + x · slope."""

    intercept: float
    slope: Numbers

    def __call__(self, x: Numbers) -> Numbers:
        """[n] of [n, F], at least 0 and at most 1."""
        return (self.intercept + x @ self.slope).clip(0, 1)


@dataclass(frozen=True, eq=False)
class Fit:
    """quality: fitted on all examples; strength: that was chosen; foretold: [n] expected IoU of each example by a fit on all groups
    but its own."""

    quality: Quality
    strength: float
    foretold: Numbers


def ridge(x: Numbers, y: Numbers, weight: Numbers, strength: float) -> Line:
    """The line that is nearest to y [n] in the mean weighted square, its slopes by standardised x [n, F] held small.

    A column that is the same everywhere gets the slope 0.
    """
    share = weight / weight.sum()
    centre, mean = share @ x, float(share @ y)
    spread = np.sqrt(share @ (x - centre) ** 2)
    scale = np.where(spread > 1e-9, spread, np.inf)
    z = (x - centre) / scale
    slope = np.linalg.solve(z.T @ (z * share[:, None]) + strength * np.eye(x.shape[1]), z.T @ (share * (y - mean))) / scale
    return Line(mean - float(centre @ slope), slope)


def fit(x: Numbers, y: Numbers, groups: Sequence[str]) -> Fit:
    """x: read-outs [n, FEATURES]; y: true IoUs [n]; groups: of each example, at least two. All groups count alike.

    Raises ValueError when there are fewer groups, or an example is not finite.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} groups of examples: one must be foretold from another")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a read-out or an IoU is not a finite number")
    weight = 1 / np.bincount(group)[group]
    foretold = {strength: _foretold(x, y, group, weight, strength) for strength in STRENGTHS}
    best = min(STRENGTHS, key=lambda strength: float(weight @ (foretold[strength] - y) ** 2))
    line = ridge(x, y, weight, best)
    weights: dict[str, float] = dict(zip(FEATURES, line.slope.tolist(), strict=True))
    return Fit(Quality(line.intercept, weights), best, foretold[best])


def _foretold(x: Numbers, y: Numbers, group: NDArray[np.intp], weight: Numbers, strength: float) -> Numbers:
    result = np.empty(len(y))
    for number in range(group.max() + 1):
        own = group == number
        result[own] = ridge(x[~own], y[~own], weight[~own], strength)(x[own])
    return result
