"""Label Studio's tasks: pre-annotations to import there, and what its JSON export says after people have corrected them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from ruac.data.labels import Size, decode, encode
from ruac.data.runlengths import from_polygons
from ruac.exchange.brush import decode_brush, encode_brush
from ruac.exchange.labelset import EXPECTED_IOU, LabelledObject, LabelSet, Picture, Reading, categories_of
from ruac.exchange.outlines import one_line_of
from ruac.exchange.parsing import number_of, size_of, text_of
from ruac.exchange.pictures import first_in, names_in_address
from ruac.regions import Mask

Shape = Literal["mask", "polygon"]
KINDS = {"mask": "brushlabels", "polygon": "polygonlabels"}
AREAS = ("brushlabels", "polygonlabels", "rectanglelabels", "labels")
LOCAL_FILES = "/data/local-files/?d="
CHANGED = "prediction-changed"  # the origin of what a person has corrected


@dataclass(frozen=True)
class Tags:
    """Of a labelling configuration. from_name: the control that regions are drawn with; to_name: the picture they are on."""

    from_name: str = "label"
    to_name: str = "image"


def write(
    labels: LabelSet,
    tags: Tags,
    model_version: str,
    shape: Shape = "mask",
    tolerance: float = 0.0,
    address: str = LOCAL_FILES,
) -> bytes:
    """A task a picture with one prediction, whose score is the lowest expected IoU of its objects: sorted by it, the pictures that
    most need a look come first. address: what comes before a picture's name to make its address."""
    tasks = []
    for picture in labels.pictures:
        regions = [
            region(f"ruac-{number}", decode(thing.mask), thing.label, thing.numbers.get(EXPECTED_IOU), tags, shape, tolerance)
            for number, thing in enumerate(picture.objects, start=1)
        ]
        scores = [one["score"] for one in regions if "score" in one]
        prediction = {"model_version": model_version, "result": regions, **({"score": min(scores)} if scores else {})}
        tasks.append({"data": {"image": address + quote(picture.file_name)}, "predictions": [prediction]})
    return (json.dumps(tasks, allow_nan=False) + "\n").encode()


def region(
    name: str, mask: Mask, label: str, score: float | None, tags: Tags, shape: Shape = "mask", tolerance: float = 0.0
) -> dict[str, Any]:
    """One object as Label Studio has it: a brush, or one closed polygon, see `one_line_of`."""
    height, width = mask.shape
    kind = KINDS[shape]
    if shape == "mask":
        value: dict[str, Any] = {"format": "rle", "rle": encode_brush(mask)}
    else:
        points = one_line_of(mask, tolerance=tolerance) * (100 / width, 100 / height)
        value = {"points": points.tolist(), "closed": True}
    return {
        "id": name,
        "type": kind,
        "from_name": tags.from_name,
        "to_name": tags.to_name,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**value, kind: [label]},
        **({} if score is None else {"score": score}),
    }


def read(tasks: list[Any], images: Path | None) -> Reading:
    """Brushes, polygons and rectangles of each task's last annotation or, where there is none, of its last prediction.

    A score stays the expected IoU of an object that nobody has changed. images: where the pictures are, to find out which of the
    names that an address may stand for is theirs. Tasks without a region are left out, because nothing tells how large they are.
    """
    pictures: dict[str, Picture] = {}
    problems: list[str] = []
    skipped = 0
    for number, task in enumerate(tasks, start=1):
        try:
            name = _file_name(task, images)
            results = _results(task)
        except ValueError as error:
            problems.append(f"task {number}: {error}")
            continue
        objects, sizes = [], set()
        for place, result in enumerate(results, start=1):
            if not isinstance(result, dict) or result.get("type") not in AREAS:
                skipped += 1
                continue
            try:
                size = size_of(result.get("original_width"), result.get("original_height"))
                objects.append(_object(result, size))
                sizes.add(size)
            except ValueError as error:
                problems.append(f"task {number}, region {place}: {error}")
        if len(sizes) > 1 or name in pictures:
            problems.append(f"task {number}: " + (f"a second task of {name}" if name in pictures else "regions of several sizes"))
        elif sizes:
            pictures[name] = Picture(name, sizes.pop(), tuple(objects))
    found = tuple(pictures.values())
    return Reading(LabelSet(found, categories_of(found)), tuple(problems), skipped)


def percent(value: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[float, ...]:
    """The numbers at these keys. Raises ValueError unless all are from 0 to 100."""
    numbers = tuple(number_of(value.get(key), key) for key in keys)
    if not all(-1e-6 <= number <= 100 + 1e-6 for number in numbers):
        raise ValueError(f"{', '.join(keys)}: {', '.join(f'{n:g}' for n in numbers)} are no percentages of the picture")
    return numbers


def _file_name(task: Any, images: Path | None) -> str:
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
        raise ValueError("not a task: it has no 'data'")
    texts = [value for value in data.values() if isinstance(value, str)]
    address = data.get("image", texts[0] if len(texts) == 1 else None)
    if not isinstance(address, str) or address.startswith("data:"):
        raise ValueError("no address of a picture in its data")
    names = names_in_address(address)
    return text_of((first_in(images, names) if images else None) or names[-1 if "/upload/" in address else 0], "data")


def _results(task: dict[str, Any]) -> list[Any]:
    for key in ("annotations", "predictions"):
        entries = task.get(key)
        given = [
            entry
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and not entry.get("was_cancelled")
        ]
        if given:
            results = given[-1].get("result")
            if not isinstance(results, list):
                raise ValueError(f"{key} without a list of results")
            return results
    return []


def _object(result: dict[str, Any], size: Size) -> LabelledObject:
    value = result.get("value")
    if not isinstance(value, dict):
        raise ValueError("a region without a value")
    names = value.get(result["type"])
    label = text_of(names[0] if isinstance(names, list) and names else None, result["type"])
    known = result.get("score") is not None and result.get("origin") != CHANGED
    facts = {EXPECTED_IOU: number_of(result["score"], "score")} if known else {}
    height, width = size
    if "rle" in value:
        return LabelledObject.of_mask(label, encode(decode_brush(value["rle"], size)), facts)
    if "points" in value:
        return LabelledObject.of_mask(label, _polygon(value["points"], size), facts)
    if value.get("rotation"):
        raise ValueError("a rectangle that is turned; draw a polygon")
    x, y, w, h = percent(value, ("x", "y", "width", "height"))
    return LabelledObject(label, None, (x * width / 100, y * height / 100, w * width / 100, h * height / 100), facts)


def _polygon(points: Any, size: Size) -> Any:
    try:
        shares = np.array(points, dtype=np.float64) / 100
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a polygon with points that are no pairs of numbers") from None
    if shares.ndim != 2 or shares.shape[1] != 2 or len(shares) < 3:
        raise ValueError("a polygon of less than three points x, y")
    mask, _ = from_polygons([(shares * (size[1], size[0])).ravel().tolist()], size)
    return mask
