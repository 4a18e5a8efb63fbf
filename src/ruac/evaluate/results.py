"""The results of a set on disk: a line of JSON an image, written as soon as it is known, so that a stopped run can go on.

The first line says what made the rows (weights, settings, version); rows of anything else are not mixed in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruac.evaluate.protocol import ImageResult, Protocol
from ruac.model import RuacModel, weights_sha256
from ruac.writing import write_whole

MASK_MEASURES = ("iou", "dice", "boundary_f", "j_and_f")
PIXEL_MEASURES = ("auroc", "aupr", "spearman", "ece", "brier", "aurc", "error_rate")
REGIONS = ("image", "band")


@dataclass(frozen=True)
class Row:
    """One image. masks: "iou@3" (after three clicks) and its kind, a value for every object, in the order of `objects`;
    pixels: "head.auroc.band@3" and its kind, all objects of the image pooled; None where it is not defined."""

    id: str
    objects: tuple[int, ...]
    masks: dict[str, tuple[float, ...]]
    pixels: dict[str, float | None]

    @staticmethod
    def of(result: ImageResult) -> Row:
        masks: dict[str, tuple[float, ...]] = {}
        pixels: dict[str, float | None] = {}
        for clicks, judged in result.after.items() if result.objects else ():
            for measure in MASK_MEASURES:
                masks[f"{measure}@{clicks}"] = tuple(getattr(quality, measure) for quality in judged.quality)
            for readout, histograms in judged.detection.items():
                for region in REGIONS:
                    detection = asdict(getattr(histograms, region).read())
                    for measure in PIXEL_MEASURES:
                        value = detection[measure]
                        pixels[f"{readout}.{measure}.{region}@{clicks}"] = None if math.isnan(value) else value
        return Row(result.id, result.objects, masks, pixels)

    @staticmethod
    def from_json(line: str) -> Row:
        """Raises ValueError when the line is not a row."""
        entry = json.loads(line)
        try:
            masks = {key: tuple(values) for key, values in entry["masks"].items()}
            return Row(entry["id"], tuple(entry["objects"]), masks, dict(entry["pixels"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a row of results ({error})") from error

    def averages(self) -> dict[str, float]:
        """Every measure of the image as one number: masks averaged over the objects; NaN where it is not defined."""
        masks = {key: math.fsum(values) / len(values) for key, values in self.masks.items()}
        return masks | {key: math.nan if value is None else value for key, value in self.pixels.items()}


@dataclass(frozen=True)
class Origin:
    """What makes results comparable. weights: sha256 of the model's parameters; ruac: the version of this package."""

    weights: str
    ruac: str
    clicks: tuple[int, ...]
    max_objects: int
    seed: int
    prompt: str

    @staticmethod
    def of(model: RuacModel, protocol: Protocol) -> Origin:
        return Origin(weights=weights_sha256(model), ruac=version("ruac"), **asdict(protocol))

    def differences(self, stored: dict[str, Any]) -> list[str]:
        own = json.loads(json.dumps(asdict(self)))
        return [f"{key}: {stored.get(key)} there, {own[key]} now" for key in own if stored.get(key) != own[key]]


class ResultsFile:
    """The rows of one set; `add` writes at once."""

    def __init__(self, path: Path, name: str, origin: Origin):
        """Takes up the rows that are there. Raises ValueError when they were made by something else or are damaged."""
        self.path = path
        self.rows = {row.id: row for row in _read(path, name, origin)} if path.exists() else {}
        header = {"set": name, "origin": asdict(origin)}
        write_text(path, "".join(json.dumps(entry) + "\n" for entry in [header, *map(asdict, self.rows.values())]))

    def add(self, row: Row) -> None:
        self.rows[row.id] = row
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(row), allow_nan=False) + "\n")

    def pick(self, ids: Iterable[str]) -> list[Row]:
        """The rows of these images, in their order; images without a row are left out."""
        return [self.rows[i] for i in ids if i in self.rows]


def write_text(path: Path, text: str) -> None:
    """`write_whole` for text."""
    write_whole(path, text.encode())


def _read(path: Path, name: str, origin: Origin) -> list[Row]:
    # what a killed run left unfinished has no end of line
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    remedy = "choose another --out, or delete the file"
    try:
        header = json.loads(lines[0]) if lines else None
        stored = dict(header["origin"]) if header else {}
        rows = [Row.from_json(line) for line in lines[1:]]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: damaged results ({error}); {remedy}") from error
    if header is None:
        return []
    if header.get("set") != name:
        raise ValueError(f"{path}: results of the set '{header.get('set')}', not of '{name}'; {remedy}")
    if differences := origin.differences(stored):
        raise ValueError(f"{path}: results of another run ({'; '.join(differences)}); {remedy}")
    return rows
