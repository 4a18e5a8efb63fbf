"""From the rows of images to numbers of sets and groups, with bootstrap draws that are paired wherever the images are the same.

A set is drawn again image by image; a group is the mean of its sets, every set counting the same. Draws of one set are the same for
every score, so that differences of scores may be taken draw by draw.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ruac.evaluate.bootstrap import DRAWS, defined_mean, estimate
from ruac.evaluate.correlation import EQUAL
from ruac.report.measures import EXPECTED_BIAS, EXPECTED_MAE, EXPECTED_PEARSON, Measure
from ruac.report.read import CommonSet, Comparison, Contender

Numbers = NDArray[np.float64]
REGIONS = ("image", "band")


@dataclass(frozen=True)
class Score:
    """A number, its draws [DRAWS] and the 95 % interval they give; NaN where it is not defined."""

    value: float
    draws: Numbers

    @property
    def interval(self) -> tuple[float, float]:
        found = estimate(self.value, self.draws)
        return found.low, found.high

    @property
    def defined(self) -> bool:
        return bool(np.isfinite(self.value))


@dataclass(frozen=True)
class SetScores:
    """One measure of one contender. values: [sets]; draws: [sets, DRAWS]; NaN where not defined."""

    values: Numbers
    draws: Numbers

    def __sub__(self, other: Self) -> SetScores:
        return SetScores(self.values - other.values, self.draws - other.draws)

    @property
    def defined(self) -> NDArray[np.bool_]:
        return np.isfinite(self.values)

    def mean(self, members: NDArray[np.bool_]) -> Score:
        """Over the sets of a group, [sets], those where it is defined."""
        used = members & self.defined
        if not used.any():
            return Score(float("nan"), np.full(DRAWS, np.nan))
        return Score(float(self.values[used].mean()), self.draws[used].mean(0))

    def of(self, index: int) -> Score:
        return Score(float(self.values[index]), self.draws[index])


@dataclass(frozen=True)
class Scores:
    """Every score of a comparison, computed when first asked for."""

    comparison: Comparison
    _known: dict[tuple[Contender, str, str, int], SetScores] = field(default_factory=dict)

    def of(self, contender: Contender, measure: Measure, region: str, clicks: int) -> SetScores:
        """By set, in the order of the comparison. The region matters to measures of pixels only."""
        key = (contender, measure.name, region, clicks)
        if key not in self._known:
            name = image_key(contender.method, measure, region, clicks)
            each = [self._of_set(part, contender, measure, name, clicks) for part in self.comparison.sets]
            self._known[key] = SetScores(np.array([s.value for s in each]), np.stack([s.draws for s in each]))
        return self._known[key]

    def gain(self, contender: Contender, against: Contender, measure: Measure, region: str, clicks: int) -> SetScores:
        """`contender` less `against`, image by image where both are defined: two contenders of one run or of two."""
        if measure.kind == "agreement":
            return self.of(contender, measure, region, clicks) - self.of(against, measure, region, clicks)
        pairs = [(c.index, image_key(c.method, measure, region, clicks)) for c in (contender, against)]
        values, draws = [], []
        for part in self.comparison.sets:
            one, other = (image_values(part, index, name) for index, name in pairs)
            values.append(defined_mean(one - other))
            draws.append(drawn_means(one - other, part))
        return SetScores(np.array(values), np.stack(draws))

    def of_masks(self, index: int, name: str) -> SetScores:
        """Of one run, whatever its rows call `name`."""
        every = [(part, image_values(part, index, name)) for part in self.comparison.sets]
        return SetScores(
            np.array([defined_mean(values) for _, values in every]),
            np.stack([drawn_means(values, part) for part, values in every]),
        )

    def micro(self, contender: Contender, measure: Measure, region: str, clicks: int) -> SetScores:
        """Of all pixels of a set together, without draws; of pixels only, and where no image is left out of the comparison."""
        run, key = self.comparison.runs[contender.index], image_key(contender.method, measure, region, clicks)
        values = np.array([run.micro(part).get(key) for part in self.comparison.sets], float)  # None becomes NaN
        return SetScores(values, np.full((len(values), DRAWS), np.nan))

    def cost(self, contender: Contender) -> float:
        """Times a plain click; NaN where it was not measured."""
        factors = (self.comparison.runs[contender.index].summary.get("cost") or {}).get("factors") or {}
        value = factors.get(contender.method)
        return float("nan") if value is None else float(value)

    def members(self, group: str | None) -> NDArray[np.bool_]:
        """[sets], those of a group; None: all."""
        return np.array([group in (None, part.group) for part in self.comparison.sets])

    def _of_set(self, part: CommonSet, contender: Contender, measure: Measure, name: str, clicks: int) -> Score:
        if measure.kind == "agreement":
            return _agreement(part, contender.index, measure, f"{contender.method}.expected_iou@{clicks}", clicks)
        values = image_values(part, contender.index, name)
        return Score(defined_mean(values), drawn_means(values, part))


def image_key(method: str, measure: Measure, region: str, clicks: int) -> str:
    """The measure's name in a row of results."""
    return f"{measure.name}@{clicks}" if measure.kind == "mask" else f"{method}.{measure.name}.{region}@{clicks}"


