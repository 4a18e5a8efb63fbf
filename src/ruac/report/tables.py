"""The tables of the report: scores in, cells out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ruac.evaluate.groups import MEANING
from ruac.report.blocks import Cell, Mark, Table
from ruac.report.measures import AGREEMENT, CLICKS, COST, IOU, J_AND_F, MASKS, PEOPLE, PIXELS, RANKED, Measure
from ruac.report.ranks import Ranks, holm, rank, wilcoxon
from ruac.report.read import CommonSet, Contender
from ruac.report.scores import Score, Scores, SetScores, agreement_of_guess
from ruac.report.words import GAIN_TABLE_NOTES, UNITS

MISSING = Cell("–")
ALL_SETS = "all sets"
INTERVALS = "In brackets: 95 % bootstrap interval over images, for these very sets."
MARKS = (
    "★ best of its {}; ≈ not told apart from it: the 95 % interval of the difference, on the same images drawn again, holds zero. "
    "Where all are equal, nothing is marked. " + INTERVALS
)
GUESS = "the decoder's own predicted IoU"


def headline(scores: Scores, group: str | None, region: str, clicks: int, title: str, folded: bool = False) -> Table:
    """A row a contender, a column a measure that was measured, over the sets of a group (None: all)."""
    contenders = scores.comparison.contenders
    every = [
        (measure, marked_column(scores, contenders, measure, group, region, clicks)) for measure in (*MASKS, *PIXELS, *AGREEMENT)
    ]
    columns = [(measure, column) for measure, column in every if any(cell != MISSING for cell in column)]
    header = [Cell("method"), *(Cell(f"{measure.title} {measure.arrow}") for measure, _ in columns)]
    rows = [[Cell(contender.label), *(column[i] for _, column in columns)] for i, contender in enumerate(contenders)]
    costs = [scores.cost(contender) for contender in contenders]
    if any(map(math.isfinite, costs)):
        header.append(Cell(f"{COST.title} {COST.arrow}"))
        for row, cost in zip(rows, costs, strict=True):
            row.append(Cell(COST.write(cost)) if math.isfinite(cost) else MISSING)
    shown = [measure.name for measure, _ in columns]
    absent = [measure.title for measure in (*PIXELS, *AGREEMENT) if measure.name not in shown]
    parts = [part for part in scores.comparison.sets if group in (None, part.group)]
    notes = [f"Over {counted(parts)}. {UNITS}", MARKS.format("column")]
    if absent:
        notes.append(f"Not in these results, or defined for no image: {', '.join(absent)}.")
    return Table(title, tuple(header), tuple(map(tuple, rows)), tuple(notes), folded)


def counted(parts: Sequence[CommonSet]) -> str:
    """How much there is of what, in words."""
    numbers = {"set": len(parts), "image": sum(part.images for part in parts), "object": sum(part.objects for part in parts)}
    return ", ".join(f"{number} {name}{'s' * (number != 1)}" for name, number in numbers.items())


def masks(scores: Scores) -> Table:
    """J&F and IoU by number of prompts, a row for every run and group."""
    comparison = scores.comparison
    columns = [(measure, clicks) for measure in (J_AND_F, IOU) for clicks in comparison.clicks]
    noc = sorted({key for part in comparison.sets for row in part.averages[0][:1] for key in row if key.startswith("noc.")})
    header = [Cell("masks of"), Cell("sets"), Cell("images"), Cell("objects")]
    header += [Cell(f"{measure.title} after {clicks} ↑") for measure, clicks in columns]
    header += [Cell(f"clicks to IoU {key.removeprefix('noc.')} ↓") for key in noc]
    rows = []
    for index, run in enumerate(comparison.runs):
        first = next(c for c in comparison.contenders if c.index == index)
        for group in (None, *_several(comparison.groups)):
            members = scores.members(group)
            parts = [part for part, member in zip(comparison.sets, members, strict=True) if member]
            name = run.label if group is None else f"{run.label}, {group}"
            counts = (len(parts), sum(part.images for part in parts), sum(part.objects for part in parts))
            cells = [_cell(scores.of(first, m, "image", clicks).mean(members), m) for m, clicks in columns]
            cells += [_cell(scores.of_masks(index, key).mean(members), CLICKS) for key in noc]
            rows.append((Cell(name), *(Cell(str(count)) for count in counts), *cells))
    groups = [f"{name}: {MEANING[name]}" for name in _several(comparison.groups) if name in MEANING]
    notes = [J_AND_F.sentence, IOU.sentence, *([CLICKS.sentence] if noc else []), INTERVALS]
    notes += [f"Groups of sets. {'; '.join(groups)}."] if groups else []
    return Table(f"Masks: {ALL_SETS} and every group", tuple(header), tuple(rows), tuple(notes))


def by_set(scores: Scores, measure: Measure, region: str, clicks: int) -> Table:
    """A row a set, a column a contender (or a run, for measures of masks)."""
    comparison = scores.comparison
    contenders = comparison.contenders
    if measure.kind == "mask":
        contenders = tuple(next(c for c in contenders if c.index == i) for i in range(len(comparison.runs)))
    every = [scores.of(contender, measure, region, clicks) for contender in contenders]
    names = [comparison.runs[c.index].label if measure.kind == "mask" else c.label for c in contenders]
    rows = []
    for i in sorted(range(len(comparison.sets)), key=lambda i: (comparison.sets[i].group, comparison.sets[i].name)):
        part = comparison.sets[i]
        cells = _marked([one.of(i) for one in every], measure)
        rows.append((Cell(part.name, f"{part.group}, {part.images} images, {part.objects} objects"), *cells))
    header = (Cell("set"), *(Cell(name) for name in names))
    return Table(
        f"{measure.title} {measure.arrow} by set", header, tuple(rows), (measure.sentence, MARKS.format("row")), folded=True
    )


def significance(scores: Scores, region: str, clicks: int, title: str, folded: bool = False) -> Table | None:
    """Every method less plain on the same images; None where there is nothing to compare."""
    pairs = [(c, plain) for c in scores.comparison.contenders if (plain := scores.comparison.plain_of(c))]
    columns = []
    for measure in PIXELS:
        gains = [scores.gain(c, plain, measure, region, clicks) for c, plain in pairs]
        if gains and any(gain.defined.any() for gain in gains):
            ps = holm([wilcoxon(gain.values) for gain in gains])
            columns.append((measure, [gain_cell(g, measure, p) for g, p in zip(gains, ps, strict=True)]))
    if not columns:
        return None
    header = (Cell("method, less plain"), *(Cell(f"{measure.title} {measure.arrow}") for measure, _ in columns))
    rows = tuple((Cell(c.label), *(cells[i] for _, cells in columns)) for i, (c, _) in enumerate(pairs))
    return Table(title, header, rows, GAIN_TABLE_NOTES, folded)


def guesses(scores: Scores, clicks: int) -> Table | None:
    """Expected IoU by method next to the IoU that the model itself predicts; None where neither was measured."""
    comparison = scores.comparison
    members = scores.members(None)
    names = [contender.label for contender in comparison.contenders]
    several = len(comparison.runs) > 1
    names += [f"{run.label} · {GUESS}" if several else GUESS for run in comparison.runs]
    columns = []
    for measure in AGREEMENT:
        every = [scores.of(contender, measure, "image", clicks) for contender in comparison.contenders]
        every += [agreement_of_guess(scores, index, measure, clicks) for index in range(len(comparison.runs))]
        columns.append(_marked(_means(every, members), measure))
    if all(cell == MISSING for column in columns for cell in column):
        return None
    header = (Cell("IoU expected by"), *(Cell(f"{m.title} {m.arrow}") for m in AGREEMENT))
    rows = tuple((Cell(name), *(column[i] for column in columns)) for i, name in enumerate(names))
    notes = tuple(measure.sentence for measure in AGREEMENT)
    return Table(
        f"Does the method know how good its mask is? After {clicks} prompts, {ALL_SETS}",
        header,
        rows,
        (*notes, MARKS.format("column")),
    )


def ranks_of(scores: Scores, index: int, region: str, clicks: int) -> tuple[Ranks, ...]:
    """Of the methods of one run, measure by measure; empty where there is too little to rank."""
    contenders = [c for c in scores.comparison.contenders if c.index == index]
    found = []
    for measure in RANKED:
        values = np.stack([scores.of(c, measure, region, clicks).values for c in contenders], 1)
        one = rank(measure.title, [c.shown for c in contenders], values, measure.higher)
        found += [] if one is None else [one]
    return tuple(found)


def people(scores: Scores, region: str, clicks: int, title: str) -> Table | None:
    """How the doubt meets the disagreement of several annotators; None where no set has several."""
    contenders = scores.comparison.contenders
    columns = [(measure, marked_column(scores, contenders, measure, None, region, clicks)) for measure in PEOPLE]
    columns = [(measure, column) for measure, column in columns if any(cell != MISSING for cell in column)]
    if not columns:
        return None
    header = (Cell("method"), *(Cell(f"{measure.title} {measure.arrow}") for measure, _ in columns))
    rows = tuple((Cell(c.label), *(column[i] for _, column in columns)) for i, c in enumerate(contenders))
    return Table(title, header, rows, (*(measure.sentence for measure, _ in columns), MARKS.format("column")))


def marked_column(
    scores: Scores, contenders: Sequence[Contender], measure: Measure, group: str | None, region: str, clicks: int
) -> list[Cell]:
    every = [scores.of(contender, measure, region, clicks) for contender in contenders]
    return _marked(_means(every, scores.members(group)), measure)


def _means(every: Sequence[SetScores], members: NDArray[np.bool_]) -> list[Score]:
    """Over the sets where every contender that has the measure at all has it: means over different sets are no comparison."""
    known = [one for one in every if (one.defined & members).any()]
    together = members & np.all([one.defined for one in known], 0) if known else members
    return [one.mean(together) for one in every]


def _marked(every: Sequence[Score], measure: Measure) -> list[Cell]:
    cells = [_cell(score, measure) for score in every]
    known = [i for i, score in enumerate(every) if score.defined]
    if len({cells[i].text for i in known}) < 2:
        return cells
    best = (max if measure.higher else min)(known, key=lambda i: every[i].value)
    for i in known:
        low, high = Score(0.0, every[i].draws - every[best].draws).interval
        mark: Mark = "best" if cells[i].text == cells[best].text else "close" if low <= 0 <= high else ""
        cells[i] = replace(cells[i], mark=mark)
    return cells


def _cell(score: Score, measure: Measure) -> Cell:
    if not score.defined:
        return MISSING
    low, high = score.interval
    interval = f"[{measure.write(low)}, {measure.write(high)}]" if math.isfinite(low) else ""
    return Cell(measure.write(score.value), interval)


def gain_cell(gain: SetScores, measure: Measure, p: float) -> Cell:
    score = gain.mean(np.ones(len(gain.values), bool))
    if not score.defined:
        return MISSING
    low, high = score.interval
    ahead = gain.values[gain.defined] * (1 if measure.higher else -1)
    better = low > 0 if measure.higher else high < 0
    worse = high < 0 if measure.higher else low > 0
    # a digit more than in the tables: gains are small, and an interval that ends at zero should not look as if it held it
    mean, *ends = (measure.write(value, more=1) for value in (score.value, low, high))
    detail = f"[{', '.join(ends)}], better on {int((ahead > 0).sum())} of {len(ahead)} sets"
    detail += f", p {_chance(p)}" if math.isfinite(p) else ""
    return Cell(f"{'+' if float(mean) > 0 else ''}{mean}", detail, "better" if better else "worse" if worse else "")


def _chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def _several(groups: Sequence[str]) -> Sequence[str]:
    return groups if len(groups) > 1 else ()
