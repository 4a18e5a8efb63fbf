"""A published data set made into a set of the folder format, picture by picture, so that a stopped run can go on.

convert.jsonl keeps what is done: the settings, then a line a picture, written once its files are in place. The folder that results
does not depend on how often the run was stopped.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ruac.data.domain import Domain
from ruac.data.folder import read_mask
from ruac.data.image import FORMATS, read_image
from ruac.data.labels import Item, to_folder_mask
from ruac.data.layout import LayoutError
from ruac.writing import TEMPORARY, naming, only_writer, require_own, write_whole

MANIFEST = "convert.jsonl"
FORMAT = 1  # of what is written; a folder of another one is not continued
COPIED = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
ORIENTATION = 0x0112  # EXIF's number for which way up a picture is
PNG_DEPTH = 24  # byte of a PNG file that says how many bits a channel has
Progress = Callable[[Sequence[Any], str, int], Iterable[Any]]  # things, what is done with them, how many that will be


@dataclass(frozen=True)
class Row:
    """One picture that is done. image: the name of its file, empty for one without objects, which is not written; crc: of its
    mask's ids; left_out: objects beyond the 254 largest; skipped: annotations that are no area."""

    name: str
    image: str
    crc: int
    objects: int
    left_out: int
    skipped: int


@dataclass(frozen=True)
class Outcome:
    """rows: the pictures written, by name; empty: how many have no object and were left out; failed: a line a bad picture."""

    rows: tuple[Row, ...]
    empty: int
    failed: tuple[str, ...]


def convert_domain(domain: Domain, root: Path, out: Path, max_images: int | None, seed: int, progress: Progress) -> Outcome:
    """Write images/, masks/, meta.json and convert.jsonl; progress: wraps what is gone through.

    Raises ValueError when root does not hold the data set as published, out something else, or somebody else writes there.
    """
    items = _items(domain, root)
    with only_writer(out):
        return _convert_items(domain, items, out, max_images, seed, progress)


def _convert_items(
    domain: Domain, items: list[Item], out: Path, max_images: int | None, seed: int, progress: Progress
) -> Outcome:
    settings = {"format": FORMAT, "domain": domain.name, "reader": domain.reading(), "max_images": max_images, "seed": seed}
    # drawn one after the other, since a picture without objects or a damaged one makes room for the next
    order = items if max_images is None else [items[i] for i in np.random.default_rng(seed).permutation(len(items))]
    wanted = len(items) if max_images is None else min(max_images, len(items))
    manifest = Manifest(out, settings)
    for folder in ("images", "masks"):
        (out / folder).mkdir(exist_ok=True)
        require_own(out / folder, out)
    written: list[Row] = []
    failed: list[str] = []
    empty = 0
    for item in progress(order, f"converting {domain.name}", wanted):
        if len(written) == wanted:
            break
        row = manifest.rows.get(item.name)
        if row is None:
            try:
                row = _convert_one(item, out)
            except ValueError as error:
                failed.append(_line(item, error))
                continue
            manifest.add(row)
        if row.image:
            written.append(row)
        else:
            empty += 1
    written.sort(key=lambda row: row.name)
    if written:
        write_whole(out / "meta.json", _meta(domain, written, empty, settings))
    failed += [problem for row in progress(written, "reading it again", len(written)) if (problem := _verify(row, out))]
    return Outcome(tuple(written), empty, tuple(failed))


