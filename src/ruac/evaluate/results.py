"""The results of a set on disk: a line of JSON an image, written as soon as it is known, so that a stopped run can go on.

The first line says what made the rows (weights, settings, version); rows of anything else are not mixed in. Beside them lies the
pool of all pixels, written every SAVE_EVERY images: rows that it does not cover yet when a run is killed are made again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruac.evaluate.clicks import TARGETS, click_effort
from ruac.evaluate.conversation import Point
from ruac.evaluate.pool import REGIONS, Pool
from ruac.evaluate.protocol import ImageResult, Protocol
from ruac.model import RuacModel, weights_sha256
from ruac.writing import naming, write_whole

MASK_MEASURES = ("iou", "dice", "boundary_f", "j_and_f")
PIXEL_MEASURES = (
    "auroc",
    "aupr",
    "spearman",
    "pearson",
    "ece",
    "ece_adaptive",
    "brier",
    "nll",
    "aurc",
    "eaurc",
    "error_rate",
)
SAVE_EVERY = 10
LARGEST = 2**53  # of a measure: none comes near, and sums of so large numbers are still numbers


@dataclass(frozen=True)
class Row:
    """One image. prompts: what was said to each object, in the order of `objects`; masks: "iou@3" (after three clicks) and its kind,
    a value for every object; pixels: "head.auroc.band@3" and its kind, all objects of the image pooled; None where not defined."""

    id: str
    objects: tuple[int, ...]
    masks: dict[str, tuple[float | None, ...]]
    pixels: dict[str, float | None]
    prompts: tuple[tuple[Point, ...], ...] = ()

    @staticmethod
    def of(result: ImageResult, pool: Pool) -> Row:
        """pool: of this image."""
        if not result.objects:
            return Row(result.id, (), {}, {})
        masks: dict[str, tuple[float, ...]] = {}
        pixels: dict[str, float] = {}
        for clicks, judged in result.after.items():
            for measure in MASK_MEASURES:
                masks[f"{measure}@{clicks}"] = tuple(getattr(quality, measure) for quality in judged.quality)
            masks[f"predicted_iou@{clicks}"] = judged.predicted_iou
            for method, values in judged.expected_iou.items():
                masks[f"{method}.expected_iou@{clicks}"] = values
        if result.ious:
            masks |= _effort(result.ious)
        for clicks, judged in result.after.items():
            for method in judged.detection:
                pixels |= {f"{method}.{name}@{clicks}": value for name, value in pixel_measures(pool, method, clicks).items()}
        defined = {name: None if math.isnan(value) else value for name, value in pixels.items()}
        said = tuple(tuple(point for word in words for point in word) for words in result.said)
        return Row(result.id, result.objects, dict(masks), defined, said)

    @staticmethod
    def from_json(line: str | bytes) -> Row:
        """Raises ValueError when the line is not a row."""
        try:
            entry = json.loads(line)
        except RecursionError:
            raise ValueError("not a row of results (lists in lists)") from None
        try:
            masks = {key: tuple(values) for key, values in entry["masks"].items()}
            prompts = tuple(tuple(Point(*point) for point in points) for points in entry["prompts"])
            row = Row(entry["id"], tuple(entry["objects"]), masks, dict(entry["pixels"]), prompts)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a row of results ({error})") from error
        measured = [*row.pixels.values(), *(value for values in masks.values() for value in values)]
        if not all(map(is_measure, measured)):
            raise ValueError("not a row of results (a measure that is no number)")
        if not isinstance(row.id, str) or any(type(i) is not int for i in row.objects):
            raise ValueError("not a row of results (an image or an object without a name)")
        if any(len(values) != len(row.objects) for values in masks.values()):
            raise ValueError("not a row of results (not a value for every object)")
        return row

    def averages(self) -> dict[str, float]:
        """Every measure of the image as one number: masks averaged over the objects; NaN where it is not defined."""
        masks = {}
        for key, values in self.masks.items():
            defined = [value for value in values if value is not None]
            masks[key] = math.fsum(defined) / len(defined) if defined else math.nan
        return masks | {key: math.nan if value is None else value for key, value in self.pixels.items()}


def is_measure(value: Any) -> bool:
    """Whether it is a number as measures are, or None, for a measure that is not defined."""
    return value is None or (type(value) in (int, float) and abs(value) <= LARGEST)


def pixel_measures(pool: Pool, method: str, clicks: int) -> dict[str, float]:
    """ "auroc.image" and its kind: all that is read out of the pooled pixels of an image, a set or a group; NaN where not defined."""
    measures: dict[str, float] = {}
    for region in REGIONS:
        detection = asdict(pool.histogram(method, region, clicks).read())
        measures |= {f"{name}.{region}": detection[name] for name in PIXEL_MEASURES}
        measures[f"pavpu.{region}"] = pool.patches(method, region, clicks).read().pavpu
        people = pool.people(method, region, clicks)
        if people.counts.any():
            human = people.read()
            measures |= {f"human_spearman.{region}": human.spearman, f"human_pearson.{region}": human.pearson}
    return measures


@dataclass(frozen=True)
class Origin:
    """What makes results comparable. weights: sha256 of the model's parameters; ruac: the version of this package; methods: in the
    order asked for; suite: by name; prompts: sha256 of the click file; temperatures: by number of prompts; rivals: sha256 of the file
    of each fitted method; ensemble: sha256 of the parameters of each other model of the ensemble."""

    weights: str
    ruac: str
    clicks: tuple[int, ...]
    max_objects: int
    seed: int
    prompt: str
    noc: int | None = None
    methods: tuple[str, ...] = ("head", "plain")
    suite: str | None = None
    prompts: str | None = None
    temperatures: Mapping[int, float] | None = None
    rivals: Mapping[str, str] | None = None
    ensemble: tuple[str, ...] | None = None

    @staticmethod
    def of(model: RuacModel, protocol: Protocol, **others: Any) -> Origin:
        """others: fields that neither the model nor the protocol says."""
        return Origin(weights=weights_sha256(model), ruac=version("ruac"), **asdict(protocol), **others)

    def as_json(self) -> dict[str, Any]:
        """As it comes back from a file. Files from before there were rivals do not name them, nor do those without."""
        fields = json.loads(json.dumps(asdict(self)))
        return {key: value for key, value in fields.items() if value is not None or key not in ("rivals", "ensemble")}

    def differences(self, stored: dict[str, Any]) -> list[str]:
        own = self.as_json()
        keys = dict.fromkeys((*own, *stored))
        both = [(key, stored.get(key), own.get(key)) for key in keys]
        return [f"{key[:40]}: {str(theirs)[:80]} there, {str(ours)[:80]} now" for key, theirs, ours in both if theirs != ours]


class ResultsFile:
    """The rows of one set, on disk, and their pool, in memory; `add` writes at once, `save_pool` what `add` has not saved yet."""

    def __init__(self, path: Path, name: str, origin: Origin):
        """Takes up the rows that are there and pooled. Raises ValueError when they were made by something else or are damaged."""
        self.path, self.name, self.origin = path, name, origin
        self.pool_path = path.with_name(f"{path.stem}.pool.safetensors")
        lines = _lines(path, name, origin) if path.exists() else {}
        if not lines:
            self.pool_path.unlink(missing_ok=True)  # of rows that were deleted
        self.pool = Pool.load(self.pool_path, origin.as_json()) if lines and self.pool_path.exists() else Pool()
        self._unsaved = 0
        self._write({i: line for i, line in lines.items() if i in self.pool.images})

    @property
    def paths(self) -> tuple[Path, Path]:
        return self.path, self.pool_path

    def add(self, row: Row, pool: Pool) -> None:
        """pool: of that image."""
        with naming(self.path), self.path.open("a") as file:
            file.write(_line(row))
        self.ids.add(row.id)
        # a row that was lost although the pool had it is made up for, and not counted twice
        if row.id not in self.pool.images:
            self.pool += pool
            self._unsaved += 1
        if self._unsaved >= SAVE_EVERY:
            self.save_pool()

    def save_pool(self) -> None:
        if self._unsaved or not self.pool_path.exists():
            self.pool.save(self.pool_path, self.origin.as_json())
        self._unsaved = 0

    def absorb(self, other: ResultsFile) -> None:
        """Take over another file's rows. Those of a file of which some are here already are left: they came before, or are made
        again."""
        if other.pool.images and not other.pool.images & self.pool.images:
            lines = _lines(self.path, self.name, self.origin) | _lines(other.path, self.name, self.origin)
            self._write({i: line for i, line in lines.items() if i in self.pool.images | other.pool.images})
            self.pool += other.pool
            self._unsaved += len(other.pool.images)
            self.save_pool()

    def arrange(self, order: Iterable[str]) -> None:
        """Put the rows in this order, however they came about; images that are not named come last."""
        lines = _lines(self.path, self.name, self.origin)
        wanted = list(dict.fromkeys([*(i for i in order if i in lines), *sorted(lines)]))
        if wanted != list(lines):
            self._write({i: lines[i] for i in wanted})

    def pick(self, ids: Iterable[str]) -> Iterator[Row]:
        """The rows of these images, in their order; images without a row are left out."""
        lines = _lines(self.path, self.name, self.origin)
        yield from (Row.from_json(lines[i]) for i in ids if i in lines)

    def _write(self, lines: Mapping[str, bytes]) -> None:
        header = json.dumps({"set": self.name, "origin": self.origin.as_json()}) + "\n"
        write_whole(self.path, b"".join([header.encode(), *lines.values()]))
        self.ids = set(lines)


@dataclass(frozen=True)
class SetFile:
    """What a <set>.jsonl holds; origin: as it is in the file."""

    name: str
    origin: dict[str, Any]
    rows: tuple[Row, ...]


def read_results(path: Path) -> SetFile:
    """Raises ValueError for a file that `ruac eval` did not write."""
    try:
        header, *rows = path.read_text().splitlines()
        described = json.loads(header)
        return SetFile(described["set"], dict(described["origin"]), tuple(Row.from_json(line) for line in rows))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: damaged results ({error}); write them again with `ruac eval`") from error


def write_text(path: Path, text: str) -> None:
    """`write_whole` for text."""
    write_whole(path, text.encode())


def _line(row: Row) -> str:
    return json.dumps(vars(row), allow_nan=False) + "\n"


def _effort(ious: tuple[tuple[float, ...], ...]) -> dict[str, tuple[float, ...]]:
    """IoU by number of clicks, and the clicks to each target; ious: [objects, clicks]."""
    measures = {f"iou@{n}": values for n, values in enumerate(zip(*ious, strict=True), start=1)}
    for target in TARGETS:
        effort = click_effort(ious, target)
        name = f"{round(100 * target)}"
        measures[f"noc.{name}"] = tuple(float(clicks) for clicks in effort.clicks)
        measures[f"noc_failed.{name}"] = tuple(float(failed) for failed in effort.failed)
    return measures


def _lines(path: Path, name: str, origin: Origin) -> dict[str, bytes]:
    """The rows as they are written, by image. Raises ValueError when they were made by something else or are damaged."""
    remedy = "choose another --out, or delete the file"
    rows: dict[str, bytes] = {}
    header, stored = None, {}
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # what a killed run left unfinished
                if header is None:
                    header = json.loads(line)
                    stored = dict(header["origin"])
                else:
                    rows[Row.from_json(line).id] = line
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: damaged results ({error}); {remedy}") from error
    if header is None:
        return {}
    if header.get("set") != name:
        raise ValueError(f"{path}: results of the set '{str(header.get('set'))[:80]}', not of '{name}'; {remedy}")
    if differences := origin.differences(stored):
        raise ValueError(f"{path}: results of another run ({'; '.join(differences)}); {remedy}")
    return rows
