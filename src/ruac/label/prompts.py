"""What is wanted of which image: boxes and clicks from a file, in our own JSON, as CSV, or the boxes of COCO annotations."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruac.label.images import ImageFile

Point = tuple[float, float, int]  # x, y, label
Box = tuple[float, float, float, float]  # x0, y0, x1, y1
Size = tuple[int, int]  # height, width

COLUMNS, OPTIONAL_COLUMNS = ("image", "x", "y"), ("label", "object", "category")
NAMELESS = "object"  # the category of what has none
ROUNDED = 1.0  # pixels that a box may reach beyond the image, as those that tools have rounded do


@dataclass(frozen=True)
class Category:
    """As COCO has it."""

    id: int
    name: str
    supercategory: str = ""


@dataclass(frozen=True)
class Wanted:
    """What is said about one object. category: an id; where: in words, the place in the file."""

    category: int
    where: str
    points: tuple[Point, ...] = ()
    box: Box | None = None

    def fit(self, size: Size) -> Wanted:
        """The same for an image of (height, width), its box clipped where it is less than a pixel outside.

        Raises ValueError for what lies outside.
        """
        height, width = size
        for x, y, _ in self.points:
            if not (0 <= x < width and 0 <= y < height):
                raise ValueError(f"{self.where}: point ({x:g}, {y:g}) is outside the image of {width} x {height} pixels")
        if self.box is None:
            return self
        x0, y0, x1, y1 = self.box
        if min(x0, y0) < -ROUNDED or x1 > width + ROUNDED or y1 > height + ROUNDED:
            raise ValueError(f"{self.where}: box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) leaves the image of {width} x {height} pixels")
        clipped = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
        if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
            raise ValueError(
                f"{self.where}: box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is outside the image of {width} x {height} pixels"
            )
        return Wanted(self.category, self.where, self.points, clipped)


@dataclass(frozen=True)
class PromptFile:
    """wanted: objects by the name of their image; sizes: (height, width) that the file says an image has."""

    path: Path
    categories: tuple[Category, ...]
    wanted: Mapping[str, tuple[Wanted, ...]]
    sizes: Mapping[str, Size] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """An image and what is wanted of it. size: (height, width) that it should have, None where nothing says so."""

    image: ImageFile
    wanted: tuple[Wanted, ...]
    size: Size | None


def read_prompts(path: Path) -> PromptFile:
    """Raises ValueError, naming the file and the place, for anything that is not understood; FileNotFoundError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file in UTF-8; --prompts takes JSON, CSV or COCO JSON") from None
    if not text.strip():
        raise ValueError(f"{path}: an empty file; --prompts takes JSON, CSV or COCO JSON")
    if path.suffix.lower() == ".csv":
        return _from_csv(path, text)
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); a table of points is to be called .csv") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected {{image: [objects]}} or COCO, got a {type(content).__name__}")
    try:
        return _from_coco(path, content) if isinstance(content.get("annotations"), list) else _from_json(path, content)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not as expected ({type(error).__name__}: {error})") from None


def match(prompts: PromptFile, files: Sequence[ImageFile]) -> list[Task]:
    """The images that something is wanted of. An image is named by its path below the common folder, or by its last part alone.

    Raises ValueError for a name that none or several of the images have.
    """
    names = {file.name: file for file in files}
    short: dict[str, list[ImageFile]] = defaultdict(list)
    for file in files:
        short[file.name.rsplit("/", 1)[-1]].append(file)
    meant: dict[ImageFile, str] = {}
    for name in prompts.wanted:
        file = names.get(name) or names.get(Path(name).as_posix())
        if file is None:
            candidates = short[name]
            if len(candidates) > 1:
                raise ValueError(
                    f"{prompts.path}: {name[:80]!r} may be {candidates[0].place} or {candidates[1].place}; write the path"
                )
            if not candidates:
                raise ValueError(f"{prompts.path}: no image {name[:80]!r} among the {len(files)} images given; check its name")
            (file,) = candidates
        if file in meant:
            raise ValueError(f"{prompts.path}: {meant[file][:80]!r} and {name[:80]!r} are the same image")
        meant[file] = name
    return [Task(file, prompts.wanted[meant[file]], prompts.sizes.get(meant[file])) for file in files if file in meant]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a key that is there twice, of which JSON readers keep the last without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, times),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{twice[:80]!r} {times} times in one object")
    return found


def _from_json(path: Path, content: dict[str, Any]) -> PromptFile:
    """{"image.jpg": [{"box": [x0, y0, x1, y1], "points": [[x, y, label], ...], "label": "cat"}]}"""
    categories: dict[str, int] = {}
    wanted = {}
    for name, objects in content.items():
        if not isinstance(objects, list):
            raise ValueError(f"{path}: {name[:80]!r}: expected a list of objects, got a {type(objects).__name__}")
        told = []
        for number, entry in enumerate(objects, start=1):
            where = f"{path}: {name[:80]!r}, object {number}"
            if not isinstance(entry, dict) or not entry.keys() <= {"box", "points", "label"}:
                raise ValueError(f"{where}: expected box, points and label, got {str(entry)[:60]}")
            label = entry.get("label", NAMELESS)
            if not isinstance(label, str) or not label:
                raise ValueError(f"{where}: label must be a word, got {str(label)[:60]!r}")
            points = tuple(_point(point, where) for point in _list(entry.get("points") or [], where, "points"))
            box = None if entry.get("box") is None else _box(_numbers(entry["box"], where, "box"), where)
            told.append(_checked(Wanted(categories.setdefault(label, len(categories) + 1), where, points, box)))
        wanted[name] = tuple(told)
    if not any(wanted.values()):
        raise ValueError(f"{path}: names no object")
    return PromptFile(path, _numbered(categories), {name: told for name, told in wanted.items() if told})


