"""The result folders of one or more evaluations, and what they have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruac.evaluate.bootstrap import bootstrap_means
from ruac.evaluate.calibration import FILE as TEMPERATURES
from ruac.evaluate.error_detection import ErrorHistogram
from ruac.evaluate.pool import REGIONS, Pool
from ruac.evaluate.results import Row, SetFile, is_measure, read_results
from ruac.report.words import PART

SUMMARY = "summary.json"
# what may differ between results that stand side by side: who was measured and with what; everything else is the protocol
WHO = ("weights", "ruac", "methods", "temperatures", "clicks", "noc", "prompts", "suite")
# likewise, but named only by results that have them
OTHERS = ("rivals", "ensemble")
PLAIN, HEAD, ENSEMBLE = "plain", "head", "ensemble"

Histograms = Mapping[tuple[str, str], ErrorHistogram]  # by method and region


@dataclass(frozen=True)
class Run:
    """One result folder. label: short, and different for every run of a report; origin: what made the results, as in the files;
    files: by set, with the rows that the summary is of; groups: of each set of the summary."""

    folder: Path
    label: str
    summary: dict[str, Any]
    origin: dict[str, Any]
    files: dict[str, SetFile]
    groups: dict[str, str]

    @property
    def model(self) -> str:
        return str(self.summary["model"])

    @property
    def clicks(self) -> tuple[int, ...]:
        return tuple(self.origin["clicks"])

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.origin["methods"])

    @property
    def head_trained(self) -> bool | None:
        """None for results from before this was noted."""
        return self.summary.get("head_trained")

    @property
    def max_images(self) -> int | None:
        """So many of each set, the first by name; None for all of them, and for results from before this was noted."""
        return self.summary.get("max_images")

    @property
    def paths(self) -> dict[str, list[str]]:
        """As they were typed, by option; empty for results from before they were noted, and of no command."""
        return self.summary.get("paths") or {}

    @property
    def suite(self) -> str | None:
        """By name. None for a part of it, too: fewer images, or clicks from a file."""
        return None if self.max_images or self.origin["prompts"] else self.origin["suite"]

    @cached_property
    def calibration(self) -> tuple[str, ...]:
        """The names of the sets that the temperatures were fitted on; empty where the folder does not tell."""
        path = self.folder / TEMPERATURES
        try:
            stored = json.loads(path.read_text()) if path.is_file() else {}
            # beside results lies what was fitted last, which may be something else
            own = all(stored.get(key) == self.origin[key] for key in ("weights", "temperatures"))
            return tuple(map(str, stored["sets"])) if own else ()
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            return ()

    @property
    def version(self) -> str:
        return str(self.origin["ruac"])

    @property
    def clicked(self) -> str:
        """Where the clicks came from, in words."""
        file = self.origin["prompts"]
        return f"got the clicks of a file ({file[:12]}…)" if file else "was corrected where it was wrong"

    def histograms(self, part: CommonSet, clicks: int) -> Histograms | None:
        """Of a set; None where the folder has none of just these images: a pool cannot be taken apart."""
        path = self.folder / f"{part.name}.pool.safetensors"
        if not path.is_file():
            return None
        pool = Pool.load(path)
        empty = {row.id for row in self.files[part.name].rows if not row.objects}
        if pool.images - empty != part.ids:
            return None
        return {(method, region): pool.histogram(method, region, clicks) for method in self.methods for region in REGIONS}

    def micro(self, part: CommonSet) -> dict[str, float | None]:
        """Measures of all pixels of a set together, as the summary has them; empty where it counts images that are not shared."""
        own = next(entry for entry in self.summary["sets"] if entry["name"] == part.name)
        return own.get("micro") or {} if own["images"] == part.images else {}


@dataclass(frozen=True)
class Contender:
    """A method as one run measured it. index: the run's place in the report; shown: the method, and what must be known of it; label:
    the same, after the run's where there are several."""

    index: int
    method: str
    shown: str
    label: str


@dataclass(frozen=True)
class CommonSet:
    """A set that every run has. rows: by run, of the same images in the same order, those with an object."""

    name: str
    group: str
    rows: tuple[tuple[Row, ...], ...]

    @cached_property
    def averages(self) -> tuple[tuple[dict[str, float], ...], ...]:
        """Every measure of every image, by run."""
        return tuple(tuple(row.averages() for row in rows) for rows in self.rows)

    @cached_property
    def times(self) -> NDArray[np.int64]:
        """How often each bootstrap draw takes each image, [DRAWS, images]."""
        # asked of the evaluation's own bootstrap, one image at a time being 1, so that intervals here and there are the same
        return np.rint(self.images * bootstrap_means(np.eye(self.images), self.name)).astype(np.int64)

    @property
    def images(self) -> int:
        return len(self.rows[0])

    @property
    def objects(self) -> int:
        return sum(len(row.objects) for row in self.rows[0])

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(row.id for row in self.rows[0])


