"""Labels of many pictures in no format at all: what every reader gives and every writer takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pycocotools import mask as coco_mask

from ruac.data.labels import Rle, Size
from ruac.exchange.parsing import number_of

Box = tuple[float, float, float, float]  # x, y, width, height
EXPECTED_IOU = "expected_iou"
NUMBERS = ("score", EXPECTED_IOU, "mean_uncertainty", "object_score")


@dataclass(frozen=True, eq=False)
class LabelledObject:
    """mask: None where only the box is known; facts: what else is said of it, the numbers of NUMBERS checked."""

    label: str
    mask: Rle | None
    box: Box
    facts: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of_mask(label: str, mask: Rle, facts: Mapping[str, Any] | None = None) -> LabelledObject:
        x, y, width, height = (float(n) for n in coco_mask.toBbox(mask))
        return LabelledObject(label, mask, (x, y, width, height), facts or {})

    @property
    def numbers(self) -> dict[str, float]:
        """Those of NUMBERS that are known."""
        return {name: self.facts[name] for name in NUMBERS if self.facts.get(name) is not None}


@dataclass(frozen=True, eq=False)
class Picture:
    """file_name: with /, from the folder that all pictures are in; size: height, width."""

    file_name: str
    size: Size
    objects: tuple[LabelledObject, ...]


@dataclass(frozen=True, eq=False)
class LabelSet:
    """categories: every label in its order, used or not; info: what made the labels, as COCO's "info" has it."""

    pictures: tuple[Picture, ...]
    categories: tuple[str, ...]
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Of objects."""
        return sum(len(picture.objects) for picture in self.pictures)


@dataclass(frozen=True, eq=False)
class Reading:
    """problems: a line each thing that could not be read, all others are there; skipped: shapes that are no areas, such as points."""

    labels: LabelSet
    problems: tuple[str, ...] = ()
    skipped: int = 0


def read_facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with the numbers of NUMBERS as such. Raises ValueError where one is none."""
    known = {name: number_of(values[name], name) for name in NUMBERS if values.get(name) is not None}
    return {**values, **known}


def categories_of(pictures: Iterable[Picture], declared: Sequence[str] = ()) -> tuple[str, ...]:
    """The declared labels, then those that are used without being so, in the order of their first use."""
    return tuple(dict.fromkeys([*declared, *(thing.label for picture in pictures for thing in picture.objects)]))


def with_area(labels: LabelSet) -> tuple[LabelSet, int]:
    """Without the objects that have no pixel, boxes alone or empty masks, and how many these were."""
    pictures = tuple(
        replace(picture, objects=tuple(t for t in picture.objects if t.mask is not None and coco_mask.area(t.mask)))
        for picture in labels.pictures
    )
    kept = replace(labels, pictures=pictures)
    return kept, labels.count - kept.count
