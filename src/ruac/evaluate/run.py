"""An evaluation from sets to summary: what is done by one process, and what by several."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ruac.data.folder import FolderSet, Sample
from ruac.evaluate.baselines import Temperatures
from ruac.evaluate.clickfile import ClickFile
from ruac.evaluate.cost import cost
from ruac.evaluate.groups import group_of
from ruac.evaluate.pool import Pool
from ruac.evaluate.protocol import DEFAULT, ImageResult, LabelledImage, Protocol, evaluate_image, read
from ruac.evaluate.question import Method
from ruac.evaluate.results import Origin, ResultsFile, Row, read_results, write_text
from ruac.evaluate.shards import Crew, main_path, open_whole, part_path
from ruac.evaluate.summary import Cost, SetResults, Summary, summarise
from ruac.evaluate.table import markdown
from ruac.machine import describe_machine
from ruac.model import RuacModel


@dataclass(frozen=True)
class Study:
    """What is compared. methods: by name; prompts: said in place of the annotator's own clicks; temperatures: those that the methods
    were made with; suite: its name; rivals, ensemble: sha256 of what fitted methods and an ensemble were made of, see `Origin`; paths:
    see `Summary`."""

    methods: Mapping[str, Method] = field(default_factory=lambda: dict(DEFAULT))
    prompts: ClickFile | None = None
    temperatures: Temperatures | None = None
    suite: str | None = None
    rivals: Mapping[str, str] | None = None
    ensemble: tuple[str, ...] | None = None
    paths: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def origin(self, model: RuacModel, protocol: Protocol) -> Origin:
        """What results of this study say they were made by."""
        prompts = self.prompts.sha256 if self.prompts else None
        names = ("suite", "temperatures", "rivals", "ensemble")
        others = {name: getattr(self, name) for name in names}
        return Origin.of(model, protocol, methods=tuple(self.methods), prompts=prompts, **others)

    def evaluate(self, model: RuacModel, set_name: str, labelled: LabelledImage, protocol: Protocol) -> ImageResult:
        """One image. Raises ValueError where the prompts of the file do not fit it."""
        given = self.prompts.words(set_name, labelled) if self.prompts else None
        return evaluate_image(model, labelled, protocol, self.methods, given)


def evaluate_sets(
    model: RuacModel,
    sets: Sequence[FolderSet],
    out: Path,
    protocol: Protocol,
    max_images: int | None = None,
    name: str = "model",
    study: Study | None = None,
) -> Summary:
    """What `ruac eval` does, with a model and sets at hand; `name` is what the summary calls the model.

    Images that cannot be read are left out and listed in the summary. Raises ValueError for results of another run in `out`.
    """
    study = study or Study()
    origin = study.origin(model, protocol)
    chosen = _chosen(sets, max_images)
    out.mkdir(parents=True, exist_ok=True)
    # all files first: a run that may not go on should say so before it works for hours
    files = [open_whole(out, part.name, origin) for part in sets]
    results = []
    with _progress(sum(map(len, chosen))) as step:
        for part, file, samples in zip(sets, files, chosen, strict=True):
            failed = _fill(file, step(part.name, samples), model, protocol, study)
            file.arrange(sample.id for sample in part.samples)
            ids = [sample.id for sample in samples if sample.id in file.ids]
            # of exactly these images, which are fewer than before when max_images is lower
            pool = file.pool if file.pool.images == frozenset(ids) else None
            results.append(SetResults(part.name, group_of(part.name, part.meta), file.pick(ids), failed, pool))
    summary = summarise(name, origin, results, _cost(out, origin, model, chosen, study))
    # beside the origin and not in it: the hash of the weights tells heads apart already, and more images of the same sets may be
    # added to results, from wherever the data lies then
    summary = replace(summary, head_trained=model.config.head_trained, max_images=max_images, paths=study.paths)
    write_text(out / "summary.json", summary.to_json())
    write_text(out / "summary.md", markdown(summary))
    return summary


def evaluate_share(
    model: RuacModel,
    sets: Sequence[FolderSet],
    out: Path,
    protocol: Protocol,
    max_images: int | None,
    study: Study,
    crew: Crew,
) -> None:
    """This process's share of what is left of every set, into part files. `evaluate_sets` takes them over, and makes what is missing.

    Images that cannot be read are left for that. Raises ValueError for results of another run in `out`.
    """
    origin = study.origin(model, protocol)
    chosen = _chosen(sets, max_images)
    out.mkdir(parents=True, exist_ok=True)
    if crew.first:
        for part in sets:
            open_whole(out, part.name, origin)
    crew.wait()
    left = []
    for part, samples in zip(sets, chosen, strict=True):
        done = {row.id for row in read_results(main_path(out, part.name)).rows}
        left.append([sample for sample in samples if sample.id not in done][crew.rank :: crew.size])
    with _progress(sum(map(len, left)), shown=crew.first) as step:
        for part, samples in zip(sets, left, strict=True):
            file = ResultsFile(part_path(out, part.name, crew.rank), part.name, origin)
            _fill(file, step(part.name, samples), model, protocol, study)
    crew.wait()


def _fill(file: ResultsFile, samples: Iterable[Sample], model: RuacModel, protocol: Protocol, study: Study) -> tuple[str, ...]:
    """Make the rows that are missing; a line for every image that cannot be read."""
    failed = []
    try:
        for sample in samples:
            if sample.id in file.ids:
                continue
            try:
                labelled = read(sample)
            except ValueError as error:
                failed.append(str(error))
            else:
                result = study.evaluate(model, file.name, labelled, protocol)
                pool = Pool.of(result)
                file.add(Row.of(result, pool), pool)
    finally:
        file.save_pool()
    return tuple(failed)


def _chosen(sets: Sequence[FolderSet], max_images: int | None) -> list[tuple[Sample, ...]]:
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1, not {max_images}")
    return [part.samples[:max_images] for part in sets]


def _cost(out: Path, origin: Origin, model: RuacModel, chosen: Sequence[Sequence[Sample]], study: Study) -> Cost | None:
    """Measured once: of a summary that is there, and whole, it is kept. None when no image can be read."""
    file = out / "summary.json"
    try:
        stored: dict[str, Any] = dict(json.loads(file.read_text())) if file.exists() else {}
        if stored.get("cost") and not origin.differences(dict(stored.get("origin") or {})):
            return Cost(**stored["cost"])
    except (ValueError, TypeError, RecursionError):
        pass  # a damaged one, which is written anew in a moment
    for sample in (sample for samples in chosen for sample in samples):
        try:
            image = read(sample).image
        except ValueError:  # it is listed among the failures already
            continue
        return Cost(describe_machine(), cost(study.methods, model, image, origin.clicks[-1]))
    return None


Step = Callable[[str, Sequence[Sample]], Iterator[Sample]]


@contextmanager
def _progress(total: int, shown: bool = True) -> Iterator[Step]:
    """Gives what goes through the samples of a set and counts them."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task("evaluating", total=total)

        def step(name: str, samples: Sequence[Sample]) -> Iterator[Sample]:
            progress.update(task, description=name)
            for sample in samples:
                yield sample
                progress.advance(task)

        yield step