def image_values(part: CommonSet, index: int, name: str) -> Numbers:
    """[images] of one run; NaN where a row does not have it."""
    return np.array([averages.get(name, float("nan")) for averages in part.averages[index]])


def drawn_means(values: Numbers, part: CommonSet) -> Numbers:
    """Means [DRAWS] of the images drawn, those without a value left out; NaN where none has one."""
    defined = np.isfinite(values)
    times = part.times[:, defined]
    weight = times.sum(1)
    return np.divide(times @ values[defined], weight, out=np.full(DRAWS, np.nan), where=weight > 0)


def agreement_of_guess(scores: Scores, index: int, measure: Measure, clicks: int) -> SetScores:
    """Of the model's own predicted IoU, which is no method of pixels."""
    each = [_agreement(part, index, measure, f"predicted_iou@{clicks}", clicks) for part in scores.comparison.sets]
    return SetScores(np.array([s.value for s in each]), np.stack([s.draws for s in each]))


def weighted_spearman(x: Numbers, y: Numbers, weights: Numbers) -> Numbers:
    """Rank correlation of x and y [objects], each counted `weights` [draws, objects] times, ties at their mean rank: [draws].

    NaN where either has no spread.
    """
    return weighted_pearson(_ranks(x, weights), _ranks(y, weights), weights)


def weighted_pearson(x: Numbers, y: Numbers, weights: Numbers) -> Numbers:
    """The same of values themselves, x and y [objects] or [draws, objects]."""
    total = weights.sum(1, keepdims=True)
    centred = [values - (weights * values).sum(1, keepdims=True) / total for values in (x, y)]
    covariance, *variances = ((weights * a * b).sum(1) for a, b in (centred, (centred[0],) * 2, (centred[1],) * 2))
    squares = [(weights * values**2).sum(1) for values in (x, y)]
    spread = np.all([variance > EQUAL**2 * square for variance, square in zip(variances, squares, strict=True)], 0)
    return np.divide(covariance, np.sqrt(variances[0] * variances[1]), out=np.full(len(covariance), np.nan), where=spread)


def _ranks(values: Numbers, weights: Numbers) -> Numbers:
    """Mean ranks [draws, objects] of values [objects] that count `weights` times, up to a constant."""
    order = np.argsort(values, kind="stable")
    unique, start = np.unique(values[order], return_index=True)
    together = np.add.reduceat(weights[:, order], start, axis=1)
    return (together.cumsum(1) - together / 2)[:, np.searchsorted(unique, values)]


def _agreement(part: CommonSet, index: int, measure: Measure, name: str, clicks: int) -> Score:
    """Expected against true IoU, object by object; images are drawn with all their objects."""
    rows = part.rows[index]
    truth = f"iou@{clicks}"
    if any(name not in row.masks or truth not in row.masks for row in rows):
        return Score(float("nan"), np.full(DRAWS, np.nan))
    # None, which is not defined, becomes NaN
    expected, true = (np.array([value for row in rows for value in row.masks[each]], float) for each in (name, truth))
    image = np.repeat(np.arange(len(rows)), [len(row.objects) for row in rows])
    weights = np.vstack([np.ones(len(rows)), part.times])[:, image]
    # an image may be all that a draw holds: two different values are needed for a rank correlation, which may then be missing
    known = np.isfinite(expected) & np.isfinite(true)
    expected, true, weights = expected[known], true[known], weights[:, known].astype(float)
    if not len(expected):
        return Score(float("nan"), np.full(DRAWS, np.nan))
    gap = expected - true
    if measure == EXPECTED_MAE:
        values = _weighted_mean(np.abs(gap), weights)
    elif measure == EXPECTED_BIAS:
        values = _weighted_mean(gap, weights)
    else:
        values = (weighted_pearson if measure == EXPECTED_PEARSON else weighted_spearman)(expected, true, weights)
    return Score(float(values[0]), values[1:])


def _weighted_mean(values: Numbers, weights: Numbers) -> Numbers:
    """Of values [objects], [draws]; NaN where a draw has none."""
    total = weights.sum(1)
    return np.divide(weights @ values, total, out=np.full(len(total), np.nan), where=total > 0)
