"""The folder format: <set>/images/<id>.jpg|png|webp, <set>/masks/<id>.png (0 background, 1..254 objects, 255 ignore), meta.json."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ruac.data.image import DAMAGED, FORMATS, MAX_PIXELS
from ruac.errors import one_line

IGNORE = 255
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
VALIDATION_SHARE = 20  # one file in so many


@dataclass(frozen=True)
class Sample:
    """One picture of a set, not read yet."""

    id: str
    image: Path
    mask: Path

    @property
    def held_out(self) -> bool:
        """Whether the picture belongs to the validation part: 5 %, chosen by a hash of the file name, the same on every machine."""
        return zlib.crc32(self.id.encode()) % VALIDATION_SHARE == 0


@dataclass(frozen=True)
class FolderSet:
    """A set in the folder format: its name, what meta.json says of it, and its pictures in the order of their names."""

    name: str
    meta: dict[str, Any]
    samples: tuple[Sample, ...]

    @staticmethod
    def open(root: Path) -> FolderSet:
        """Raises FileNotFoundError when a folder or a mask is missing, ValueError when there is no picture."""
        images, masks = root / "images", root / "masks"
        for folder in (images, masks):
            if not folder.is_dir():
                raise FileNotFoundError(f"{root}: not a data set, it has no folder '{folder.name}'")
        samples = []
        for image in sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
            mask = masks / f"{image.stem}.png"
            if not mask.is_file():
                raise FileNotFoundError(f"{mask}: missing, the mask of {image.name}")
            samples.append(Sample(image.stem, image, mask))
        if not samples:
            raise ValueError(f"{images}: no image ({', '.join(IMAGE_SUFFIXES)})")
        meta = read_meta(root)
        return FolderSet(meta.get("name", root.name), meta, tuple(samples))


def find_sets(folders: Sequence[Path]) -> list[FolderSet]:
    """The sets in these folders, each a set or a folder of sets.

    Raises FileNotFoundError when a folder holds none, ValueError when two sets have the same name.
    """
    sets: dict[str, FolderSet] = {}
    for folder in folders:
        roots = [folder] if (folder / "images").is_dir() else sorted(p.parent for p in folder.glob("*/images") if p.is_dir())
        if not roots:
            raise FileNotFoundError(f"{folder}: no data set here; one has the folders images and masks")
        for root in roots:
            part = FolderSet.open(root)
            if part.name in sets:
                raise ValueError(f"{root}: a second set named '{part.name}'; evaluate it apart, or rename it in its meta.json")
            sets[part.name] = part
    if not sets:
        raise ValueError("data: name at least one folder")
    return list(sets.values())


def read_meta(root: Path) -> dict[str, Any]:
    """What meta.json says of a set, nothing where there is none. Raises ValueError naming one that is not as it should be."""
    file = root / "meta.json"
    try:
        meta = json.loads(file.read_bytes()) if file.is_file() else {}
        json.dumps(meta, ensure_ascii=False).encode()  # not halves of characters, which JSON can hold and a file of text cannot
    except (ValueError, RecursionError) as error:
        raise ValueError(one_line(error, f"{file}: not JSON")) from None
    if not isinstance(meta, dict) or not isinstance(meta.get("name", ""), str):
        raise ValueError(f"{file}: must be an object {{...}}, its name a text")
    name = meta.get("name", root.name)
    # results have it as a file name
    if Path(name).name != name:
        raise ValueError(f"{file}: the name {name!r} cannot be a file name; change it")
    return meta


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Object ids [height, width]. Raises ValueError when the file is no 8-bit single-channel image, or a larger one than is read."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as head:
            too_large = head.width * head.height > MAX_PIXELS
        # OpenCV, which decodes faster, would take ten times as many
        mask = None if too_large else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except (*DAMAGED, cv2.error):
        mask = None
    if mask is None:
        raise ValueError(f"{path}: not a readable image")
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"{path}: a mask must be an 8-bit image of one channel, this has {mask.shape} {mask.dtype}")
    return mask.astype(np.uint8, copy=False)


def object_ids(mask: NDArray[np.uint8]) -> list[int]:
    """The ids present, without background and ignore."""
    return [int(i) for i in np.unique(mask) if i not in (0, IGNORE)]
