"""Readers of published data sets by the kind of their annotations; a data set is an entry in `domains`, not a reader.

A reader is its arguments, which are paths below the folder of the data set, and gives the pictures in a fixed order. What does not
lie as published is a LayoutError at once, what is wrong with one picture a ValueError when its labels are read. Kinds: CocoJson,
CocoVideoJson, PolygonJson (VIA, LabelMe and the like), IdMaps, ColourMaps, MaskFiles, RunLengthCsv, Hdf5Maps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ruac.data.labels import Item, Labels, Rle, Size, decode
from ruac.data.layout import Pairs, inside, name_of, read_json, stem
from ruac.data.runlengths import from_segmentation


class Reader(Protocol):
    """A kind of annotations, with the arguments of one data set."""

    def items(self, root: Path) -> Iterator[Item]:
        """The pictures of the data set that lies in root. Raises LayoutError when it does not, ValueError for names that lead
        out of it."""
        ...


@dataclass(frozen=True)
class CocoJson:
    """COCO's format, and LVIS's: polygons, run lengths of both kinds, crowds (which are ignored).

    files: annotation file and folder of images; names: what names an image, its "file_name", or the file of its "coco_url" and
    where there is none the last part of "file_name" (COCO_val2014_000000000001.jpg lies as 000000000001.jpg).
    """

    files: Pairs
    names: Literal["file_name", "coco_url"] = "file_name"

    def items(self, root: Path) -> Iterator[Item]:
        for labels, images in self.files:
            file, folder = root / labels, root / images
            document = read_json(file)
            objects = _by_key(document, "annotations", "image_id", file)
            for image in _entries(document, "images", file):
                name = self._name(image)
                path = inside(folder, name)
                read = _CocoLabels(file, image, tuple(objects[_number(image.get("id"), file)]))
                prefix = [folder.name] if len(self.files) > 1 else []
                yield Item(name_of(*prefix, stem(name)), path, read)

    def _name(self, image: dict[str, Any]) -> Any:
        if self.names == "file_name":
            return image.get("file_name")
        return str(image.get("coco_url") or str(image.get("file_name")).replace("_", "/")).rpartition("/")[2]


@dataclass(frozen=True)
class CocoVideoJson:
    """The format of YouTube-VIS: for every object a list with its segmentation in every frame, null where it is not seen.

    files: annotation file and folder of the videos' folders; first_frame_only: the first one that shows an object.
    """

    files: Pairs
    first_frame_only: bool = False

    def items(self, root: Path) -> Iterator[Item]:
        for labels, images in self.files:
            file, folder = root / labels, root / images
            document = read_json(file)
            objects = _by_key(document, "annotations", "video_id", file)
            for video in _entries(document, "videos", file):
                tracks, frames = objects[_number(video.get("id"), file)], _list(video, "file_names", file)
                for number, name in enumerate(frames):
                    seen = [track | {"segmentation": part} for track in tracks if (part := _frame(track, number, file))]
                    path = inside(folder, name)
                    if self.first_frame_only and not seen:
                        continue
                    yield Item(name_of(stem(name)), path, _CocoLabels(file, video, tuple(seen)))
                    if self.first_frame_only:
                        break


@dataclass(frozen=True)
class _CocoLabels:
    """The objects of one picture; picture: COCO's entry with its height and width."""

    file: Path
    picture: dict[str, Any]
    objects: Sequence[dict[str, Any]]

    def __call__(self, size: Size) -> Labels:
        declared = self.picture.get("height"), self.picture.get("width")
        if declared != size:
            height, width = (str(side)[:20] for side in declared)
            raise ValueError(f"{self.file}: says {width} x {height} pixels, the image has {size[1]} x {size[0]}")
        objects: list[Rle] = []
        ignore, skipped = np.zeros(size, np.bool_), 0
        for entry in self.objects:
            try:
                rle, none = from_segmentation(entry.get("segmentation") or [], size)
            except ValueError as error:
                raise ValueError(f"{self.file}: annotation {str(entry.get('id'))[:40]}: {error}") from None
            skipped += none
            if rle is not None and entry.get("iscrowd"):
                ignore |= decode(rle)
            elif rle is not None:
                objects.append(rle)
        return Labels(tuple(objects), ignore=ignore, skipped=skipped)


def _list(entry: Any, key: str, file: Path) -> list[Any]:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, list):
        raise ValueError(f"{file}: has no list '{key}' where this format has one")
    return value


def _entries(document: Any, key: str, file: Path) -> list[dict[str, Any]]:
    entries = _list(document, key, file)
    if not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{file}: '{key}' has something else than objects")
    return entries


def _by_key(document: Any, key: str, number: str, file: Path) -> dict[Any, list[dict[str, Any]]]:
    """The entries of a list by what one of their fields says."""
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for entry in _entries(document, key, file):
        groups[_number(entry.get(number), file)].append(entry)
    return groups


def _number(value: Any, file: Path) -> Any:
    if not isinstance(value, int | str):
        raise ValueError(f"{file}: {str(value)[:40]} is no id")
    return value


def _frame(track: dict[str, Any], number: int, file: Path) -> Any:
    """The segmentation in a frame, None where there is none."""
    parts = _list(track, "segmentations", file)
    return parts[number] if number < len(parts) else None
