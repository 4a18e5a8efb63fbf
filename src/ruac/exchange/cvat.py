"""CVAT's XML 1.1 for images. Its masks are run lengths by rows inside their box, with all holes and pieces; its polygons have none."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ruac.data.labels import Rle, Size, decode, encode
from ruac.data.runlengths import from_polygons
from ruac.exchange.labelset import NUMBERS, Box, LabelledObject, LabelSet, Picture, Reading, categories_of, read_facts
from ruac.exchange.outlines import one_line_of
from ruac.exchange.parsing import number_of, size_of, text_of, whole_number_of
from ruac.exchange.runs import from_run_lengths, run_lengths
from ruac.regions import bounding_box

Shape = Literal["mask", "polygon"]
NOT_AREAS = {"polyline", "points", "cuboid", "skeleton", "ellipse", "tag"}


def write(labels: LabelSet, shape: Shape = "mask", tolerance: float = 0.0) -> bytes:
    """Scores are attributes of the labels. shape: see `one_line_of` for polygons; tolerance: of theirs, in pixels."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for tag, text in (("name", "ruac"), ("size", str(len(labels.pictures))), ("mode", "annotation")):
        ElementTree.SubElement(task, tag).text = text
    declared = ElementTree.SubElement(task, "labels")
    for category in labels.categories:
        _declare(declared, category)
    for number, picture in enumerate(labels.pictures):
        height, width = picture.size
        place = {"id": str(number), "name": picture.file_name, "width": str(width), "height": str(height)}
        image = ElementTree.SubElement(root, "image", place)
        for thing in picture.objects:
            element = ElementTree.SubElement(image, shape, _attributes(thing, shape, tolerance))
            for name, value in thing.numbers.items():
                ElementTree.SubElement(element, "attribute", {"name": name}).text = f"{value:.6g}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def read(root: ElementTree.Element) -> Reading:
    """Masks, polygons, and boxes as boxes alone. Raises ValueError when it is not CVAT's format for images."""
    if root.tag != "annotations" or root.find("track") is not None:
        raise ValueError("not 'CVAT for images 1.1': export the task in that format")
    declared = [text_of(name.text, "a label") for name in root.iterfind(".//labels/label/name")]
    pictures: list[Picture] = []
    problems: list[str] = []
    skipped = 0
    for element in root.iterfind("image"):
        name = element.get("name")
        try:
            file_name = text_of(name, "an image")
            size = size_of(*(whole_number_of(element.get(key), key) for key in ("width", "height")))
        except ValueError as error:
            problems.append(str(error))
            continue
        objects = []
        for number, shape in enumerate(element, start=1):
            if shape.tag in NOT_AREAS:
                skipped += 1
                continue
            try:
                objects.append(_object(shape, size))
            except ValueError as error:
                problems.append(f"{file_name}, shape {number}: {error}")
        pictures.append(Picture(file_name, size, tuple(objects)))
    return Reading(LabelSet(tuple(pictures), categories_of(pictures, declared)), tuple(problems), skipped)


def _declare(labels: ElementTree.Element, category: str) -> None:
    label = ElementTree.SubElement(labels, "label")
    ElementTree.SubElement(label, "name").text = category
    attributes = ElementTree.SubElement(label, "attributes")
    for name in NUMBERS:
        attribute = ElementTree.SubElement(attributes, "attribute")
        for tag, text in (("name", name), ("mutable", "False"), ("input_type", "text"), ("default_value", ""), ("values", "")):
            ElementTree.SubElement(attribute, tag).text = text


def _attributes(thing: LabelledObject, shape: Shape, tolerance: float) -> dict[str, str]:
    common = {"label": thing.label, "source": "auto", "occluded": "0", "z_order": "0"}
    mask = decode(thing.mask)
    if shape == "polygon":
        return {**common, "points": ";".join(f"{x:.2f},{y:.2f}" for x, y in one_line_of(mask, tolerance=tolerance))}
    rows, columns = bounding_box(mask)
    box = mask[rows, columns]
    lengths = ", ".join(map(str, run_lengths(box).tolist()))
    place = {"left": columns.start, "top": rows.start, "width": box.shape[1], "height": box.shape[0]}
    return {**common, "rle": lengths, **{key: str(value) for key, value in place.items()}}


def _object(shape: ElementTree.Element, size: Size) -> LabelledObject:
    label = text_of(shape.get("label"), "label")
    said: dict[str, Any] = {
        str(a.get("name")): a.text for a in shape.iterfind("attribute") if a.get("name") in NUMBERS and a.text
    }
    facts = read_facts(said)
    if shape.tag == "mask":
        return LabelledObject.of_mask(label, _mask(shape.attrib, size), facts)
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
        mask, _ = from_polygons([[number_of(n, "points") for pair in pairs for n in pair]], size)
        if mask is None:
            raise ValueError("a polygon of less than three points")
        return LabelledObject.of_mask(label, mask, facts)
    if shape.tag == "box":
        return LabelledObject(label, None, _box(shape.attrib, size), facts)
    raise ValueError(f"<{shape.tag[:20]}> is no shape")


def _mask(given: Mapping[str, str], size: Size) -> Rle:
    left, top, width, height = (whole_number_of(given.get(key), key) for key in ("left", "top", "width", "height"))
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"a mask at {left}, {top} of {width} x {height} pixels that leaves the picture")
    lengths = [whole_number_of(n, "rle") for n in given.get("rle", "").split(",")]
    mask = np.zeros(size, np.bool_)
    mask[top : top + height, left : left + width] = from_run_lengths(lengths, (height, width))
    return encode(mask)


def _box(given: Mapping[str, str], size: Size) -> Box:
    x0, y0, x1, y1 = (number_of(given.get(key), key) for key in ("xtl", "ytl", "xbr", "ybr"))
    if given.get("rotation", "0") not in ("0", "0.0", "0.00"):
        raise ValueError("a box that is turned; draw a polygon")
    if not (0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]):
        raise ValueError(f"a box {x0:g}, {y0:g}, {x1:g}, {y1:g} that is empty or leaves the picture")
    return x0, y0, x1 - x0, y1 - y0
