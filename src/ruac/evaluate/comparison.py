"""Which method is better? Over sets, which count the same whatever their size."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

REFERENCE = "plain"
DIFFERENCE = "difference"
LESS_IS_BETTER = frozenset({"aurc", "eaurc", "ece", "ece_adaptive", "brier", "nll"})
# one a question: how much error is left, does doubt find it, is it of the right size
RANKED = ("aurc", "auroc", "ece")


def differences(measures: Mapping[str, float], methods: Sequence[str]) -> dict[str, float]:
    """Each method's measures less those of the reference: "difference.head.auroc.image@3" and its kind."""
    found = {}
    for name, value in measures.items():
        method, _, rest = name.partition(".")
        reference = measures.get(f"{REFERENCE}.{rest}")
        if method in methods and method != REFERENCE and reference is not None:
            found[f"{DIFFERENCE}.{name}"] = value - reference
    return found


def better_share(sets: Sequence[Mapping[str, float]], methods: Sequence[str]) -> dict[str, float]:
    """By "head.auroc.image@3" and its kind: the share of the sets where the method beats the reference in one of RANKED, among
    those where both are defined; NaN where none is. sets: their differences, see `differences`."""
    shares = {}
    for name in dict.fromkeys(name for measures in sets for name in measures):
        kind, _, rest = name.partition(".")
        method, _, measured = rest.partition(".")
        measure = measured.partition(".")[0]
        if kind == DIFFERENCE and method in methods and measure in RANKED:
            gains = [-measures[name] if measure in LESS_IS_BETTER else measures[name] for measures in sets if name in measures]
            won = [gain > 0 for gain in gains if math.isfinite(gain)]
            shares[rest] = sum(won) / len(won) if won else math.nan
    return shares


def mean_ranks(sets: Sequence[Mapping[str, float]], methods: Sequence[str]) -> dict[str, float]:
    """By "head.image@3" and its kind: the mean rank of the method, 1 the best, over the sets and RANKED. Equals share their ranks;
    a set where a method is not defined does not count for that measure. Empty for fewer than two methods."""
    ranks: dict[str, list[float]] = defaultdict(list)
    if len(methods) < 2:
        return {}
    for measures in sets:
        for measure in RANKED:
            prefix = f"{methods[0]}.{measure}."
            for where in (name.removeprefix(prefix) for name in measures if name.startswith(prefix)):
                values = np.array([measures.get(f"{method}.{measure}.{where}", math.nan) for method in methods])
                if np.isfinite(values).all():
                    worse = -values if measure not in LESS_IS_BETTER else values
                    for method, value in zip(methods, worse, strict=True):
                        below, equal = np.count_nonzero(worse < value), np.count_nonzero(worse == value)
                        ranks[f"{method}.{where}"].append(1 + below + (equal - 1) / 2)
    return {name: float(np.mean(found)) for name, found in ranks.items()}
