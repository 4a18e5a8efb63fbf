"""Trained variants next to one that has to be beaten: what each adds, with paired intervals, on one page of Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ruac.evaluate.comparison import mean_ranks
from ruac.report.blocks import Cell, Listing, Report, Section, Table
from ruac.report.columns import MARKS, chances, gain_cell, measured, remarks
from ruac.report.measures import AUPR, AURC, AUROC, ECE, J_AND_F, NLL, RANKED
from ruac.report.read import HEAD, PLAIN, Comparison, Contender, compare, open_runs
from ruac.report.scores import Scores
from ruac.report.settings import settings
from ruac.report.tables import ALL_SETS, counted
from ruac.report.words import GAIN_TABLE_NOTES, GAIN_WORDS, PLACES

CLICKS = 3  # where the results have it
REGION = "image"
MEASURES = (J_AND_F, AUROC, AUPR, AURC, ECE)
UNTRAINED = 1e-9  # nats: a head whose likelihood differs by less from the plain logits' has not been trained

WORDS = (
    "Every row is a model, and the method that tells how sure it is of each pixel. Rows of different models are judged on different "
    "masks, with other errors: AURC and ECE count the errors too, but AUROC and AUPR say only how well a model's doubt finds its own "
    "errors, which is harder the fewer there are.",
    "A row's method is 'head', the variance of a trained head, where there is one, and 'plain', the entropy of the decoder's own "
    "logits, where not; of the baseline it is 'plain', which costs nothing. Other choices were asked for by name. Whether a head that "
    "was not trained together with the model's masks still suits them, the results do not say.",
)

GAINS = (
    "Each number is the row less the baseline on the same images, with the 95 % interval of a paired bootstrap over images. ▲: the "
    "interval lies wholly on the better side of zero; ▼: wholly on the worse side."
)


@dataclass(frozen=True)
class Asked:
    """A row that was asked for. name: None for that of the folder; method: None for the usual one."""

    folder: Path
    name: str | None = None
    method: str | None = None

    @staticmethod
    def of(text: str) -> Asked:
        """From "NAME=FOLDER@METHOD", where name and method may be left out; what is a folder as it stands is one."""
        if Path(text).is_dir():
            return Asked(Path(text))
        name, equals, rest = text.partition("=")
        name, rest = (name, rest) if equals and name else (None, text)
        folder, at, method = rest.rpartition("@")
        return Asked(Path(folder), name, method) if at and folder and not Path(rest).is_dir() else Asked(Path(rest), name)


@dataclass(frozen=True)
class Row:
    """A contender under the name that the page gives it."""

    label: str
    contender: Contender


@dataclass(frozen=True)
class Ablation:
    """rows: the first is the baseline; clicks: after how many all is judged."""

    scores: Scores
    rows: tuple[Row, ...]

    @property
    def clicks(self) -> int:
        clicks = self.scores.comparison.clicks
        return CLICKS if CLICKS in clicks else clicks[-1]


def open_ablation(asked: Sequence[Asked], method: str | None = None) -> Ablation:
    """method: of all rows but the first that name none.

    Raises ValueError for fewer than two rows and for a method that was not measured, else as `open_runs` and `compare`.
    """
    if len(asked) < 2:
        raise ValueError("--ablation: name the results of two models or more, that which has to be beaten first")
    folders = list(dict.fromkeys(one.folder for one in asked))
    labels = _labels(asked, folders)
    scores = Scores(compare(open_runs(folders, labels)))
    rows = []
    for number, one in enumerate(asked):
        index = folders.index(one.folder)
        wanted = one.method or (method or usual_method(scores, index) if number else PLAIN)
        label = one.name or labels[index]
        rows.append(Row(label, contender(scores.comparison, index, wanted)))
    return Ablation(scores, tuple(rows))


def _labels(asked: Sequence[Asked], folders: Sequence[Path]) -> list[str]:
    """Of every run: the name of its row where it has only one, else that of its folder; the paths, where those are not enough."""
    rows = [[one.name for one in asked if one.folder == folder] for folder in folders]
    names = [(own[0] if len(own) == 1 else None) or folder.resolve().name for own, folder in zip(rows, folders, strict=True)]
    return names if len(set(names)) == len(names) else list(map(str, folders))


def contender(comparison: Comparison, index: int, method: str) -> Contender:
    """A run's method. Raises ValueError when that was not measured."""
    for one in comparison.contenders:
        if (one.index, one.method) == (index, method):
            return one
    run = comparison.runs[index]
    raise ValueError(f"{run.folder}: the method '{method}' was not measured; there are {', '.join(run.methods)}")


