"""Are the labelled pictures like those of a calibration? Where not, neither its guarantee nor the expected IoU can be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ruac.calibrate.file import Calibration
from ruac.calibrate.policy import Policy
from ruac.calibrate.shift import LEVEL, Shift, compare
from ruac.label.part import Part
from ruac.label.prompts import Task


def drawn(policy: Policy, task: Task) -> int:
    """The object whose mask stands for its picture, drawn as a calibration of that policy draws it."""
    return policy.draw(task.image.name, len(task.wanted))


def shift_of(calibration: Calibration, parts: Sequence[Part]) -> Shift | None:
    """Of all pictures that are done; None when they are too few to tell."""
    return compare(calibration.traits, [part.traits for part in parts if part.traits])


def describe(calibration: Calibration, pictures: int, shift: Shift | None) -> dict[str, Any]:
    """For labels.json. p: of each aspect that could be compared; differ_in: the aspects that a warning names."""
    return {
        "calibration": calibration.fingerprint,
        "pictures": pictures,
        "level": LEVEL,
        "p": dict(shift.p) if shift else {},
        "differ_in": list(shift.aspects) if shift else [],
    }


def warning(shift: Shift | None) -> str:
    """What is to be said where the pictures are not like those of the calibration; else nothing."""
    if not (shift and shift.aspects):
        return ""
    return (
        f"{shift.words}: its guarantee and the expected IoU may not hold for them; calibrate anew on labelled pictures of this kind "
        "(ruac calibrate, ruac quality)"
    )
