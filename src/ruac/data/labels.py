"""What is annotated in one picture of a published data set, and how it becomes a mask of the folder format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ruac.data.folder import IGNORE

Size = tuple[int, int]  # height, width
Rle = Any  # one object as pycocotools has it, {"size": [height, width], "counts": bytes}; its type there is private
MAX_OBJECTS = IGNORE - 1


@dataclass(frozen=True)
class Labels:
    """objects: run lengths, which may overlap; or ids: [height, width], 0 background, every other number an object; ignore:
    [height, width], what is not to be judged; skipped: annotations that are no area, such as polygons of two points."""

    objects: tuple[Rle, ...] = ()
    ids: NDArray[np.int64] | None = None
    ignore: NDArray[np.bool_] | None = None
    skipped: int = 0


@dataclass(frozen=True)
class Item:
    """A picture and its labels, neither read yet.

    name: from its path, fit for a file name; labels: reads them for a picture of that size, raises ValueError naming the file.
    """

    name: str
    image: Path
    labels: Callable[[Size], Labels]


@dataclass(frozen=True)
class FolderMask:
    """ids: [height, width], 0 background, 1..254 objects, 255 ignore; objects: how many are visible; left_out: how many were
    beyond the 254 that an 8-bit mask can hold."""

    ids: NDArray[np.uint8]
    objects: int
    left_out: int


def to_folder_mask(labels: Labels, size: Size) -> FolderMask:
    """The 254 largest objects, smaller ones on top of larger ones; pixels of the others alone are ignored, not background.

    Ids of a map stay as they are where they fit, all others are numbered by size, the largest 1.
    """
    ids = np.zeros(size, np.uint8)
    if labels.ignore is not None:
        ids[labels.ignore] = IGNORE
    left_out = _paint_objects(ids, labels.objects) if labels.ids is None else _paint_map(ids, labels.ids)
    visible = np.unique(ids)
    return FolderMask(ids, int(np.count_nonzero((visible > 0) & (visible < IGNORE))), left_out)


def _paint_map(ids: NDArray[np.uint8], source: NDArray[np.int64]) -> int:
    numbers, where, sizes = np.unique(source, return_inverse=True, return_counts=True)
    objects = np.flatnonzero(numbers != 0)
    table = np.zeros(len(numbers), np.uint8)
    if all(0 < numbers[i] <= MAX_OBJECTS for i in objects):
        table[objects] = numbers[objects]
    else:
        by_size = objects[np.argsort(-sizes[objects], kind="stable")]
        table[by_size] = IGNORE
        kept = by_size[:MAX_OBJECTS]
        table[kept] = np.arange(1, len(kept) + 1)
    values = table[where.reshape(ids.shape)]
    ids[values > 0] = values[values > 0]
    return max(0, len(objects) - MAX_OBJECTS)


def _paint_objects(ids: NDArray[np.uint8], objects: tuple[Rle, ...]) -> int:
    sizes = np.array([int(coco_mask.area(rle)) for rle in objects])
    by_size = [i for i in np.argsort(-sizes, kind="stable") if sizes[i]]
    # those beyond the limit first, so that every other object is painted over them
    for i in by_size[MAX_OBJECTS:]:
        ids[decode(objects[i])] = IGNORE
    for number, i in enumerate(by_size[:MAX_OBJECTS], start=1):
        ids[decode(objects[i])] = number
    return len(by_size[MAX_OBJECTS:])


def decode(rle: Rle) -> NDArray[np.bool_]:
    """[height, width]"""
    return coco_mask.decode(rle).astype(np.bool_)


def encode(mask: NDArray[np.bool_]) -> Rle:
    return coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
