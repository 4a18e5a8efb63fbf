"""Which masks a person should see when there is not time for all of them, and what that is expected to bring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """amount: a number of masks, or per cent of all of them."""

    amount: float
    percent: bool

    def of(self, masks: int) -> int:
        """How many of so many masks; a part of one counts as one."""
        # rounded first: 10 % of 70 must not be 8 because 0.1 is no binary number
        wanted = math.ceil(round(self.amount * masks / 100, 9)) if self.percent else int(self.amount)
        return min(wanted, masks)


@dataclass(frozen=True)
class Plan:
    """order: indices of all masks, the lowest expected IoU first; review: how many of the first a person sees; before, after: mean
    IoU that is expected of all masks without and with that, 1 where there is no mask."""

    order: tuple[int, ...]
    review: int
    before: float
    after: float

    def summary(self) -> dict[str, float]:
        """The same in numbers, as labels.json has it."""
        return {"masks": self.review, "expected_mean_iou": round(self.before, 6), "expected_mean_iou_after": round(self.after, 6)}

    def words(self) -> str:
        """In a sentence or two, for people."""
        total = len(self.order)
        if not total:
            return "No masks, so nothing to review."
        expected = f"expected mean IoU of all {total} masks: {self.before:.3f}"
        if not self.review:
            return f"Nothing to review within the budget; {expected}."
        masks = f"the {self.review} worst masks ({100 * self.review / total:.0f} %)"
        return (
            f"Review {masks}; {expected} as they are, {self.after:.3f} after it. That holds if every reviewed mask becomes "
            "right, and as far as the expected IoU of the others can be trusted on these images."
        )


def parse_budget(text: str) -> Budget:
    """ "10%" or "25". Raises ValueError for anything else."""
    percent = text.strip().endswith("%")
    try:
        amount = float(text.strip().removesuffix("%"))
    except ValueError:
        amount = math.nan
    whole = percent or amount == math.floor(amount) if math.isfinite(amount) else False
    if not whole or amount < 0 or (percent and amount > 100):
        raise ValueError(f"--budget {text}: expected a share of the masks such as 10%, or a number of them such as 25")
    return Budget(amount, percent)


def plan(expected: Sequence[float], budget: Budget) -> Plan:
    """For masks of these expected IoUs. On ties the first come first."""
    order = sorted(range(len(expected)), key=lambda i: expected[i])
    review = budget.of(len(order))
    if not order:
        return Plan((), 0, 1.0, 1.0)
    kept = math.fsum(expected[i] for i in order[review:])
    return Plan(tuple(order), review, math.fsum(expected) / len(order), (review + kept) / len(order))
