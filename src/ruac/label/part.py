"""What is kept of each image that is done, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ruac.calibrate.shift import Traits
from ruac.label.images import ImageFile
from ruac.label.prompts import Wanted
from ruac.writing import TEMPORARY, require_own, write_whole

SETTINGS = "settings.json"
PARTS, MASKS = "parts", "masks"
SEAL = "sha256"  # of all else in a part
FORMAT = 5  # of the files in PARTS; a folder of another one is not continued


@dataclass(frozen=True)
class Around:
    """The masks that a calibration puts around a label's. inner, outer: COCO's compressed run lengths; guaranteed: whether its prompt
    is of the calibration's kind, without which nothing is promised."""

    inner: str
    outer: str
    guaranteed: bool


@dataclass(frozen=True)
class Label:
    """One mask and what is known of it.

    category: an id; counts: COCO's compressed run lengths; bbox: (x, y, width, height); area: in pixels; score: predicted IoU, 0 to 1;
    mean_uncertainty: in bits, in the mask and the band around it, for an empty mask in the whole picture; object_score: probability
    that there is an object, None of a model that does not say; next_click: (x, y, label); around: None without a calibration;
    thumbnail: a JPEG picture in base64.
    """

    category: int
    counts: str
    bbox: tuple[float, float, float, float]
    area: int
    score: float
    expected_iou: float
    mean_uncertainty: float
    object_score: float | None
    next_click: tuple[int, int, int]
    around: Around | None = None
    thumbnail: str = ""


@dataclass(frozen=True)
class Part:
    """An image that is done. name: of its results; key: what it was made of, see `key_of`; file_name: below the common folder;
    traits: to be compared with those of a calibration, None without one."""

    name: str
    key: str
    file_name: str
    height: int
    width: int
    labels: tuple[Label, ...]
    traits: Traits | None

    def without_thumbnails(self) -> Part:
        """The same, small enough to hold for a hundred thousand images."""
        return replace(self, labels=tuple(replace(label, thumbnail="") for label in self.labels))


@dataclass(frozen=True)
class Folder:
    """Where results go: see `open_folder`."""

    out: Path

    def part_path(self, name: str) -> Path:
        return self.out / PARTS / f"{name}.json"

    def mask_path(self, name: str) -> Path:
        return self.out / MASKS / f"{name}.png"

    def save(self, part: Part) -> None:
        """Raises OSError when the disk is full or not writable."""
        write_whole(self.part_path(part.name), (json.dumps(sealed(asdict(part)), allow_nan=False) + "\n").encode())

    def load(self, name: str) -> Part | None:
        """None when the image is not done. Raises ValueError when its file is damaged."""
        path = self.part_path(name)
        if not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text())
            if stored.pop(SEAL) != _digest(stored):
                raise ValueError("changed since it was written")
            labels = tuple(_label(label) for label in stored["labels"])
            return Part(**{**stored, "labels": labels, "traits": stored["traits"] and _traits(stored["traits"])})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: damaged ({error}); delete it, and its image is done again") from None


def open_folder(out: Path, settings: dict[str, Any]) -> Folder:
    """Make the folder, or take up what is there; what a killed run left half-written is removed.

    Raises ValueError when it was made with other settings, or not by this command, and for a folder in it that is a link out of it.
    """
    path = out / SETTINGS
    settings = {"format": FORMAT, **settings}
    for folder in (out / PARTS, out / MASKS):
        folder.mkdir(parents=True, exist_ok=True)
        require_own(folder, out)
    for folder in (out, out / PARTS, out / MASKS):
        for leftover in folder.glob(TEMPORARY):
            leftover.unlink()
    if path.is_file():
        try:
            stored = dict(json.loads(path.read_text()))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}: damaged ({error}); choose another --out") from None
        for key in {**stored, **settings}:
            if stored.get(key) != settings.get(key):
                there = str(stored.get(key))[:80]
                raise ValueError(f"--out {out}: made with {key[:40]} {there}, not {settings.get(key)}; choose another folder")
    elif any(entry for entry in out.iterdir() if entry.name not in (PARTS, MASKS)):
        raise ValueError(f"--out {out}: not empty, and not made by this command; choose another folder")
    else:
        write_whole(path, (json.dumps(settings, indent=2) + "\n").encode())
    return Folder(out)


def key_of(image: ImageFile, wanted: Iterable[Wanted]) -> str:
    """Changes when the image file or what is wanted of it does: then the image is done again. Raises OSError without the file.

    What a URL names is taken to stay what it is: to ask a store about each of a million images takes hours.
    """
    if isinstance(image.place, str):
        state: list[Any] = [image.place]
    else:
        found = image.place.stat()
        state = [found.st_size, found.st_mtime_ns]
    told = [(w.category, w.points, w.box) for w in wanted]
    return hashlib.sha256(json.dumps([image.name, *state, told]).encode()).hexdigest()


def sealed(stored: dict[str, Any]) -> dict[str, Any]:
    """A part as it is kept, so that whatever changes it is noticed."""
    return {SEAL: _digest(stored), **stored}


def _digest(stored: dict[str, Any]) -> str:
    """Of a part, the same before it is written and after it is read."""
    return hashlib.sha256(json.dumps(stored).encode()).hexdigest()


def _label(stored: dict[str, Any]) -> Label:
    """JSON has no tuples."""
    around = stored["around"] and Around(**stored["around"])
    return Label(**{**stored, "bbox": tuple(stored["bbox"]), "next_click": tuple(stored["next_click"]), "around": around})


def _traits(stored: dict[str, Any]) -> Traits:
    return Traits(tuple(stored["look"]), tuple(stored["doubt"]))
