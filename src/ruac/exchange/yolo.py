"""YOLO's segmentation format: data.yaml, images/, and for each picture labels/<its name>.txt with a line an object.

A line is the number of the class and one closed polygon in shares of width and height. There is no other word for holes and pieces:
as Ultralytics does, the polygon goes to each of them and back on the same way. Ultralytics rounds coordinates down and fills what
is on the outline, so the outline stays a quarter of a pixel inside the mask: both its masks and the area are right. Only the ways
between pieces are a pixel wide there. Expected IoU and scores have no place in the format.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from ruac.data.labels import Size, decode
from ruac.data.layout import inside
from ruac.data.runlengths import from_polygons
from ruac.exchange.labelset import LabelledObject, LabelSet, Picture, Reading, categories_of
from ruac.exchange.outlines import one_line_of
from ruac.exchange.parsing import number_of, text_of
from ruac.exchange.pictures import check_picture, pictures_in, size_of_picture
from ruac.writing import write_whole

INSET = 0.25  # pixels
IMAGES, LABELS, CONFIG = "images", "labels", "data.yaml"
BEYOND = 1e-3  # of the picture's side, that rounded coordinates may lie outside it


def write(labels: LabelSet, out: Path, images: Path | None, tolerance: float = 0.0) -> tuple[str, ...]:
    """images: where the pictures are, to copy them into the set. Returns a line each picture that could not be copied.

    Raises ValueError, before anything is written, when two pictures would have the same file of labels, a name leads out, or labels of
    other pictures are there, which would get the names of this set's classes.
    """
    files: dict[Path, str] = {}
    for picture in labels.pictures:
        inside(out / IMAGES, picture.file_name)
        file = inside(out / LABELS, str(PurePosixPath(picture.file_name).with_suffix(".txt")))
        if file in files:
            raise ValueError(f"{files[file]} and {picture.file_name} would have the same {file.name}; rename one of the pictures")
        files[file] = picture.file_name
    own = {file.resolve() for file in files}
    for other in sorted((out / LABELS).rglob("*.txt")):
        if other.resolve() not in own:
            raise ValueError(
                f"--out {out}: holds labels of another set, {other.relative_to(out)}; name another folder, or remove it"
            )
    problems = []
    for file, picture in zip(files, labels.pictures, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [_line(thing, picture.size, labels.categories.index(thing.label), tolerance) for thing in picture.objects]
        write_whole(file, "".join(lines).encode())
        if images is not None:
            try:
                _copy(check_picture(images, picture), inside(out / IMAGES, picture.file_name))
            except ValueError as error:
                problems.append(str(error))
    # without "path" the folders are found beside the file
    config = {"train": IMAGES, "val": IMAGES, "names": dict(enumerate(labels.categories))}
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())
    return tuple(problems)


def read(folder: Path, images: Path | None) -> Reading:
    """Polygons as objects, lines of four numbers as boxes alone. A picture without a file of labels is one without objects.

    images: where the pictures are, <folder>/images by default. Raises ValueError or FileNotFoundError for what is no such folder.
    """
    names = _names(folder / CONFIG)
    root = images or folder / IMAGES
    pictures, problems = [], []
    for path in pictures_in(root):
        name = path.relative_to(root)
        file = (folder / LABELS / name).with_suffix(".txt")
        try:
            size = size_of_picture(path)
            lines = file.read_text().splitlines() if file.is_file() else []
        except ValueError as error:
            problems.append(f"{file}: not text" if isinstance(error, UnicodeDecodeError) else str(error))
            continue
        objects = []
        for number, line in enumerate(lines, start=1):
            try:
                objects += [_object(line.split(), size, names)] if line.strip() else []
            except ValueError as error:
                problems.append(f"{file}, line {number}: {error}")
        pictures.append(Picture(name.as_posix(), size, tuple(objects)))
    return Reading(LabelSet(tuple(pictures), categories_of(pictures, tuple(names.values()))), tuple(problems))


def _line(thing: LabelledObject, size: Size, category: int, tolerance: float) -> str:
    shares = one_line_of(decode(thing.mask), INSET, tolerance) / (size[1], size[0])
    return " ".join([str(category), *(f"{value:.7g}" for value in shares.ravel())]) + "\n"


def _copy(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, source.read_bytes())


def _names(config: Path) -> dict[int, str]:
    """Of data.yaml, where they are a list or numbered."""
    if not config.is_file():
        raise FileNotFoundError(f"{config}: missing; a YOLO data set is a folder with {CONFIG} and {LABELS}/")
    try:
        names: Any = yaml.safe_load(config.read_bytes())["names"]
        numbered = names if isinstance(names, dict) else dict(enumerate(names))
        return {int(number): text_of(str(name), "names") for number, name in numbered.items()}
    except (yaml.YAMLError, TypeError, KeyError, ValueError, RecursionError):
        raise ValueError(f"{config}: no 'names' of the classes in it, a list or number: name") from None


def _object(words: list[str], size: Size, names: dict[int, str]) -> LabelledObject:
    if not words[0].isdecimal() or int(words[0]) not in names:
        raise ValueError(f"class {words[0][:20]!r} is not among the names of {CONFIG}")
    shares = np.array([number_of(word, "a coordinate") for word in words[1:]])
    if len(shares) % 2 or len(shares) < 4:
        raise ValueError(f"{len(shares)} numbers after the class: neither a box of four nor pairs of x and y")
    if shares.min() < -BEYOND or shares.max() > 1 + BEYOND:
        raise ValueError("coordinates that are no shares of width and height, 0 to 1")
    label = names[int(words[0])]
    height, width = size
    if len(shares) == 4:
        x, y, w, h = (shares * (width, height, width, height)).tolist()
        left, top = max(x - w / 2, 0.0), max(y - h / 2, 0.0)
        return LabelledObject(label, None, (left, top, min(x + w / 2, width) - left, min(y + h / 2, height) - top))
    mask, _ = from_polygons([(shares.reshape(-1, 2) * (width, height)).ravel().tolist()], size)
    return LabelledObject.of_mask(label, mask)
