"""A head for a Segment Anything model, from labelled pictures to a report: what `ruac train --method head` does."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ruac.adapter import save_head
from ruac.data.folder import find_sets
from ruac.heads import ExactHead, make_head
from ruac.loading import load
from ruac.machine import describe_machine
from ruac.model import RuacModel
from ruac.training import fit as fitting
from ruac.training.answers import AnswerFiles
from ruac.training.before_after import PROTOCOL, BeforeAfter, as_json, compare, evaluate_after, evaluate_before, grid
from ruac.training.embeddings import encoded_once
from ruac.training.fit import FitConfig, StateFile
from ruac.training.prepare import Folders, Prepared, Room, prepare, size
from ruac.training.split import FEW, Split, split
from ruac.writing import only_writer, write_whole

HEAD, STATE, REPORT_JSON, REPORT_MD = "head.safetensors", "fit.safetensors", "report.json", "report.md"


@dataclass(frozen=True)
class HeadRun:
    """What is to be done. model: its name, as the user gave it; max_images: of each set; keep_cache: leave out/cache where it is."""

    data: Sequence[Path]
    out: Path
    model: str
    config: FitConfig
    max_images: int | None = None
    device: str = "cpu"
    keep_cache: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of it, all that the report says."""

    run: HeadRun
    parts: Split
    prepared: Prepared
    progress: fitting.Progress
    found: BeforeAfter

    @property
    def failed(self) -> tuple[str, ...]:
        return self.prepared.failed + self.found.failed


def run_head(run: HeadRun, console: Console) -> tuple[str, ...]:
    """Fit and report; resumable. Returns a line for every picture that could not be read.

    Raises ValueError and FileNotFoundError as `ruac train --method head` does, ValueError when somebody else writes to its folder.
    """
    parts = split(find_sets(run.data), run.max_images)
    model = open_for_fitting(run.model, run.device, run.config.seed)
    stage = run.config.stage
    folders = Folders.of(run.out / "cache", model, stage.objects, run.config.seed)
    files = AnswerFiles(folders.answers, model, stage.objects, run.config.seed)
    state = StateFile(run.out / STATE, run.config.fingerprint(files.key, parts.fitted, parts.watched))
    if state.progress().finished and all((run.out / name).is_file() for name in (HEAD, REPORT_JSON, REPORT_MD)):
        console.print(f"{run.out} is finished already.\n\n{(run.out / REPORT_MD).read_text()}", markup=False)
        return ()
    if len(parts.fitted) < FEW:
        console.print(f"Warning: only {len(parts.fitted)} pictures to fit on; expect little of it, 50 to 500 are good to have.")
    with only_writer(run.out):
        folders.clean()
        results = run.out / "evaluation" / "before", run.out / "evaluation" / "after"
        with encoded_once(model, folders.embeddings):
            prepared = _prepare(model, parts, files, folders, console)
            before = evaluate_before(model, parts.held_out, results[0])
            progress = _fit(model, parts, prepared, files, run.config, state, console)
            save_head(model, run.out / HEAD)
            found = compare(before, evaluate_after(model, parts.held_out, results[1]), results)
        outcome = Outcome(run, parts, prepared, progress, found)
        write_whole(run.out / REPORT_JSON, as_json(found, describe(outcome)).encode())
        write_whole(run.out / REPORT_MD, report(outcome).encode())
        if not run.keep_cache:
            shutil.rmtree(folders.cache)
        _show(outcome, console)
    return outcome.failed


def open_for_fitting(name: str, device: str, seed: int) -> RuacModel:
    """A model with an exact head: its own where that is trained, else one at its start, a function of the seed.

    Raises ValueError for a trained head of another kind, else as `load`.
    """
    # that the head is not trained yet is why we are here
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        model = load(name, device)
    if model.config.head == "paper":
        raise ValueError(
            f"--model {name}: its head is of the kind 'paper', which makes masks of its own and is trained with them; "
            "train it with a recipe, or start from the Segment Anything model that it was made for"
        )
    if not (isinstance(model.head, ExactHead) and model.config.head_trained):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.head = make_head("exact", model.family.channels, model.family.token_width).to(device)
        model.config.head, model.config.head_trained = "exact", False
    return model.eval().requires_grad_(False)


