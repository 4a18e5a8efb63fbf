"""COCO's instances: the format of `ruac label`, with run lengths or with polygons."""

from __future__ import annotations

import json
from typing import Any, Literal

from ruac.data.labels import Rle, Size, decode
from ruac.data.runlengths import from_segmentation
from ruac.exchange.labelset import Box, LabelledObject, LabelSet, Picture, Reading, categories_of, read_facts
from ruac.exchange.outlines import one_line_of
from ruac.exchange.parsing import number_of, size_of, text_of

Shape = Literal["mask", "polygon"]
STANDARD = {"id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd"}


def read(data: dict[str, Any]) -> Reading:
    """Polygons and both kinds of run lengths; an annotation with a box alone stays a box.

    Raises ValueError when it is no COCO at all; what is wrong with one image or annotation is among the problems.
    """
    problems: list[str] = []
    names = {_id(entry): text_of(entry.get("name"), "a category") for entry in _table(data, "categories")}
    sizes: dict[Any, Size] = {}
    files: dict[Any, str] = {}
    for number, entry in enumerate(_table(data, "images"), start=1):
        try:
            name = text_of(entry.get("file_name"), "file_name")
            sizes[_id(entry)] = size_of(entry.get("width"), entry.get("height"))
            files[_id(entry)] = name
        except ValueError as error:
            problems.append(f"image {number}: {error}")
    objects: dict[Any, list[LabelledObject]] = {image: [] for image in files}
    for number, entry in enumerate(_table(data, "annotations"), start=1):
        try:
            image, category = (_hashable(entry.get(key)) for key in ("image_id", "category_id"))
            if image not in files:
                raise ValueError(f"image_id {str(image)[:40]}: no such image")
            if category not in names:
                raise ValueError(f"category_id {str(category)[:40]}: no such category")
            objects[image].append(_object(entry, names[category], sizes[image]))
        except ValueError as error:
            problems.append(f"annotation {number}: {error}")
    pictures = tuple(Picture(name, sizes[image], tuple(objects[image])) for image, name in files.items())
    info = data.get("info")
    categories = categories_of(pictures, tuple(names.values()))
    return Reading(LabelSet(pictures, categories, info if isinstance(info, dict) else {}), tuple(problems))


def write(labels: LabelSet, shape: Shape = "mask", tolerance: float = 0.0) -> bytes:
    """shape: run lengths, or one polygon an object, see `one_line_of`; tolerance: of the polygons, in pixels."""
    categories = {name: number for number, name in enumerate(labels.categories, start=1)}
    images, annotations = [], []
    for number, picture in enumerate(labels.pictures, start=1):
        height, width = picture.size
        images.append({"id": number, "file_name": picture.file_name, "width": width, "height": height})
        for thing in picture.objects:
            place = {"id": len(annotations) + 1, "image_id": number, "category_id": categories[thing.label]}
            annotations.append({**place, **_area(thing, shape, tolerance), "iscrowd": 0, **thing.facts})
    kinds = [{"id": number, "name": name} for name, number in categories.items()]
    content = {"info": dict(labels.info), "images": images, "categories": kinds, "annotations": annotations}
    return (json.dumps(content, allow_nan=False) + "\n").encode()


def _object(entry: dict[str, Any], label: str, size: Size) -> LabelledObject:
    facts = read_facts({key: value for key, value in entry.items() if key not in STANDARD})
    segmentation = entry.get("segmentation")
    mask: Rle | None = None
    if segmentation not in (None, []):
        mask, _ = from_segmentation(segmentation, size)
        if mask is None:
            raise ValueError("no polygon of three points or more")
        return LabelledObject.of_mask(label, mask, facts)
    return LabelledObject(label, None, _box(entry.get("bbox"), size), facts)


def _box(value: Any, size: Size) -> Box:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError("neither a segmentation nor a box of four numbers")
    x, y, width, height = (number_of(n, "bbox") for n in value)
    if width <= 0 or height <= 0 or x < 0 or y < 0 or x + width > size[1] or y + height > size[0]:
        raise ValueError(f"a box {value} that is empty or leaves the picture of {size[1]} x {size[0]} pixels")
    return x, y, width, height


def _area(thing: LabelledObject, shape: Shape, tolerance: float) -> dict[str, Any]:
    if thing.mask is None:
        return {"segmentation": [], "bbox": list(thing.box), "area": thing.box[2] * thing.box[3]}
    mask = decode(thing.mask)
    if shape == "polygon":
        line = one_line_of(mask, tolerance=tolerance)
        segmentation: Any = [line.ravel().tolist()] if len(line) else []
    else:
        segmentation = {"size": list(mask.shape), "counts": thing.mask["counts"].decode("ascii")}
    return {"segmentation": segmentation, "bbox": list(thing.box), "area": int(mask.sum())}


def _table(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    rows = data.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"not COCO: '{key}' must be a list of objects")
    return rows


def _id(entry: dict[str, Any]) -> Any:
    if entry.get("id") is None:
        raise ValueError("an entry without an id")
    return _hashable(entry["id"])


def _hashable(value: Any) -> Any:
    if isinstance(value, list | dict):
        raise ValueError(f"{str(value)[:40]} is no id")
    return value
