"""Correlation of values that were counted, not kept: by bins, or with a weight each."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

# values whose deviation is less than this share of their size are equal: no correlation is made of rounding errors
EQUAL = 1e-6


def correlation(weights: ArrayLike, x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation; weights, x and y broadcast against each other. NaN where x or y is the same everywhere."""
    weights, x, y = np.broadcast_arrays(*(np.asarray(values, np.float64) for values in (weights, x, y)))
    total = weights.sum()
    if not total:
        return math.nan

    def mean(values: NDArray[np.float64]) -> float:
        return float((weights * values).sum() / total)

    dx, dy = x - mean(x), y - mean(y)
    variances = mean(dx**2), mean(dy**2)
    if any(variance <= EQUAL**2 * mean(values**2) for variance, values in zip(variances, (x, y), strict=True)):
        return math.nan
    return mean(dx * dy) / math.sqrt(variances[0] * variances[1])


def centred_ranks(counts: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float64]:
    """The rank that the members of each bin share, on average, less the mean of all ranks; bins ascend."""
    counts = counts.astype(np.float64)
    return counts.cumsum() - (counts + counts.sum()) / 2


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's correlation of single values [n], corrected for ties."""
    return correlation(1, _ranks(x), _ranks(y))


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    _, place, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    return centred_ranks(counts)[place]
