"""The numbers of a report as CSV, all that the results hold: a row a scope, run, method, measure, region and number of prompts."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ruac.evaluate.bootstrap import DRAWS, bootstrap_means, defined_mean
from ruac.report.measures import AGREEMENT, COST, EXPECTED_BIAS, EXPECTED_PEARSON
from ruac.report.read import PLAIN, Comparison
from ruac.report.scores import Numbers, Score, Scores, SetScores, agreement_of_guess

HEADER = (
    "scope",
    "name",
    "model",
    "method",
    "measure",
    "region",
    "prompts",
    "sets",
    "mean",
    "low",
    "high",
    "gain",
    "gain_low",
    "gain_high",
    "micro",
)
# method, measure, region, prompts; what does not apply is empty
Named = tuple[str, str, str, str]


def numbers(scores: Scores) -> str:
    """In their own units, not in per cent. No method: of the mask or the decoder, whatever the method; sets: over how many a mean is;
    gain: less plain; micro: of all pixels of a set together, mean over the sets."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADER)
    comparison = scores.comparison
    for index, run in enumerate(comparison.runs):
        for method in ("", *run.methods):
            for found in (*_of_rows(comparison, index, method), *_of_objects(scores, index, method)):
                writer.writerows(_lines(scores, run.label, found))
            cost = next((scores.cost(c) for c in comparison.contenders if (c.index, c.method) == (index, method)), math.nan)
            if math.isfinite(cost):
                writer.writerow(("all", "", run.label, method, COST.name, "", "", "", _text(cost), *[""] * 6))
    return buffer.getvalue()


@dataclass(frozen=True)
class Found:
    """gain: less plain; micro: of all pixels of a set together, [sets]; None where there is no such thing."""

    named: Named
    every: SetScores
    gain: SetScores | None = None
    micro: Numbers | None = None


def _of_rows(comparison: Comparison, index: int, method: str) -> Iterator[Found]:
    """What the rows of a run say of a method: by set, its gain, and of all pixels together."""
    run = comparison.runs[index]
    averages = [part.averages[index] for part in comparison.sets]
    keys = list(dict.fromkeys(key for rows in averages for row in rows for key in row if named(key, run.methods)[0] == method))
    if not keys:
        return
    plain = [f"{PLAIN}.{key.partition('.')[2]}" if method not in ("", PLAIN) else "" for key in keys]
    values, gains = [], []
    for part, rows in zip(comparison.sets, averages, strict=True):
        own, other = (np.array([[row.get(key, math.nan) for key in wanted] for row in rows]) for wanted in (keys, plain))
        # measures of a set share their draws, so all of them may be drawn at once
        for found, each in ((values, own), (gains, own - other)):
            found.append((each, bootstrap_means(each, part.name)))
    micro = [run.micro(part) for part in comparison.sets]
    for i, key in enumerate(keys):
        pooled = np.array([found.get(key) for found in micro], float)  # None becomes NaN
        yield Found(named(key, run.methods), _column(values, i), _column(gains, i), pooled)


def _column(parts: Sequence[tuple[Numbers, Numbers]], i: int) -> SetScores:
    """parts: by set, values [images, measures] and draws [DRAWS, measures]; i: of the measure."""
    return SetScores(np.array([defined_mean(values[:, i]) for values, _ in parts]), np.stack([draws[:, i] for _, draws in parts]))


def _of_objects(scores: Scores, index: int, method: str) -> Iterator[Found]:
    """How the IoU that a method expects, or that the decoder predicts by itself, follows the true one."""
    comparison = scores.comparison
    contender = next((c for c in comparison.contenders if (c.index, c.method) == (index, method)), None)
    plain = None if contender is None else comparison.plain_of(contender)
    for measure in (*AGREEMENT, EXPECTED_PEARSON, EXPECTED_BIAS):
        for clicks in comparison.clicks:
            if contender is None:
                name = measure.name.replace("expected", "predicted")
                yield Found(("", name, "", str(clicks)), agreement_of_guess(scores, index, measure, clicks))
            else:
                gain = None if plain is None else scores.gain(contender, plain, measure, "", clicks)
                yield Found((method, measure.name, "", str(clicks)), scores.of(contender, measure, "", clicks), gain)


def named(key: str, methods: Sequence[str]) -> Named:
    """Of a measure in a row of results: "head.auroc.band@3", "head.expected_iou@3", "iou@3", "noc.85"."""
    name, _, prompts = key.partition("@")
    method, _, rest = name.partition(".")
    if not rest or method not in methods:
        return "", name, "", prompts
    measure, _, region = rest.partition(".")
    return method, measure, region, prompts


def _lines(scores: Scores, model: str, found: Found) -> Iterator[tuple[str | int, ...]]:
    """Of all sets, of every group, and of every set; none where the measure is nowhere defined."""
    comparison, every = scores.comparison, found.every
    if not every.defined.any():
        return
    nothing = SetScores(np.full(len(every.values), math.nan), np.full((len(every.values), DRAWS), math.nan))
    gain = nothing if found.gain is None else found.gain
    micro = nothing if found.micro is None else SetScores(found.micro, nothing.draws)
    scopes = [("all", "", None), *(("group", group, group) for group in comparison.groups)]
    for scope, name, group in scopes:
        members = scores.members(group)
        counted = int((every.defined & members).sum())
        mean, ahead, pooled = (one.mean(members) for one in (every, gain, micro))
        yield scope, name, model, *found.named, counted, *_three(mean), *_three(ahead), _text(pooled.value)
    for i, part in enumerate(comparison.sets):
        yield (
            "set",
            part.name,
            model,
            *found.named,
            int(every.defined[i]),
            *_three(every.of(i)),
            *_three(gain.of(i)),
            _text(micro.values[i]),
        )


def _three(score: Score) -> tuple[str, str, str]:
    low, high = score.interval
    return _text(score.value), _text(low), _text(high)


def _text(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""