def _from_csv(path: Path, text: str) -> PromptFile:
    """A row a point: image, x, y and, where wanted, label (1 on the object, 0 beside it), object (rows of an image with the same
    are one object; without the column every row is one) and category."""
    reader = csv.DictReader(text.splitlines(), restkey="", strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise ValueError(f"{path}: line 1: {error}") from None
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in (*COLUMNS, *OPTIONAL_COLUMNS)]
    if missing or unknown or len(set(header)) < len(header):
        what = f"no column {missing[0]!r}" if missing else f"unknown column {unknown[0][:80]!r}" if unknown else "a column twice"
        raise ValueError(f"{path}: line 1: {what}; the columns are {', '.join(COLUMNS)} and {', '.join(OPTIONAL_COLUMNS)}")
    reader.fieldnames = header
    categories: dict[str, int] = {}
    points: dict[tuple[str, str], list[Point]] = defaultdict(list)
    kinds: dict[tuple[str, str], tuple[int, str]] = {}
    try:
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            if "" in row or None in row.values():
                raise ValueError(f"{where}: expected {len(header)} columns")
            image = row["image"].strip()
            if not image:
                raise ValueError(f"{where}: names no image")
            key = image, row["object"].strip() if "object" in row else f"line {reader.line_num}"
            points[key].append(_point([_number(row[name], where, name) for name in ("x", "y", "label") if row.get(name)], where))
            category = (row.get("category") or NAMELESS).strip()
            kind = categories.setdefault(category, len(categories) + 1)
            if kinds.setdefault(key, (kind, where))[0] != kind:
                raise ValueError(f"{where}: object {key[1][:80]!r} of {image[:80]!r} has another category in {kinds[key][1]}")
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from None
    if not points:
        raise ValueError(f"{path}: a header, but no point")
    wanted: dict[str, list[Wanted]] = defaultdict(list)
    for key, told in points.items():
        wanted[key[0]].append(_checked(Wanted(*kinds[key], tuple(told))))
    return PromptFile(path, _numbered(categories), {name: tuple(told) for name, told in wanted.items()})


def _from_coco(path: Path, content: dict[str, Any]) -> PromptFile:
    """The boxes of the annotations; ids and names of the categories stay."""
    images = {entry["id"]: entry for entry in _list(content.get("images"), str(path), "images")}
    categories = tuple(
        Category(_whole(entry["id"], str(path), "a category's id"), str(entry["name"]), str(entry.get("supercategory", "")))
        for entry in _list(content.get("categories") or [], str(path), "categories")
    )
    known = {category.id for category in categories}
    wanted: dict[str, list[Wanted]] = defaultdict(list)
    for number, entry in enumerate(content["annotations"], start=1):
        where = f"{path}: annotation {str(entry.get('id', number))[:40]}"
        if entry.get("image_id") not in images:
            raise ValueError(f"{where}: its image_id {str(entry.get('image_id'))[:40]} is none of the images")
        if entry.get("category_id") not in known:
            raise ValueError(f"{where}: its category_id {str(entry.get('category_id'))[:40]} is none of the categories")
        x, y, width, height = _four(_numbers(entry.get("bbox"), where, "bbox"), where)
        box = _box([x, y, x + width, y + height], where)
        wanted[str(images[entry["image_id"]]["file_name"])].append(Wanted(entry["category_id"], where, (), box))
    if not wanted:
        raise ValueError(f"{path}: has no annotation")
    sizes = {
        str(entry["file_name"]): (_whole(entry["height"], str(path), "height"), _whole(entry["width"], str(path), "width"))
        for entry in images.values()
        if "height" in entry and "width" in entry
    }
    return PromptFile(path, categories, {name: tuple(told) for name, told in wanted.items()}, sizes)


def _numbered(categories: Mapping[str, int]) -> tuple[Category, ...]:
    return tuple(Category(number, name) for name, number in categories.items())


def _checked(wanted: Wanted) -> Wanted:
    if not wanted.points and wanted.box is None:
        raise ValueError(f"{wanted.where}: neither a box nor a point")
    if wanted.box is None and all(label == 0 for *_, label in wanted.points):
        raise ValueError(f"{wanted.where}: no point on the object, only label 0")
    return wanted


def _point(value: Any, where: str) -> Point:
    numbers = _numbers(value, where, "point")
    if len(numbers) not in (2, 3):
        raise ValueError(f"{where}: a point is x, y and maybe a label, got {str(value)[:60]}")
    x, y, label = (*numbers, 1.0)[:3]
    if label not in (0, 1):
        raise ValueError(f"{where}: a point's label is 1 (on the object) or 0 (beside it), got {label:g}")
    return x, y, int(label)


def _box(numbers: Sequence[float], where: str) -> Box:
    x0, y0, x1, y1 = _four(numbers, where)
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"{where}: box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is empty or inside out")
    return x0, y0, x1, y1


def _four(numbers: Sequence[float], where: str) -> Box:
    if len(numbers) != 4:
        raise ValueError(f"{where}: a box has 4 numbers, got {len(numbers)}")
    a, b, c, d = numbers
    return a, b, c, d


def _numbers(value: Any, where: str, what: str) -> list[float]:
    return [_number(number, where, what) for number in _list(value, where, what)]


def _list(value: Any, where: str, what: str) -> Iterable[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: {what} must be a list, got {str(value)[:60]}")
    return value


def _whole(value: Any, where: str, what: str) -> int:
    number = _number(value, where, what)
    if number != int(number):
        raise ValueError(f"{where}: {what} must be a whole number, got {number:g}")
    return int(number)


def _number(value: Any, where: str, what: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where}: {what} must be a finite number, got {str(value)[:40]!r}")
    return number
