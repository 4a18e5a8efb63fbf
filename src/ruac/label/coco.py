"""labels.json, the COCO file that all exports start from, and the masks of an image as one indexed PNG."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ruac.data.labels import decode
from ruac.label.part import Label, Part
from ruac.label.prompts import Category

MOST_8_BIT = 255  # objects
FAST = 3  # of zlib's levels: a third of the time of the usual 6 for a third more bytes


def labels_json(parts: Sequence[Part], categories: Sequence[Category], review: Sequence[bool], info: Mapping[str, Any]) -> bytes:
    """COCO instances with, beside what COCO has, score (predicted IoU), expected_iou, mean_uncertainty, object_score, next_click and
    review; with a calibration also inner and outer, two masks, and whether they are guaranteed.

    Ids count from 1 in the order of the images. review: whether a person should see it, a mask each, in the same order.
    """
    images = [
        {
            "id": number,
            "file_name": part.file_name,
            "width": part.width,
            "height": part.height,
            "mask_file": f"masks/{part.name}.png",
        }
        for number, part in enumerate(parts, start=1)
    ]
    annotations = [
        _annotation(number, image, part, label, flag)
        for number, ((image, part, label), flag) in enumerate(zip(_labels(parts), review, strict=True), start=1)
    ]
    content = {
        "info": dict(info),
        "licenses": [],
        "images": images,
        "categories": [vars(category) for category in categories],
        "annotations": annotations,
    }
    # a line for each list's entry would be nicer to read and half as large again
    return (json.dumps(content, allow_nan=False) + "\n").encode()


def index_png(part: Part) -> bytes:
    """0 background, and the number of each object, from 1: 8 bits and a palette, or 16 bits for more than 255 objects."""
    ids = index_map(part)
    buffer = io.BytesIO()
    if ids.dtype == np.uint8:
        picture = Image.fromarray(ids)
        picture.putpalette(palette())  # makes it an indexed one
        picture.save(buffer, "PNG", compress_level=FAST)
    else:
        Image.fromarray(ids).save(buffer, "PNG", compress_level=FAST)
    return buffer.getvalue()


def index_map(part: Part) -> NDArray[np.unsignedinteger[Any]]:
    """[height, width]; where objects overlap the smaller one is on top, so that a part is seen on its whole.

    Raises ValueError for more objects than 16 bits can number.
    """
    count = len(part.labels)
    if count > np.iinfo(np.uint16).max:
        raise ValueError(f"{count} objects, of which a PNG can number {np.iinfo(np.uint16).max}")
    ids = np.zeros((part.height, part.width), np.uint8 if count <= MOST_8_BIT else np.uint16)
    for i in sorted(range(count), key=lambda i: -part.labels[i].area):
        ids[decode({"size": [part.height, part.width], "counts": part.labels[i].counts.encode()})] = i + 1
    return ids


def palette() -> list[int]:
    """256 colours, far from each other for small numbers: the one that PASCAL VOC uses."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (numbers >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.flatten().tolist()


def _labels(parts: Sequence[Part]) -> Iterator[tuple[int, Part, Label]]:
    """All masks with the number of their image."""
    for number, part in enumerate(parts, start=1):
        for label in part.labels:
            yield number, part, label


def _annotation(number: int, image: int, part: Part, label: Label, review: bool) -> dict[str, Any]:
    x, y, kind = label.next_click
    size = [part.height, part.width]
    around: dict[str, Any] = {}
    if label.around is not None:
        inner, outer = ({"size": size, "counts": counts} for counts in (label.around.inner, label.around.outer))
        around = {"inner": inner, "outer": outer, "guaranteed": label.around.guaranteed}
    return {
        "id": number,
        "image_id": image,
        "category_id": label.category,
        "segmentation": {"size": size, "counts": label.counts},
        "bbox": list(label.bbox),
        "area": label.area,
        "iscrowd": 0,
        "score": label.score,
        "expected_iou": label.expected_iou,
        "mean_uncertainty": label.mean_uncertainty,
        "object_score": label.object_score,
        "next_click": {"x": x, "y": y, "label": kind},
        "review": review,
        **around,
    }
