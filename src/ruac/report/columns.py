"""Numbers side by side: over which sets they may be compared, which is best, and how they are written in a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ruac.report.blocks import Cell, Mark
from ruac.report.measures import Measure
from ruac.report.ranks import holm, wilcoxon
from ruac.report.read import Contender
from ruac.report.scores import Score, Scores, SetScores

MISSING = Cell("–")
INTERVALS = "In brackets: 95 % bootstrap interval over images, for these very sets."
MARKS = (
    "★ best of its {}; ≈ not told apart from it: the 95 % interval of the difference, on the same images drawn again, holds zero. "
    "Where all are equal, nothing is marked. " + INTERVALS
)
APART = (
    "† not to be compared with the other numbers of its column: the method does not define the measure on all of their sets, and this "
    "is the mean over as many as stand beside it."
)


@dataclass(frozen=True)
class Compared:
    """A contender's mean; sets: over how many; apart: fewer than the others, so that it is no match for them."""

    score: Score
    sets: int
    apart: bool


@dataclass(frozen=True)
class Column:
    """A measure, with a cell for each contender; sets: over how many all are means that are not apart."""

    measure: Measure
    cells: tuple[Cell, ...]
    sets: int

    @property
    def known(self) -> bool:
        return any(cell != MISSING for cell in self.cells)

    @property
    def heading(self) -> Cell:
        return Cell(f"{self.measure.title} {self.measure.arrow}")


def compared(every: Sequence[SetScores], runs: Sequence[int], members: NDArray[np.bool_]) -> list[Compared]:
    """The mean of each contender over the sets where all that are compared have the measure. runs: whose each is; members: [sets].

    All methods of a run judge the same masks: a method that lacks a set which another one of its run has would take that set from
    everybody. It stands apart instead, on its own sets.
    """
    counts = [int((one.defined & members).sum()) for one in every]
    most = {run: max(count for count, whose in zip(counts, runs, strict=True) if whose == run) for run in runs}
    whole = [one.defined for one, count, run in zip(every, counts, runs, strict=True) if count and count == most[run]]
    together = members & np.all(whole, 0) if whole else members
    sets = [int((one.defined & together).sum()) for one in every]
    return [Compared(one.mean(together), n, 0 < n < together.sum()) for one, n in zip(every, sets, strict=True)]


def column(measure: Measure, every: Sequence[SetScores], runs: Sequence[int], members: NDArray[np.bool_]) -> Column:
    """As `compared`, in cells."""
    found = compared(every, runs, members)
    cells = iter(marked([one.score for one in found if not one.apart], measure))
    return Column(
        measure,
        tuple(_apart(one, measure) if one.apart else next(cells) for one in found),
        max((one.sets for one in found if not one.apart), default=0),
    )


def measured(
    scores: Scores, contenders: Sequence[Contender], measure: Measure, group: str | None, region: str, clicks: int
) -> Column:
    every = [scores.of(contender, measure, region, clicks) for contender in contenders]
    return column(measure, every, [contender.index for contender in contenders], scores.members(group))


def remarks(columns: Sequence[Column], sets: int) -> list[str]:
    """What must be said of columns below a table over so many sets."""
    fewer = [f"{one.measure.title} over {one.sets}" for one in columns if one.known and one.sets < sets]
    notes = [f"Not defined on every set, and a mean over those where it is: {', '.join(fewer)}."] if fewer else []
    return [*notes, *([APART] if any(cell.mark == "apart" for one in columns for cell in one.cells) else [])]


def marked(every: Sequence[Score], measure: Measure) -> list[Cell]:
    """Cells of numbers that may be compared, with the best one and those not told apart from it."""
    cells = [written(score, measure) for score in every]
    known = [i for i, score in enumerate(every) if score.defined]
    if len({cells[i].text for i in known}) < 2:
        return cells
    best = leader(every, measure)
    for i in known:
        low, high = Score(0.0, every[i].draws - every[best].draws).interval
        mark: Mark = "best" if cells[i].text == cells[best].text else "close" if low <= 0 <= high else ""
        cells[i] = replace(cells[i], mark=mark)
    return cells


def leader(every: Sequence[Score], measure: Measure) -> int:
    """The place of the best, of which there must be one that is defined."""
    known = [i for i, score in enumerate(every) if score.defined]
    return (max if measure.higher else min)(known, key=lambda i: every[i].value)


def written(score: Score, measure: Measure) -> Cell:
    if not score.defined:
        return MISSING
    low, high = score.interval
    interval = f"[{measure.write(low)}, {measure.write(high)}]" if math.isfinite(low) else ""
    return Cell(measure.write(score.value), interval)


def gain_cell(gain: SetScores, measure: Measure, p: float) -> Cell:
    """p: that there is no gain at all; NaN where that was not tested."""
    score = gain.mean(np.ones(len(gain.values), bool))
    if not score.defined:
        return MISSING
    mean, *ends = finely(score, measure)
    detail = f"[{', '.join(ends)}], better on {ahead(gain, measure, p)}"
    return Cell(f"{'+' if float(mean) > 0 else ''}{mean}", detail, verdict(score, measure))


def ahead(gain: SetScores, measure: Measure, p: float) -> str:
    """On how many sets a gain is one, and how likely so many are by chance, in words; p: NaN where that was not tested."""
    known = gain.values[gain.defined] * (1 if measure.higher else -1)
    likely = f", p {_chance(p)}" if math.isfinite(p) else ""
    return f"{int((known > 0).sum())} of {len(known)} sets{likely}"


def finely(gain: Score, measure: Measure) -> list[str]:
    """A gain, which is small, and the ends of its interval: with a digit more than in the tables, and with up to four more until no
    end beyond zero looks like zero."""
    values = (gain.value, *gain.interval)
    if vanishes(gain, measure):
        return [measure.write(0.0, 1)] * 3
    texts = [[measure.write(value, more) for value in values] for more in (1, 2, 3, 4)]
    return next((t for t in texts if all(float(end) for end, value in zip(t, values, strict=True) if value)), texts[0])


def verdict(gain: Score, measure: Measure) -> Mark:
    """Better or worse where the 95 % interval of a gain lies wholly on one side of zero, and is more than nothing."""
    if vanishes(gain, measure):
        return ""
    low, high = gain.interval
    above, below = ("better", "worse") if measure.higher else ("worse", "better")
    return above if low > 0 else below if high < 0 else ""


def vanishes(gain: Score, measure: Measure) -> bool:
    """Whether a gain and its interval are zero with a digit more than the tables have: less than the histograms can tell."""
    return all(float(measure.write(value, 1)) == 0 for value in (gain.value, *gain.interval))


def chances(gains: Sequence[SetScores]) -> list[float]:
    """p over the sets, of each gain, that there is none: Wilcoxon's signed-rank test, corrected for how many they are. NaN where that
    was not tested."""
    return holm([wilcoxon(gain.values) for gain in gains])


def _apart(one: Compared, measure: Measure) -> Cell:
    cell = written(one.score, measure)
    return replace(cell, detail=f"{cell.detail} over {one.sets} set{'s' * (one.sets > 1)}".strip(), mark="apart")


def _chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"
