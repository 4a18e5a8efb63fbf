"""JSON files of polygons, one a picture or many pictures in one, whatever the annotation tool called things."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ruac.data.labels import Item, Labels, Rle, Size, decode
from ruac.data.layout import LayoutError, Pairs, fill, first_of_each, inside, matches, name_of, read_json, stem
from ruac.data.runlengths import Parts, from_polygons, polygons_of

Keys = tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Words:
    """Where things stand in the JSON: the keys that lead there, "*" being every element of a list or an object.

    tool: that writes it; records: one a picture; image: the name of its file, empty where it is that of the JSON file; height,
    width: where given; objects: of a record; points, label: of an object; sequence: the part of a video that a frame belongs to.
    """

    tool: str
    records: Keys
    objects: Keys
    points: Keys
    image: Keys = ()
    label: Keys = ()
    height: Keys = ()
    width: Keys = ()
    sequence: Keys = ()

    def __repr__(self) -> str:
        return self.tool


VIA = Words("VIA", ("*",), ("regions", "*"), ("shape_attributes",), image=("filename",))
LABELME = Words("LabelMe", (), ("shapes", "*"), ("points",), label=("label",), height=("imageHeight",), width=("imageWidth",))
WOODSCAPE = Words(
    "WoodScape",
    ("*",),
    ("annotation", "*"),
    ("segmentation",),
    label=("tags", "*"),
    height=("image_height",),
    width=("image_width",),
)
VISOR = Words(
    "VISOR",
    ("video_annotations", "*"),
    ("annotations", "*"),
    ("segments",),
    image=("image", "name"),
    sequence=("image", "subsequence"),
)


@dataclass(frozen=True)
class PolygonJson:
    """files: pattern of the JSON files and of the folders with their images; ignored: labels that are not to be judged; parts:
    what several polygons of an object mean; first_frame_only: of every sequence."""

    files: Pairs
    words: Words
    ignored: tuple[str, ...] = ()
    parts: Parts = "union"
    first_frame_only: bool = False

    def items(self, root: Path) -> Iterator[Item]:
        for labels, images in self.files:
            folders = [folder for folder, _ in matches(root, images) if folder.is_dir()]
            if not folders:
                raise LayoutError(f"{root / images}: missing")
            prefix = [folders[0].name] if len(self.files) > 1 else []
            # the frames of many videos lie in as many folders, and their names say in which
            homes = {path.name: path for folder in folders for path in folder.iterdir()} if len(folders) > 1 else {}
            for file, _ in matches(root, labels):
                if not self.words.image:
                    path = fill(folders[0], "{0}.*", [file.stem])
                    yield Item(name_of(*prefix, file.stem), path, _PolygonLabels(file, None, self))
                    continue
                for name, record in self._records(file):
                    path = inside(folders[0], name)
                    yield Item(name_of(*prefix, stem(name)), homes.get(name, path), _PolygonLabels(file, record, self))

    def _records(self, file: Path) -> list[tuple[str, Any]]:
        """Names of images, and what is said of them."""
        records = []
        for record in _walk(read_json(file), self.words.records):
            name = next(_walk(record, self.words.image), None)
            if not isinstance(name, str):
                raise ValueError(f"{file}: a record has no file name at '{'.'.join(self.words.image)}'")
            records.append((name, record))
        if self.first_frame_only:
            records.sort(key=lambda pair: pair[0])
            return first_of_each(lambda pair: str(next(_walk(pair[1], self.words.sequence), "")), records)
        return records


@dataclass(frozen=True)
class _PolygonLabels:
    """The objects of one picture; record: what the file says of it, None when that is to be read."""

    file: Path
    record: Any
    reader: PolygonJson

    def __call__(self, size: Size) -> Labels:
        words = self.reader.words
        record = self.record if self.record is not None else next(_walk(read_json(self.file), words.records), None)
        for keys, own, what in ((words.height, size[0], "high"), (words.width, size[1], "wide")):
            declared = next(_walk(record, keys), own) if keys else own
            if declared != own:
                raise ValueError(f"{self.file}: says {str(declared)[:20]} pixels {what}, the image has {own}")
        objects: list[Rle] = []
        ignore, skipped = np.zeros(size, np.bool_), 0
        for entry in _walk(record, words.objects):
            try:
                polygons = [polygon for part in _walk(entry, words.points) for polygon in polygons_of(part)]
                rle, none = from_polygons(polygons, size, self.reader.parts)
            except ValueError as error:
                raise ValueError(f"{self.file}: {error}") from None
            skipped += none
            if rle is not None and set(map(str, _walk(entry, words.label) if words.label else ())) & set(self.reader.ignored):
                ignore |= decode(rle)
            elif rle is not None:
                objects.append(rle)
        return Labels(tuple(objects), ignore=ignore, skipped=skipped)


def _walk(node: Any, keys: Keys) -> Iterator[Any]:
    """Everything the keys lead to; nothing where they lead nowhere."""
    if not keys:
        yield node
    elif keys[0] == "*":
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from _walk(value, keys[1:])
    elif isinstance(node, dict) and keys[0] in node:
        yield from _walk(node[keys[0]], keys[1:])
