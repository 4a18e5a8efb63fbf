"""What a prediction means, in words and numbers that are computed from its own pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ruac.regions import Mask

STEPS = (0.01, 0.05, 0.2)  # expected error where one name ends and the next begins
NAMES = ("sure", "nearly sure", "doubtful", "a guess")
RARE = 1000  # one in so many, below which no number is told


@dataclass(frozen=True)
class Row:
    """Pixels of about the same expected error. name: in a word; words: what to expect there; share: of the picture; uncertainty: their
    mean in bits, for the colour."""

    name: str
    words: str
    share: float
    uncertainty: float


def rows(expected_error: NDArray[np.float32], uncertainty: NDArray[np.float32]) -> list[Row]:
    """The surest first, without those that no pixel belongs to; both [height, width]."""
    found = []
    steps = np.digitize(expected_error, STEPS)
    for number, name in enumerate(NAMES):
        here = steps == number
        if here.any():
            mean = float(expected_error[here].mean(dtype=np.float64))
            found.append(
                Row(name, f"{one_in(mean)} pixels here is likely wrong", float(here.mean()), float(uncertainty[here].mean()))
            )
    return found


def one_in(share: float) -> str:
    """ "1 in 5" for 0.2."""
    return f"fewer than 1 in {RARE:,}" if share * RARE < 1 else f"1 in {round(1 / share)}"


def summary(expected_error: NDArray[np.float32], mask: Mask) -> str:
    """In a sentence, how much of a mask is expected to be wrong; both [height, width]."""
    area, wrong = int(mask.sum()), float(expected_error.sum(dtype=np.float64))
    if not area:
        return "Nothing is in the mask: say where the object is with another click."
    if wrong >= area:
        return "More pixels are expected to be wrong than the mask has: do not trust it yet."
    return f"For every {round(area / max(wrong, 1)):,} pixels of the mask, one in or around it is likely wrong."