@dataclass(frozen=True)
class Comparison:
    """What can be compared. clicks: numbers of prompts that all runs measured; notes: what was left out, or differs and must be
    known."""

    runs: tuple[Run, ...]
    contenders: tuple[Contender, ...]
    sets: tuple[CommonSet, ...]
    clicks: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def last(self) -> int:
        return self.clicks[-1]

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(sorted({part.group for part in self.sets}))

    @cached_property
    def histograms(self) -> dict[str, list[Histograms]]:
        """After the last prompts, by set and run; sets where every run has those of the shared images. Files are opened once."""
        found = {}
        for part in self.sets:
            each = [histograms for run in self.runs if (histograms := run.histograms(part, self.last)) is not None]
            if len(each) == len(self.runs):
                found[part.name] = each
        return found

    @property
    def pooled(self) -> tuple[CommonSet, ...]:
        """Sets that have histograms."""
        return tuple(part for part in self.sets if part.name in self.histograms)

    def plain_of(self, contender: Contender) -> Contender | None:
        """What a method is measured against: the same run without a head; None for itself and where it was not measured."""
        if contender.method == PLAIN:
            return None
        return next((other for other in self.contenders if (other.index, other.method) == (contender.index, PLAIN)), None)


def open_runs(folders: Sequence[Path], labels: Sequence[str] = ()) -> tuple[Run, ...]:
    """labels: by default the names of the models or, where those are alike, of the folders.

    Raises FileNotFoundError for a folder that is not there, ValueError for one without results, or with damaged ones.
    """
    if not folders:
        raise ValueError("name at least one folder that `ruac eval` wrote")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("a result folder is named twice")
    summaries = [_summary(folder) for folder in folders]
    labels = labels or _labels(folders, [str(summary["model"]) for summary in summaries])
    return tuple(_run(*each) for each in zip(folders, labels, summaries, strict=True))


def compare(runs: Sequence[Run]) -> Comparison:
    """Raises ValueError when the runs were asked different things, or share no set, no image or no number of clicks."""
    first = runs[0]
    notes = []
    for run in runs[1:]:
        if differences := _differences(first.origin, run.origin):
            raise ValueError(
                f"{first.folder} and {run.folder}: results of different protocols ({'; '.join(differences)}); "
                "report them apart, or evaluate one again with the settings of the other"
            )
        if run.version != first.version:
            notes.append(
                f"{run.label} was measured with ruac {run.version}, {first.label} with {first.version}: "
                "what a measure means may have changed in between."
            )
    if len({run.origin["weights"] for run in runs}) < len(runs):
        notes.append(
            "Some results are of the same weights (see the settings): they differ in how they were measured, not in the model."
        )
    if len({run.clicked for run in runs}) > 1:
        notes.append(
            f"The clicks differ: {'; '.join(f'{run.label} {run.clicked}' for run in runs)}. Own corrections go where that model was "
            "wrong, so these numbers also tell how well the clicks suited it."
        )
    notes += _parts(runs)
    if len({run.origin["noc"] for run in runs} - {None}) > 1:
        notes.append("NoC is not comparable: not all results went on to the same number of clicks.")
    clicks = tuple(sorted(set.intersection(*(set(run.clicks) for run in runs))))
    if not clicks:
        raise ValueError(f"no common number of clicks: {', '.join(f'{run.folder} {list(run.clicks)}' for run in runs)}")
    if any(set(run.clicks) != set(clicks) for run in runs):
        notes.append(f"Only the numbers of clicks that all results have are shown: {', '.join(map(str, clicks))}.")
    sets, left_out = _common_sets(runs)
    contenders = tuple(
        Contender(i, method, shown, shown if len(runs) == 1 else f"{run.label} · {shown}")
        for i, run in enumerate(runs)
        for method, shown in ((method, _shown(run, method)) for method in run.methods)
    )
    return Comparison(tuple(runs), contenders, sets, clicks, (*notes, *left_out))


def _parts(runs: Sequence[Run]) -> list[str]:
    """Which runs took a part of every set only, in words."""
    notes = []
    for number in dict.fromkeys(run.max_images for run in runs if run.max_images):
        whose = [run.label for run in runs if run.max_images == number]
        of = f" by {' and '.join(whose)}" if len(whose) < len(runs) else ""
        images = f"{number} image{'s' * (number > 1)}"
        notes.append(f"Only a part of every set was measured{of}: at most {images}, the first by name. {PART}")
    return notes


def _shown(run: Run, method: str) -> str:
    return f"{method} (untrained: plain entropy)" if method == HEAD and run.head_trained is False else method


