"""Are the labelled pictures like those of a calibration? Where not, neither its guarantee nor the expected IoU can be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ruac.calibrate.file import Calibration
from ruac.calibrate.policy import Policy
from ruac.calibrate.shift import LEVEL, Shift, Traits, compare
from ruac.label.part import Part
from ruac.label.prompts import Task


def drawn(task: Task) -> int | None:
    """The object whose mask stands for its picture, drawn as a calibration draws it; None where none is asked for."""
    return Policy().draw(task.image.name, len(task.wanted)) if task.wanted else None


def shift_of(calibration: Calibration, done: Sequence[tuple[Task, Part]]) -> Shift | None:
    """Of all pictures that are done; None when they are too few to tell."""
    return compare(calibration.traits, [_comparable(calibration.policy, task, part.traits) for task, part in done])


def describe(calibration: Calibration, pictures: int, shift: Shift | None) -> dict[str, Any]:
    """For labels.json. p: of each aspect that could be compared; differ_in: the aspects that a warning names."""
    return {
        "calibration": calibration.fingerprint,
        "pictures": pictures,
        "level": LEVEL,
        "p": dict(shift.p) if shift else {},
        "differ_in": list(shift.aspects) if shift else [],
    }


def _comparable(policy: Policy, task: Task, traits: Traits) -> Traits:
    """Without the doubt where the mask was asked for otherwise: that changes it in pictures of the same kind, too."""
    i = drawn(task)
    alike = i is not None and policy.fits(task.wanted[i].points, task.wanted[i].box)
    return traits if alike else replace(traits, doubt=())