def describe(outcome: Outcome) -> dict[str, Any]:
    """For report.json: how the head was made."""
    run, parts = outcome.run, outcome.parts
    return {
        "model": run.model,
        "data": [str(path) for path in run.data],
        "machine": describe_machine(),
        "settings": asdict(run.config),
        "pictures": {
            "fitted": sum(picture.name in outcome.prepared.usable for picture in parts.fitted),
            "watched": sum(picture.name in outcome.prepared.usable for picture in parts.watched),
            "held_out": parts.reported,
            "without_object": outcome.prepared.empty,
            "unreadable": list(outcome.failed),
        },
        "fit": asdict(outcome.progress),
    }


def report(outcome: Outcome) -> str:
    """report.md"""
    run, found, progress = outcome.run, outcome.found, outcome.progress
    pictures = describe(outcome)["pictures"]
    notes = [
        f"Fitted on {pictures['fitted']} pictures; {pictures['watched']} more said when to stop, at step {progress.best_step} of "
        f"{progress.step}: there the labels' negative log-likelihood was {progress.nll:.4f} nats, by the plain logits "
        f"{progress.plain_nll:.4f}. None of them is held out.",
        "Clicks are those of `ruac eval`: the first at the centre of the object, each further one where the mask is most wrong. "
        "In brackets: 95 % bootstrap intervals over pictures.",
        mask_note(found),
        f"Use it: `{usage(run)}`",
    ]
    unreadable = (
        ["Left out, because they cannot be read:\n\n" + "\n".join(f"- {line}" for line in outcome.failed)]
        if outcome.failed
        else []
    )
    parts = [f"# A head for {run.model}", found.verdict(), grid(found, PROTOCOL.clicks).to_markdown(), *notes, *unreadable]
    return "\n\n".join(parts) + "\n"


def mask_note(found: BeforeAfter) -> str:
    """What became of the masks."""
    largest = max(mask.largest for mask in found.masks)
    if largest == 0:
        return "No mask changed."
    mean = max(abs(mask.difference.mean) for mask in found.masks)
    return f"Masks changed: J&F by {100 * mean:.2f} points on average, by {100 * largest:.2f} at most."


def usage(run: HeadRun) -> str:
    return f"ruac predict photo.jpg --point 320,240 --model {run.model} --head {run.out / HEAD}"


def _prepare(model: RuacModel, parts: Split, files: AnswerFiles, folders: Folders, console: Console) -> Prepared:
    """Raises ValueError when nothing is left to fit on or to watch."""
    pictures = [*parts.watched, *parts.fitted]

    def announce(room: Room) -> None:
        console.print(
            f"{len(pictures) + parts.reported} pictures take {size(room.needed)} more in {folders.cache}: {size(room.embedding)} each "
            f"when encoded, {size(room.answers)} each for the answers to fit on. {size(room.free)} are free."
        )

    with _progress("encoding and clicking", len(pictures)) as tell:
        prepared = prepare(model, pictures, parts.reported, files, folders.embeddings, announce, tell)
    for kind, part in (("fit on", parts.fitted), ("watch", parts.watched)):
        if not any(picture.name in prepared.usable for picture in part):
            why = f"{prepared.empty} have no object, {len(prepared.failed)} cannot be read"
            first = f" ({prepared.failed[0]})" if prepared.failed else ""
            raise ValueError(f"--data: of {len(part)} pictures to {kind} none can be used: {why}{first}; see `ruac data check`")
    return prepared


def _fit(
    model: RuacModel, parts: Split, prepared: Prepared, files: AnswerFiles, config: FitConfig, state: StateFile, console: Console
) -> fitting.Progress:
    fitted, watched = ([picture for picture in part if picture.name in prepared.usable] for part in (parts.fitted, parts.watched))
    with _progress("fitting", config.stage.steps, state.progress().step) as tell:
        progress = fitting.fit(cast(ExactHead, model.head), files, fitted, watched, config, state, tell)
    model.config.head_trained = True
    return progress


def _show(outcome: Outcome, console: Console) -> None:
    run, found = outcome.run, outcome.found
    console.print(grid(found, PROTOCOL.clicks[-1:]).to_rich())
    for line in (found.verdict(), mask_note(found), f"All figures: {run.out / REPORT_MD}", f"Use it: {usage(run)}"):
        console.print(line, markup=False)


@contextmanager
def _progress(what: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """A bar with the time left; what it gives is called after each of `total`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda *_: progress.advance(task)
