"""How many clicks does an object take? The number of clicks (NoC) until a mask is good enough, and how often it never is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# IoUs to reach
TARGETS = (0.80, 0.85, 0.90)


@dataclass(frozen=True)
class ClickEffort:
    """clicks: [objects], the first number of clicks after which the target IoU is reached, the most that were made where it never is;
    failed: boolean [objects], where it never is."""

    target: float
    clicks: NDArray[np.int64]
    failed: NDArray[np.bool_]

    @property
    def noc(self) -> float:
        """Mean number of clicks; failures count as if the last click had done it, so `failure_rate` belongs beside it."""
        return float(self.clicks.mean())

    @property
    def failure_rate(self) -> float:
        return float(self.failed.mean())


def click_effort(ious: ArrayLike, target: float) -> ClickEffort:
    """ious: [objects, N] after 1, 2 .. N clicks. An object counts from the first time that it reaches the target, whatever follows.

    Raises ValueError when there is no object or click, or an IoU is not a finite number.
    """
    table = np.asarray(ious, np.float64)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"IoUs must be a table of objects by number of clicks, not of shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("an IoU is not a finite number")
    reached = table >= target
    failed = np.logical_not(reached.any(1))
    return ClickEffort(target, np.where(failed, table.shape[1], reached.argmax(1) + 1), failed)