class Manifest:
    """convert.jsonl of a folder that is being made."""

    def __init__(self, out: Path, settings: dict[str, Any]):
        """Makes the folder, or takes up what is there. Raises ValueError when it was made with other settings, or is no such
        folder."""
        self.path = out / MANIFEST
        self.rows: dict[str, Row] = {}
        out.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            self.rows = {row.name: row for row in _read(self.path, settings)}
        elif any(out.iterdir()):
            raise ValueError(f"{out}: not empty, and not made by this command; choose another folder")
        for leftover in (path for folder in (out, out / "images", out / "masks") for path in folder.glob(TEMPORARY)):
            leftover.unlink()  # of a run that was killed
        lines = [settings, *map(asdict, self.rows.values())]
        write_whole(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def add(self, row: Row) -> None:
        self.rows[row.name] = row
        with naming(self.path), self.path.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def _read(path: Path, settings: dict[str, Any]) -> Iterator[Row]:
    # what a killed run left unfinished has no end of line
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        stored, *rows = [json.loads(line) for line in lines] or [settings]
        stored, made = dict(stored), [Row(**row) for row in rows]
        if not all([*map(type, asdict(row).values())] == [str, str, int, int, int, int] for row in made):
            raise ValueError("a row with something else than names and numbers")
        yield from made
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged ({error}); choose another folder, or delete this one") from None
    for key, own in settings.items():
        if stored.get(key) != own:
            raise ValueError(f"{path.parent}: made with {key} {str(stored.get(key))[:80]}, not {own}; choose another folder")


def _items(domain: Domain, root: Path) -> list[Item]:
    """With names that differ even where letter case does not tell files apart."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    try:
        items = list(domain.reader.items(root))
    except LayoutError as error:
        raise ValueError(f"{error}; {domain.name} is expected as {'; '.join(domain.layout)}") from None
    taken: set[str] = set()
    unique = []
    for item in items:
        name, count = item.name, 1
        while name.casefold() in taken:
            count += 1
            name = f"{item.name}_{count}"
        taken.add(name.casefold())
        unique.append(Item(name, item.image, item.labels))
    return unique


def _convert_one(item: Item, out: Path) -> Row:
    """Raises ValueError for what is wrong with the picture or its labels, OSError when the disk is full."""
    suffix, pixels, content = _picture(item.image)
    size = pixels.shape[0], pixels.shape[1]
    labels = item.labels(size)
    mask = to_folder_mask(labels, size)
    if not mask.objects:
        return Row(item.name, "", 0, 0, mask.left_out, labels.skipped)
    write_whole(out / "images" / f"{item.name}{suffix}", content if content is not None else _png(pixels[..., ::-1]))
    write_whole(out / "masks" / f"{item.name}.png", _png(mask.ids))
    return Row(item.name, f"{item.name}{suffix}", zlib.crc32(mask.ids.tobytes()), mask.objects, mask.left_out, labels.skipped)


def _picture(path: Path) -> tuple[str, NDArray[np.uint8], bytes | None]:
    """Suffix and pixels; and the file as it is, when that can be used, 8-bit RGB the way up that its labels have it.

    Labels are made of the pixels as they are stored, which EXIF may tell viewers to turn: such a file is written anew.
    """
    pixels, content = read_image(path), path.read_bytes()
    with Image.open(BytesIO(content), formats=FORMATS) as image:
        turned = image.getexif().get(ORIENTATION, 1) != 1
        usable = image.mode == "RGB" and not turned and not getattr(image, "is_animated", False)
        # Pillow calls PNG of 16 bits RGB, too
        deep = image.format == "PNG" and content[PNG_DEPTH] != 8
        if image.format in COPIED and usable and not deep:
            return COPIED[image.format], pixels, content
        if turned:
            pixels = np.asarray(image.convert("RGB"))
    return ".png", pixels, None


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Grey or BGR."""
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"cannot encode {pixels.shape} as PNG")
    return data.tobytes()


def _meta(domain: Domain, rows: Sequence[Row], empty: int, settings: dict[str, Any]) -> bytes:
    meta = {
        "name": domain.name,
        "title": domain.title,
        "group": domain.group,
        "home": domain.home,
        "licence": domain.licence,
        "citation": domain.citation,
        "split": domain.split,
        "first_frame_only": domain.first_frame_only,
        "notes": domain.notes,
        "n_images": len(rows),
        "n_objects": sum(row.objects for row in rows),
        "n_images_without_objects": empty,
        "n_objects_left_out": sum(row.left_out for row in rows),
        "n_annotations_skipped": sum(row.skipped for row in rows),
        "converted": settings,
    }
    return (json.dumps(meta, indent=2, ensure_ascii=False) + "\n").encode()


def _verify(row: Row, out: Path) -> str | None:
    """What is wrong with the two files of a picture, read again."""
    try:
        pixels, ids = read_image(out / "images" / row.image), read_mask(out / "masks" / f"{row.name}.png")
    except ValueError as error:
        return str(error)
    if zlib.crc32(ids.tobytes()) != row.crc or ids.shape != pixels.shape[:2]:
        return f"{out / 'masks' / row.name}.png: not what was written; delete the folder and convert again"
    return None


def _line(item: Item, error: ValueError) -> str:
    """Names the image, also where the labels are to blame."""
    text = str(error).splitlines()[0]
    return text if str(item.image) in text else f"{item.image}: {text}"
