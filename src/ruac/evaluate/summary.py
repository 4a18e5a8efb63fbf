"""Averages of results: over the images of a set, over the sets of a group, with bootstrap intervals over images."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ruac.evaluate.results import Origin, Row

DRAWS = 1000
CONFIDENCE = 0.95
ALL = "all"


@dataclass(frozen=True)
class Estimate:
    """mean and its 95 % bootstrap interval; NaN where no image defines the measure."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class SetSummary:
    """images, objects: how many were evaluated; failed: one line for every image that could not be read.

    measures: by name as in `results.Row`, and "difference.auroc.image@1" and its kind: head less plain entropy, on the same
    pixels. Each image counts the same; images without any object of sufficient size are not counted.
    """

    name: str
    group: str
    images: int
    objects: int
    failed: tuple[str, ...]
    measures: dict[str, Estimate]


@dataclass(frozen=True)
class GroupSummary:
    """measures: the mean of the sets' means, the interval for other images of these very sets.

    head_better: by region and clicks ("image@1"), the share of the sets where the head's AUROC is above that of plain entropy,
    among those where it is defined.
    """

    name: str
    sets: tuple[str, ...]
    measures: dict[str, Estimate]
    head_better: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """groups: every group of `groups`, and "all" sets first."""

    model: str
    origin: Origin
    groups: tuple[GroupSummary, ...]
    sets: tuple[SetSummary, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(line for part in self.sets for line in part.failed)

    def to_json(self) -> str:
        """Undefined values are null."""
        return json.dumps(_without_nan(asdict(self)), indent=1, allow_nan=False) + "\n"


@dataclass(frozen=True)
class SetResults:
    """What is known of one set."""

    name: str
    group: str
    rows: Sequence[Row]
    failed: tuple[str, ...] = ()


def summarise(model: str, origin: Origin, results: Sequence[SetResults]) -> Summary:
    """Raises ValueError when no image of any set has been evaluated."""
    sets, draws = [], {}
    for part in results:
        rows = [row for row in part.rows if row.objects]
        values = _by_measure(rows)
        draws[part.name] = {name: bootstrap_means(column, part.name) for name, column in values.items()}
        measures = {name: _estimate(_mean(column), draws[part.name][name]) for name, column in values.items()}
        objects = sum(len(row.objects) for row in rows)
        sets.append(SetSummary(part.name, part.group, len(rows), objects, part.failed, measures))
    if not any(part.images for part in sets):
        raise ValueError("no image was evaluated: none could be read and has an object")
    names = [ALL, *sorted({part.group for part in sets})]
    members = {name: [part for part in sets if part.images and name in (ALL, part.group)] for name in names}
    groups = tuple(_group(name, parts, draws) for name, parts in members.items() if parts)
    return Summary(model, origin, groups, tuple(sets))


def bootstrap_means(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Means [DRAWS] of images drawn with replacement, NaN left out. All measures of a set (of this name) share their draws."""
    count = len(values)
    times = np.random.default_rng(zlib.crc32(name.encode())).multinomial(count, np.full(count, 1 / count), DRAWS)
    defined = np.isfinite(values)
    weight = times[:, defined].sum(1)
    total = times[:, defined] @ values[defined]
    return np.divide(total, weight, out=np.full(DRAWS, math.nan), where=weight > 0)


def _by_measure(rows: Sequence[Row]) -> dict[str, NDArray[np.float64]]:
    """Every measure of the images, [images]."""
    averages = [row.averages() for row in rows]
    values = {name: np.array([entry[name] for entry in averages]) for name in (averages[0] if averages else ())}
    for name in list(values):
        readout, _, rest = name.partition(".")
        if readout == "head":
            values[f"difference.{rest}"] = values[name] - values[f"plain.{rest}"]
    return values


def _group(name: str, parts: Sequence[SetSummary], draws: dict[str, dict[str, NDArray[np.float64]]]) -> GroupSummary:
    measures = {}
    for measure in parts[0].measures:
        means = np.array([part.measures[measure].mean for part in parts])
        defined = [part.name for part, mean in zip(parts, means, strict=True) if math.isfinite(mean)]
        together = np.mean([draws[part][measure] for part in defined], 0) if defined else np.full(DRAWS, math.nan)
        measures[measure] = _estimate(_mean(means), together)
    better = {}
    for measure in measures:
        kind, _, where = measure.rpartition(".")
        if kind == "difference.auroc":
            signs = [part.measures[measure].mean > 0 for part in parts if math.isfinite(part.measures[measure].mean)]
            better[where] = sum(signs) / len(signs) if signs else math.nan
    return GroupSummary(name, tuple(part.name for part in parts), measures, better)


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _estimate(mean: float, draws: NDArray[np.float64]) -> Estimate:
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return Estimate(mean, math.nan, math.nan)
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(mean, float(low), float(high))


def _without_nan(entry: object) -> object:
    match entry:
        case float():
            return entry if math.isfinite(entry) else None
        case dict():
            return {key: _without_nan(value) for key, value in entry.items()}
        case list() | tuple():
            return [_without_nan(value) for value in entry]
    return entry
