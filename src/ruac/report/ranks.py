"""Which method is ahead over many sets? Mean ranks, Friedman's test and Nemenyi's critical difference (Demšar 2006)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEAST_SETS, LEAST_METHODS = 3, 3
LEAST_DIFFERENCES = 6
LEVEL = 0.05


@dataclass(frozen=True)
class Ranks:
    """Of one measure. ranks: mean over the sets, by method, 1 is best; p: of Friedman's test, that all methods are alike;
    critical: mean ranks closer than this are not told apart at the 5 % level."""

    measure: str
    methods: tuple[str, ...]
    sets: int
    ranks: tuple[float, ...]
    p: float
    critical: float


def rank(measure: str, methods: Sequence[str], values: NDArray[np.float64], higher: bool) -> Ranks | None:
    """values: [sets, methods]; sets where one is missing are left out. None with fewer than three sets or methods: nothing to test."""
    complete = values[np.isfinite(values).all(1)]
    sets, count = complete.shape
    if sets < LEAST_SETS or count < LEAST_METHODS:
        return None
    ranks = stats.rankdata(-complete if higher else complete, axis=1)
    # where all methods are equal on every set the statistic is 0/0, and nothing speaks against them being alike
    p = 1.0 if (ranks == ranks[0, 0]).all() else float(stats.friedmanchisquare(*ranks.T).pvalue)
    quantile = float(stats.studentized_range.ppf(1 - LEVEL, count, np.inf)) / math.sqrt(2)
    critical = quantile * math.sqrt(count * (count + 1) / (6 * sets))
    return Ranks(measure, tuple(methods), sets, tuple(float(r) for r in ranks.mean(0)), p, critical)


def cliques(ranks: Sequence[float], critical: float) -> list[tuple[float, float]]:
    """The widest stretches of mean ranks that lie within the critical difference: (first, last), each of two methods or more."""
    ordered = sorted(ranks)
    stretches = []
    for first in ordered:
        last = max(r for r in ordered if r - first <= critical)
        if last > first and not any(a <= first and last <= b for a, b in stretches):
            stretches.append((first, last))
    return stretches


def wilcoxon(differences: NDArray[np.float64]) -> float:
    """Two-sided p of the signed-rank test that the sets' differences lie around zero; NaN with fewer than six that are not zero,
    where no outcome is below 5 %."""
    used = differences[np.isfinite(differences) & (differences != 0)]
    return float(np.asarray(stats.wilcoxon(used))[1]) if len(used) >= LEAST_DIFFERENCES else math.nan


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for there being several (Holm 1979); NaN stays, and does not count."""
    known = [i for i, p in enumerate(ps) if math.isfinite(p)]
    corrected, largest = [math.nan] * len(ps), 0.0
    for place, i in enumerate(sorted(known, key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(known) - place) * ps[i]))
        corrected[i] = largest
    return corrected
