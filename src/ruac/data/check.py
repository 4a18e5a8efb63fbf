"""Is a set in the folder format what it seems to be?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ruac.checksums import sha256_of
from ruac.data.folder import IGNORE, IMAGE_SUFFIXES, object_ids, read_mask, read_meta
from ruac.data.image import read_image
from ruac.data.sheet import Tile, contact_sheet
from ruac.writing import write_whole

SHEET, SHEET_IMAGES = "check.png", 24
Progress = Callable[[Sequence[Path], str, int], Iterable[Path]]  # files, what is done with them, how many they are


@dataclass(frozen=True)
class Report:
    """What was found in one set; sheet: its contact sheet, None when no picture could be shown."""

    root: Path
    images: int
    objects: int
    problems: tuple[str, ...]
    sheet: Path | None


def sets_in(folder: Path) -> list[Path]:
    """The set, or the sets in this folder. Raises FileNotFoundError when there is none."""
    roots = [folder] if (folder / "images").is_dir() else sorted(path.parent for path in folder.glob("*/images") if path.is_dir())
    if not roots:
        raise FileNotFoundError(f"{folder}: no data set here; one has the folders images and masks")
    return roots


def check_set(root: Path, seen: dict[str, Path], progress: Progress) -> Report:
    """Every picture and every mask, and a contact sheet of up to 24 of them; seen: contents of files met before, which grows.

    A set can be checked where nothing can be written, too: that there is no sheet then is one of the problems.
    """
    images = sorted(path for path in (root / "images").iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    masks = {path.stem: path for path in sorted((root / "masks").glob("*.png"))} if (root / "masks").is_dir() else {}
    problems = _names(root, images, masks)
    shown = {images[i] for i in np.linspace(0, len(images) - 1, min(SHEET_IMAGES, len(images))).round().astype(int)}
    tiles: list[Tile] = []
    objects = 0
    for path in progress(images, f"checking {root.name}", len(images)):
        problems += _duplicate(path, seen)
        if path.stem not in masks:
            problems.append(f"{path}: no mask {root / 'masks' / path.stem}.png")
            continue
        try:
            image, ids = read_image(path), read_mask(masks[path.stem])
        except ValueError as error:
            problems.append(str(error))
            continue
        if ids.shape != image.shape[:2]:
            own, other = (f"{shape[1]} x {shape[0]}" for shape in (ids.shape, image.shape))
            problems.append(f"{masks[path.stem]}: {own} pixels, its image has {other}")
            continue
        found = object_ids(ids)
        objects += len(found)
        if not found:
            hint = f"; {IGNORE} means ignore, an object has a number from 1 to {IGNORE - 1}" if (ids == IGNORE).any() else ""
            problems.append(f"{masks[path.stem]}: no object in it{hint}")
        if path in shown:
            tiles.append((path.stem, image, ids))
    sheet = root / SHEET if tiles else None
    if sheet:
        try:
            write_whole(sheet, cv2.imencode(".png", contact_sheet(tiles)[..., ::-1])[1].tobytes())
        except OSError as error:
            problems.append(f"{sheet}: not written ({error.strerror})")
            sheet = None
    return Report(root, len(images), objects, tuple(problems), sheet)


def _names(root: Path, images: Sequence[Path], masks: dict[str, Path]) -> list[str]:
    """What can be said without opening a picture."""
    problems = []
    if not images:
        problems.append(f"{root / 'images'}: no image ({', '.join(IMAGE_SUFFIXES)})")
    for stem, count in Counter(path.stem for path in images).items():
        if count > 1:
            problems.append(f"{root / 'images' / stem}: {count} images of this name, and one mask")
    stems = {path.stem for path in images}
    problems += [f"{path}: a mask without an image" for stem, path in masks.items() if stem not in stems]
    try:
        read_meta(root)
    except ValueError as error:
        problems.append(str(error))
    return problems


def _duplicate(path: Path, seen: dict[str, Path]) -> list[str]:
    first = seen.setdefault(sha256_of(path), path)
    return [] if first == path else [f"{path}: the same picture as {first}"]
