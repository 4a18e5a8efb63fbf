"""Does a model know how good a whole mask is? Predicted against true IoU, object by object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ruac.evaluate.correlation import correlation, rank_correlation


@dataclass(frozen=True)
class ObjectQuality:
    """How predicted IoUs follow the true ones over `objects` masks.

    spearman, pearson: correlations, NaN where either IoU is the same for all; mae: mean of |predicted - true|; bias: mean of
    predicted - true, above zero where masks are thought better than they are.
    """

    objects: int
    spearman: float
    pearson: float
    mae: float
    bias: float


def object_quality(predicted: ArrayLike, true: ArrayLike) -> ObjectQuality:
    """predicted, true: IoUs [objects] of the same masks.

    Raises ValueError when there is none, their numbers differ or one is not finite.
    """
    found, wanted = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if found.shape != wanted.shape or found.ndim != 1 or not found.size:
        raise ValueError(f"predicted and true IoUs must be two lists of the same objects, not {found.shape} and {wanted.shape}")
    if not np.isfinite([found, wanted]).all():
        raise ValueError("an IoU is not a finite number")
    gap = found - wanted
    return ObjectQuality(
        objects=len(gap),
        spearman=rank_correlation(found, wanted),
        pearson=correlation(1, found, wanted),
        mae=float(np.abs(gap).mean()),
        bias=float(gap.mean()),
    )
