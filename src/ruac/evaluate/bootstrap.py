"""Means over images and how far other images of the same set might move them."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """mean and its 95 % bootstrap interval; NaN where no image defines the measure."""

    mean: float
    low: float
    high: float


def bootstrap_means(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Means [DRAWS, ...] of images drawn with replacement, NaN left out; values: [images, ...].

    All measures of a set (of this name) share their draws, so differences between them are paired.
    """
    count, rng = len(values), np.random.default_rng(zlib.crc32(name.encode()))
    flat = values.reshape(count, -1)
    defined = np.isfinite(flat)
    known = np.where(defined, flat, 0)
    weight, total = (np.empty((DRAWS, flat.shape[1])) for _ in range(2))
    # a hundred draws at a time: of all together how often each image is drawn would be the largest array of an evaluation
    for part in np.split(np.arange(DRAWS), DRAWS // 100):
        times = rng.multinomial(count, np.full(count, 1 / count), len(part)).astype(np.float64)
        weight[part], total[part] = times @ defined, times @ known
    means = np.divide(total, weight, out=np.full(total.shape, math.nan), where=weight > 0)
    return means.reshape(DRAWS, *values.shape[1:])


def defined_mean(values: NDArray[np.float64]) -> float:
    """Without NaN; NaN where nothing is left."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else math.nan


def estimate(mean: float, draws: NDArray[np.float64]) -> Estimate:
    """A mean with the interval of its draws."""
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return Estimate(mean, math.nan, math.nan)
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(mean, float(low), float(high))
