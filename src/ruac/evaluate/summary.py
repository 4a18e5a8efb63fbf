"""Averages of results: over the images of a set, over the sets of a group, with bootstrap intervals over images."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from ruac.evaluate.bootstrap import DRAWS, Estimate, bootstrap_means, defined_mean, estimate
from ruac.evaluate.comparison import better_share, differences, mean_ranks
from ruac.evaluate.object_quality import object_quality
from ruac.evaluate.pool import Pool
from ruac.evaluate.results import Origin, Row, pixel_measures

ALL = "all"


@dataclass(frozen=True)
class SetSummary:
    """images, objects: how many were evaluated; failed: one line for every image that could not be read.

    measures: by name as in `results.Row`, and "difference.head.auroc.image@1" and its kind: a method less plain entropy, on the same
    pixels. Each image counts the same; images without any object of sufficient size are not counted.
    micro: the pixel measures of all pixels of the set together. agreement: "head.expected_iou.spearman@3" and its kind, how predicted
    IoUs follow the true ones over the objects of the set together.
    """

    name: str
    group: str
    images: int
    objects: int
    failed: tuple[str, ...]
    measures: dict[str, Estimate]
    micro: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupSummary:
    """measures: the mean of the sets' means, the interval for other images of these very sets; micro, agreement: as those of a set,
    of all pixels and objects of all sets together; better, ranks: see `comparison`."""

    name: str
    sets: tuple[str, ...]
    measures: dict[str, Estimate]
    micro: dict[str, float]
    agreement: dict[str, float]
    better: dict[str, float]
    ranks: dict[str, float]


@dataclass(frozen=True)
class Cost:
    """factors: time of a click with each method, × that of a click without any; measured, so never quite the same again."""

    machine: str
    factors: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """groups: every group of `groups`, and "all" sets first; head_trained: whether the method "head" is more than the plain logits;
    None where nobody said. max_images: so many of each set, the first by name, None for all; paths: as they were typed, by
    option: data, head, calibration, prompts, rivals, ensemble."""

    model: str
    origin: Origin
    groups: tuple[GroupSummary, ...]
    sets: tuple[SetSummary, ...]
    cost: Cost | None = None
    head_trained: bool | None = None
    max_images: int | None = None
    paths: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(line for part in self.sets for line in part.failed)

    def to_json(self) -> str:
        """Undefined values are null."""
        return json.dumps(_without_nan(asdict(self)), indent=1, allow_nan=False) + "\n"


@dataclass(frozen=True)
class SetResults:
    """What is known of one set. pool: of exactly these images; None where that is not to be had, then nothing is said of it."""

    name: str
    group: str
    rows: Iterable[Row]
    failed: tuple[str, ...] = ()
    pool: Pool | None = None


def summarise(model: str, origin: Origin, results: Sequence[SetResults], cost: Cost | None = None) -> Summary:
    """Raises ValueError when no image of any set has been evaluated."""
    sets: list[SetSummary] = []
    known: dict[str, _Known] = {}
    for part in results:
        table = _Table.of(part.rows, origin.methods)
        values = np.array(list(table.measures.values())).reshape(len(table.measures), table.images).T  # (images, measures)
        draws = bootstrap_means(values, part.name) if table.images else np.empty((DRAWS, 0))
        by_measure = dict(zip(table.measures, draws.T, strict=True)) if table.images else {}
        measures = {name: estimate(defined_mean(table.measures[name]), by_measure[name]) for name in table.measures}
        known[part.name] = _Known(table.ious, by_measure, part.pool)
        micro = _micro(part.pool, origin) if table.images else {}
        agreement = _agreement(table.ious)
        sets.append(SetSummary(part.name, part.group, table.images, table.objects, part.failed, measures, micro, agreement))
    if not any(part.images for part in sets):
        raise ValueError("no image was evaluated: none could be read and has an object")
    names = [ALL, *sorted({part.group for part in sets})]
    members = {name: [part for part in sets if part.images and name in (ALL, part.group)] for name in names}
    groups = tuple(_group(name, parts, known, origin) for name, parts in members.items() if parts)
    return Summary(model, origin, groups, tuple(sets), cost)


Ious = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class _Table:
    """Of images with an object. measures: [images] each; ious: [objects] each, true, predicted and expected ones."""

    images: int
    objects: int
    measures: dict[str, NDArray[np.float64]]
    ious: Ious

    @staticmethod
    def of(rows: Iterable[Row], methods: Sequence[str]) -> _Table:
        """Goes through the rows once, so that they need not all be in memory."""
        measures: dict[str, array[float]] = {}
        ious: dict[str, array[float]] = {}
        images = objects = 0
        for row in rows:
            if not row.objects:
                continue
            averages = row.averages()
            for name, value in (averages | differences(averages, methods)).items():
                # what earlier images do not have is not defined there
                measures.setdefault(name, array("d", [math.nan] * images)).append(value)
            images, objects = images + 1, objects + len(row.objects)
            for column in measures.values():
                column.extend([math.nan] * (images - len(column)))
            for name, values in row.masks.items():
                if name.partition("@")[0].rpartition(".")[2] in ("iou", "predicted_iou", "expected_iou"):
                    ious.setdefault(name, array("d")).extend(math.nan if value is None else value for value in values)
        return _Table(images, objects, _arrays(measures), _arrays(ious))


@dataclass(frozen=True)
class _Known:
    """Of one set, for its groups. draws: [DRAWS] by measure."""

    ious: Ious
    draws: dict[str, NDArray[np.float64]]
    pool: Pool | None


def _group(name: str, parts: Sequence[SetSummary], known: Mapping[str, _Known], origin: Origin) -> GroupSummary:
    members = [known[part.name] for part in parts]
    measures = {}
    for measure in dict.fromkeys(measure for part in parts for measure in part.measures):
        means = np.array([part.measures[measure].mean if measure in part.measures else math.nan for part in parts])
        draws = [member.draws[measure] for member, mean in zip(members, means, strict=True) if math.isfinite(mean)]
        measures[measure] = estimate(defined_mean(means), np.mean(draws, 0) if draws else np.full(DRAWS, math.nan))
    pools = [member.pool for member in members if member.pool is not None]
    ious = {key: np.concatenate([m.ious[key] for m in members]) for key in members[0].ious if all(key in m.ious for m in members)}
    means = [{measure: found.mean for measure, found in part.measures.items()} for part in parts]
    return GroupSummary(
        name,
        tuple(part.name for part in parts),
        measures,
        _micro(_together(pools), origin) if len(pools) == len(members) else {},
        _agreement(ious),
        better_share(means, origin.methods),
        mean_ranks(means, origin.methods),
    )


def _together(pools: Sequence[Pool]) -> Pool:
    """Images of different sets may have the same name."""
    return reduce(add, (Pool(frozenset(f"{i}/{image}" for image in pool.images), pool.tensors) for i, pool in enumerate(pools)))


def _micro(pool: Pool | None, origin: Origin) -> dict[str, float]:
    if pool is None:
        return {}
    return {
        f"{method}.{name}@{clicks}": value
        for method in origin.methods
        for clicks in origin.clicks
        for name, value in pixel_measures(pool, method, clicks).items()
    }


def _agreement(ious: Ious) -> dict[str, float]:
    agreement = {}
    for name, predicted in ious.items():
        kind, _, clicks = name.partition("@")
        true = ious[f"iou@{clicks}"]
        both = np.isfinite(predicted) & np.isfinite(true)
        if kind != "iou" and both.any():
            found = object_quality(predicted[both], true[both])
            for measure in ("spearman", "pearson", "mae", "bias"):
                agreement[f"{kind}.{measure}@{clicks}"] = getattr(found, measure)
    return agreement


def _arrays(columns: Mapping[str, Sequence[float]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array(values, np.float64) for name, values in columns.items()}


def _without_nan(entry: object) -> object:
    match entry:
        case float():
            return entry if math.isfinite(entry) else None
        case dict():
            return {key: _without_nan(value) for key, value in entry.items()}
        case list() | tuple():
            return [_without_nan(value) for value in entry]
    return entry
