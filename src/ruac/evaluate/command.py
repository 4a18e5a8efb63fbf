"""`ruac eval`: a model on data sets, click by click, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ruac.data.folder import FolderSet, find_sets
from ruac.errors import WorkError
from ruac.evaluate.groups import group_of
from ruac.evaluate.protocol import Protocol, evaluate_image, read
from ruac.evaluate.results import Origin, ResultsFile, Row, write_text
from ruac.evaluate.summary import SetResults, Summary, summarise
from ruac.evaluate.table import markdown, overview
from ruac.loading import load
from ruac.model import RuacModel


def evaluate(
    data: list[Path],
    model: str = "nano",
    clicks: str = "1,3,5",
    max_objects: int = 10,
    out: Path = Path("runs/eval"),
    max_images: int | None = None,
    seed: int = 0,
    prompt: Literal["point", "box"] = "point",
    head: Path | None = None,
    device: str = "cpu",
) -> None:
    """Measure a model's masks and its uncertainty on labelled data.

    A simulated annotator clicks on every object and corrects the model's mask. Writes <out>/<set>.jsonl (a line an image),
    summary.json and summary.md. A run that was stopped goes on where it was when started again.

    Example: ruac eval --data data/eval --model nano --clicks 1,3,5 --out runs/eval

    Args:
        data: Data sets (folders with images/ and masks/), or folders of them.
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM, or a file of original SAM 2 weights.
        clicks: After how many prompts to measure.
        max_objects: Objects an image, at most.
        out: Where the results go.
        max_images: Only so many images of each set, the first by name.
        seed: Chooses the objects where there are more than max_objects.
        prompt: The first prompt: a click at the centre of the object, or its bounding box.
        head: A head trained for that model, as a file.
        device: cpu, cuda, mps ...

    Raises:
        ValueError: For settings that make no sense, and results of another run in out.
        FileNotFoundError: When there is no data or no model.
        WorkError: At the end, when there were images that could not be read.
    """
    protocol = Protocol(parse_clicks(clicks), max_objects, seed, prompt)
    sets = find_sets(data)
    summary = evaluate_sets(load(model, device, head=head), sets, out, protocol, max_images, name=model)
    console = Console()
    console.print(overview(summary).to_rich())
    console.print(f"Results: {out / 'summary.md'}, summary.json and a .jsonl file a set", soft_wrap=True)
    if summary.failed:
        raise WorkError("\n".join([f"{len(summary.failed)} images could not be read:", *summary.failed]))


def evaluate_sets(
    model: RuacModel,
    sets: Sequence[FolderSet],
    out: Path,
    protocol: Protocol,
    max_images: int | None = None,
    name: str = "model",
) -> Summary:
    """What `evaluate` does, with a model and sets at hand; `name` is what the summary calls the model.

    Images that cannot be read are left out and listed in the summary. Raises ValueError for results of another run in `out`.
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1, not {max_images}")
    out.mkdir(parents=True, exist_ok=True)
    origin = Origin.of(model, protocol)
    # all files first: a run that may not go on should say so before it works for hours
    files = [ResultsFile(out / f"{part.name}.jsonl", part.name, origin) for part in sets]
    results = []
    with _progress() as progress:
        task = progress.add_task("evaluating", total=sum(len(part.samples[:max_images]) for part in sets))
        for part, file in zip(sets, files, strict=True):
            progress.update(task, description=part.name)
            samples, failed = part.samples[:max_images], []
            for sample in samples:
                if sample.id not in file.rows:
                    try:
                        labelled = read(sample)
                    except ValueError as error:
                        failed.append(str(error))
                    else:
                        file.add(Row.of(evaluate_image(model, labelled, protocol)))
                progress.advance(task)
            rows = file.pick(sample.id for sample in samples)
            results.append(SetResults(part.name, group_of(part.name, part.meta), rows, tuple(failed)))
    summary = summarise(name, origin, results)
    write_text(out / "summary.json", summary.to_json())
    write_text(out / "summary.md", markdown(summary))
    return summary


def parse_clicks(text: str) -> tuple[int, ...]:
    """ "1,3,5" as numbers. Raises ValueError for anything else."""
    try:
        return tuple(int(n) for n in str(text).split(","))
    except ValueError:
        raise ValueError(f"clicks must be numbers with commas between them, such as 1,3,5, not {text!r}") from None


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