def usual_method(scores: Scores, index: int) -> str:
    """The head where it says anything else than the plain logits."""
    methods = scores.comparison.runs[index].methods
    if HEAD not in methods or PLAIN not in methods:
        return HEAD if HEAD in methods else PLAIN
    head, plain = (contender(scores.comparison, index, name) for name in (HEAD, PLAIN))
    differences = scores.gain(head, plain, NLL, REGION, scores.comparison.last).values
    return HEAD if (np.abs(differences) > UNTRAINED).any() else PLAIN


def ranks(scores: Scores, contenders: Sequence[Contender], clicks: int) -> tuple[float, ...]:
    """The mean rank of each among all, 1 is best, over the sets and AUROC, AURC and ECE; NaN where there is nothing to rank."""
    names = [str(i) for i in range(len(contenders))]
    sets: list[dict[str, float]] = [{} for _ in scores.comparison.sets]
    for name, one in zip(names, contenders, strict=True):
        for measure in RANKED:
            for values, value in zip(sets, scores.of(one, measure, REGION, clicks).values, strict=True):
                values[f"{name}.{measure.name}.{REGION}@{clicks}"] = float(value)
    found = mean_ranks(sets, names)
    return tuple(found.get(f"{name}.{REGION}@{clicks}", float("nan")) for name in names)


def compose(ablation: Ablation, command: str, made: str) -> Report:
    """command: what was typed; made: when and by what."""
    comparison = ablation.scores.comparison
    prompts = f"after {ablation.clicks} prompt{'s' * (ablation.clicks > 1)}"
    sections = [
        Section("rows", f"Every variant, {ALL_SETS}, {prompts}", WORDS, (_values(ablation),)),
        Section("gains", f"Less {ablation.rows[0].label}", (GAINS, *GAIN_WORDS[1:]), (_gains(ablation),)),
        *([Section("mind", "Mind when comparing", (), (Listing("", comparison.notes),))] if comparison.notes else []),
        settings(comparison, command, made),
    ]
    subtitle = f"{counted(comparison.sets)}; in per cent, over {PLACES[REGION]}"
    return Report(f"What each part adds to {ablation.rows[0].label}", subtitle, made, tuple(sections))


def typed(results: Sequence[str], out: Path, method: str | None) -> str:
    """The command that writes this page again."""
    return shlex.join(["ruac", "report", *results, "--ablation", str(out), *([] if method is None else ["--method", method])])


def _values(ablation: Ablation) -> Table:
    scores, rows = ablation.scores, ablation.rows
    contenders = [row.contender for row in rows]
    columns = [measured(scores, contenders, measure, None, REGION, ablation.clicks) for measure in MEASURES]
    places = ranks(scores, contenders, ablation.clicks)
    header = (Cell("variant"), Cell("method"), *(one.heading for one in columns), Cell("rank ↓"))
    lines = tuple(
        (
            Cell(row.label),
            Cell(row.contender.shown),
            *(one.cells[i] for one in columns),
            Cell("–" if np.isnan(places[i]) else f"{places[i]:.2f}"),
        )
        for i, row in enumerate(rows)
    )
    notes = (
        *remarks(columns, len(scores.comparison.sets)),
        MARKS.format("column"),
        "Rank: mean over the sets and AUROC, AURC and ECE of the row's place among all rows, 1 is best.",
    )
    return Table("", header, lines, notes)


def _gains(ablation: Ablation) -> Table:
    scores, (base, *others) = ablation.scores, ablation.rows
    columns = []
    for measure in MEASURES:
        gains = [scores.gain(row.contender, base.contender, measure, REGION, ablation.clicks) for row in others]
        ps = chances(gains)
        columns.append([gain_cell(gain, measure, p) for gain, p in zip(gains, ps, strict=True)])
    header = (Cell(f"less {base.label}, {base.contender.shown}"), *(Cell(f"{m.title} {m.arrow}") for m in MEASURES))
    lines = tuple(
        (Cell(f"{row.label}, {row.contender.shown}"), *(column[i] for column in columns)) for i, row in enumerate(others)
    )
    return Table("", header, lines, GAIN_TABLE_NOTES)