def _summary(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of results")
    path = folder / SUMMARY
    if not path.is_file():
        raise ValueError(f"{folder}: no {SUMMARY}, so no finished results; start `ruac eval --out {folder}` (again)")
    try:
        summary = json.loads(path.read_text())
        known = [(part["name"], part["group"], part["images"]) for part in summary["sets"]]
        if not all(list(map(type, part)) == [str, str, int] for part in known):
            raise ValueError("a set whose name and group are no text, or whose images are no number")
        if not isinstance(summary["model"], str) or not isinstance(summary.get("paths") or {}, dict):
            raise ValueError("what was typed is no text")
        pooled = [part.get("micro") or {} for part in summary["sets"]]
        if not all(isinstance(each, dict) and all(map(is_measure, each.values())) for each in pooled):
            raise ValueError("a measure that is no number")
        if not isinstance(summary.get("max_images"), int | None):
            raise ValueError("max_images is no number")
        factors = (summary.get("cost") or {}).get("factors") or {}
        if not all(map(is_measure, factors.values())):
            raise ValueError("a cost that is no number")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not the summary of an evaluation ({error}); evaluate again") from None
    return summary


def _run(folder: Path, label: str, summary: dict[str, Any]) -> Run:
    groups = {part["name"]: part["group"] for part in summary["sets"]}
    images = {part["name"]: part["images"] for part in summary["sets"]}
    files = {}
    for name in groups:
        # a set's name is a file name wherever `ruac eval` wrote it; a changed summary must not lead elsewhere
        if Path(name).name != name:
            raise ValueError(f"{folder / SUMMARY}: the set name {name!r} cannot be a file name")
        path = folder / f"{name}.jsonl"
        if not path.is_file():
            raise ValueError(f"{path}: missing, though {SUMMARY} names the set; evaluate again with --out {folder}")
        files[name] = _summarised(read_results(path), images[name])
    if not files:
        raise ValueError(f"{folder / SUMMARY}: no set in it")
    origin = next(iter(files.values())).origin
    if any(file.origin != origin for file in files.values()):
        raise ValueError(f"{folder}: its sets were measured by different runs; evaluate again into an empty folder")
    if missing := [key for key in WHO if key not in origin]:
        raise ValueError(f"{folder}: results of an older version, which do not say their {missing[0]}; evaluate again")
    kinds = isinstance(origin["clicks"], list) and isinstance(origin["methods"], list) and isinstance(origin["noc"], int | None)
    if not kinds or [type(n) for n in origin["clicks"]] != [int] * len(origin["clicks"]) or not origin["clicks"]:
        raise ValueError(f"{folder}: damaged results, which do not say their clicks and methods; evaluate again")
    names = (*origin["methods"], origin["prompts"], origin["suite"], origin["weights"])
    if not all(isinstance(value, str | None) for value in names):
        raise ValueError(f"{folder}: damaged results, with a method, a file or weights that have no name; evaluate again")
    return Run(folder, label, summary, origin, files, groups)


def _summarised(file: SetFile, images: int) -> SetFile:
    """With the rows of so many images with an object, the first: the others were made for a summary of more images."""
    places = [place for place, row in enumerate(file.rows) if row.objects]
    return replace(file, rows=file.rows[: places[images]]) if images < len(places) else file


def _labels(folders: Sequence[Path], models: Sequence[str]) -> list[str]:
    """The models' names where they tell the runs apart, else those of the folders, else their paths."""
    choices = ([_name(model) for model in models], [folder.resolve().name for folder in folders], map(str, folders))
    return next(labels for labels in map(list, choices) if len(set(labels)) == len(folders))


def _name(model: str) -> str:
    """`ruac train` calls every model "model"; the folder around it tells which one it is."""
    path = Path(model)
    return (path.parent.name if path.name == "model" else path.name) or model


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    keys = dict.fromkeys((*one, *other))
    protocol = [key for key in keys if key not in (*WHO, *OTHERS)]
    return [f"{key}: {one.get(key)} and {other.get(key)}" for key in protocol if one.get(key) != other.get(key)]


def _common_sets(runs: Sequence[Run]) -> tuple[tuple[CommonSet, ...], list[str]]:
    """Sets and images that all runs have, and what had to be left out, in words."""
    names = [name for name in runs[0].files if all(name in run.files for run in runs)]
    if not names:
        raise ValueError(
            "no common set: " + "; ".join(f"{run.folder} has {', '.join(sorted(run.files)[:5])} ..." for run in runs)
        )
    notes = []
    only_some = sorted({name for run in runs for name in run.files} - set(names))
    if only_some:
        notes.append(f"Left out, because not every result has them: {', '.join(only_some)}.")
    sets = []
    for name in names:
        by_run = [{row.id: row for row in run.files[name].rows if row.objects} for run in runs]
        ids = [i for i in by_run[0] if all(i in rows for rows in by_run)]
        fewer = max(len(rows) for rows in by_run) - len(ids)
        if fewer:
            notes.append(f"{name}: left out {fewer} of {max(map(len, by_run))} images, because not every result has them.")
        for i in ids:
            if len({rows[i].objects for rows in by_run}) > 1:
                raise ValueError(
                    f"{name}: the results were measured on different data (image {i} has other objects); evaluate again"
                )
        if ids:
            sets.append(CommonSet(name, runs[0].groups[name], tuple(tuple(rows[i] for i in ids) for rows in by_run)))
    if not sets:
        raise ValueError("no common image: the results share the names of sets, but no image with an object")
    return tuple(sets), notes
