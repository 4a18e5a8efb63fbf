"""What a calibration promises of the labels: for labels.json, and in words for the review page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ruac.calibrate.bounds import Guarantee
from ruac.label.part import Part


def describe(guarantee: Guarantee, parts: Sequence[Part]) -> dict[str, Any]:
    """For labels.json. guaranteed: masks that it holds for, those whose prompt is of the calibration's kind."""
    return {"guaranteed": _guaranteed(parts), **guarantee.describe()}


def words(guarantee: Guarantee, parts: Sequence[Part]) -> str:
    """What the guarantee is, and of how many masks it is none."""
    total = sum(len(part.labels) for part in parts)
    others = total - _guaranteed(parts)
    if not others:
        return guarantee.words
    return f"{guarantee.words} There is no guarantee for {others} of these {total} masks, prompted otherwise."


def _guaranteed(parts: Sequence[Part]) -> int:
    return sum(label.around is not None and label.around.guaranteed for part in parts for label in part.labels)
