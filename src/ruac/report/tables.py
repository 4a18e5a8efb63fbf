"""The tables of the report: scores in, cells out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ruac.evaluate.groups import MEANING
from ruac.report.blocks import Cell, Table
from ruac.report.columns import INTERVALS, MARKS, MISSING, Column, chances, column, gain_cell, marked, measured, remarks, written
from ruac.report.measures import AGREEMENT, CLICKS, COST, IOU, J_AND_F, MASKS, PEOPLE, PIXELS, RANKED, Measure
from ruac.report.ranks import Ranks, rank
from ruac.report.read import CommonSet
from ruac.report.scores import Scores, agreement_of_guess
from ruac.report.words import GAIN_TABLE_NOTES, MICRO_NOTES, UNITS

ALL_SETS = "all sets"
GUESS = "the decoder's own predicted IoU"


def headline(scores: Scores, group: str | None, region: str, clicks: int, title: str, folded: bool = False) -> Table:
    """A row a contender, a column a measure that was measured, over the sets of a group (None: all)."""
    contenders = scores.comparison.contenders
    columns = [
        one for m in (*MASKS, *PIXELS, *AGREEMENT) if (one := measured(scores, contenders, m, group, region, clicks)).known
    ]
    header = [Cell("method"), *(one.heading for one in columns)]
    rows = _rows([contender.label for contender in contenders], columns)
    costs = [scores.cost(contender) for contender in contenders]
    if any(map(math.isfinite, costs)):
        header.append(Cell(f"{COST.title} {COST.arrow}"))
        cells = (Cell(COST.write(cost)) if math.isfinite(cost) else MISSING for cost in costs)
        rows = tuple((*row, cell) for row, cell in zip(rows, cells, strict=True))
    shown = [one.measure for one in columns]
    absent = [measure.title for measure in (*PIXELS, *AGREEMENT) if measure not in shown]
    parts = [part for part in scores.comparison.sets if group in (None, part.group)]
    notes = [f"Over {counted(parts)}. {UNITS}", *remarks(columns, len(parts)), MARKS.format("column")]
    if absent:
        notes.append(f"Not in these results, or defined for no image: {', '.join(absent)}.")
    return Table(title, tuple(header), rows, tuple(notes), folded)


def pooled(scores: Scores, region: str, clicks: int, title: str) -> Table | None:
    """The pixel measures of all pixels of a set together, mean over the sets; None where no result has them."""
    contenders, members = scores.comparison.contenders, scores.members(None)
    runs = [contender.index for contender in contenders]
    columns = [column(m, [scores.micro(c, m, region, clicks) for c in contenders], runs, members) for m in PIXELS]
    columns = [one for one in columns if one.known]
    if not columns:
        return None
    header = (Cell("method"), *(one.heading for one in columns))
    notes = (*remarks(columns, len(scores.comparison.sets)), *MICRO_NOTES)
    return Table(title, header, _rows([c.label for c in contenders], columns), notes, folded=True)


def counted(parts: Sequence[CommonSet]) -> str:
    """How much there is of what, in words."""
    numbers = {"set": len(parts), "image": sum(part.images for part in parts), "object": sum(part.objects for part in parts)}
    return ", ".join(f"{number} {name}{'s' * (number != 1)}" for name, number in numbers.items())


def masks(scores: Scores) -> Table:
    """J&F and IoU by number of prompts, a row for every run and group."""
    comparison = scores.comparison
    columns = [(measure, clicks) for measure in (J_AND_F, IOU) for clicks in comparison.clicks]
    first_rows = (rows[0] for part in comparison.sets for rows in part.averages)
    noc = sorted({key for row in first_rows for key in row if key.startswith("noc.")})
    header = [Cell("masks of"), Cell("sets"), Cell("images"), Cell("objects")]
    header += [Cell(f"{measure.title} after {clicks} ↑") for measure, clicks in columns]
    header += [Cell(f"{CLICKS.title}@{key.removeprefix('noc.')} {CLICKS.arrow}") for key in noc]
    rows = []
    for index, run in enumerate(comparison.runs):
        first = next(c for c in comparison.contenders if c.index == index)
        for group in (None, *_several(comparison.groups)):
            members = scores.members(group)
            parts = [part for part, member in zip(comparison.sets, members, strict=True) if member]
            name = run.label if group is None else f"{run.label}, {group}"
            counts = (len(parts), sum(part.images for part in parts), sum(part.objects for part in parts))
            cells = [written(scores.of(first, m, "image", clicks).mean(members), m) for m, clicks in columns]
            cells += [written(scores.of_masks(index, key).mean(members), CLICKS) for key in noc]
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
        cells = marked([one.of(i) for one in every], measure)
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
            cells = (gain_cell(gain, measure, p) for gain, p in zip(gains, chances(gains), strict=True))
            columns.append((measure, list(cells)))
    if not columns:
        return None
    header = (Cell("method, less plain"), *(Cell(f"{measure.title} {measure.arrow}") for measure, _ in columns))
    rows = tuple((Cell(c.label), *(cells[i] for _, cells in columns)) for i, (c, _) in enumerate(pairs))
    return Table(title, header, rows, GAIN_TABLE_NOTES, folded)


def guesses(scores: Scores, clicks: int) -> Table | None:
    """Expected IoU by method next to the IoU that the model itself predicts; None where neither was measured."""
    comparison = scores.comparison
    names = [contender.label for contender in comparison.contenders]
    several = len(comparison.runs) > 1
    names += [f"{run.label} · {GUESS}" if several else GUESS for run in comparison.runs]
    runs = [*(contender.index for contender in comparison.contenders), *range(len(comparison.runs))]
    columns = []
    for measure in AGREEMENT:
        every = [scores.of(contender, measure, "image", clicks) for contender in comparison.contenders]
        every += [agreement_of_guess(scores, index, measure, clicks) for index in range(len(comparison.runs))]
        columns.append(column(measure, every, runs, scores.members(None)))
    if not any(one.known for one in columns):
        return None
    return Table(
        f"Does the method know how good its mask is? After {clicks} prompts, {ALL_SETS}",
        (Cell("IoU expected by"), *(one.heading for one in columns)),
        _rows(names, columns),
        (*(m.sentence for m in AGREEMENT), *remarks(columns, len(comparison.sets)), MARKS.format("column")),
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
    columns = [one for measure in PEOPLE if (one := measured(scores, contenders, measure, None, region, clicks)).known]
    if not columns:
        return None
    header = (Cell("method"), *(one.heading for one in columns))
    notes = (*(one.measure.sentence for one in columns), *remarks(columns, len(scores.comparison.sets)), MARKS.format("column"))
    return Table(title, header, _rows([c.label for c in contenders], columns), notes)


def _rows(names: Sequence[str], columns: Sequence[Column]) -> tuple[tuple[Cell, ...], ...]:
    return tuple((Cell(name), *(one.cells[i] for one in columns)) for i, name in enumerate(names))


def _several(groups: Sequence[str]) -> Sequence[str]:
    return groups if len(groups) > 1 else ()
