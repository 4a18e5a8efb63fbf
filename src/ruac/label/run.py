"""All images that are not done yet, through one of the engines; what comes out of it is kept at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as ProgressTask
from rich.text import Text

from ruac.label.make import Job, Made
from ruac.label.part import Folder, Part, key_of
from ruac.writing import write_whole

Engine = Callable[[Sequence[Job]], Iterator[Made]]  # each job once, in any order


def label_images(engine: Engine, jobs: Sequence[Job], folder: Folder) -> list[str]:
    """Make the parts that are missing. Returns a line for every image that failed, in the order of the jobs.

    Raises ValueError when a part is damaged.
    """
    failed: dict[str, str] = {}
    left = [job for job in jobs if part_of(job, folder) is None]
    console = Console(stderr=True)
    columns = (TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("labelling", total=len(left))
        for made in engine(left) if left else ():
            try:
                if made.part is None:
                    failed[made.name] = made.failed
                else:
                    # the mask first, so that a part means that all is there
                    write_whole(folder.mask_path(made.name), made.mask)
                    folder.save(made.part)
            except OSError as error:
                failed[made.name] = f"{error.filename or folder.out}: {error.strerror or error}"
            progress.advance(bar)
    return [failed[job.name] for job in left if job.name in failed]


def part_of(job: Job, folder: Folder) -> Part | None:
    """What is done of just this image file and these prompts, if it is. Raises ValueError when the part is damaged."""
    part = folder.load(job.name)
    try:
        return part if part is not None and part.key == key_of(job.task.image, job.task.wanted) else None
    except OSError:  # the image is no longer there
        return None


class _Rate(ProgressColumn):
    """How fast it goes."""

    def render(self, task: ProgressTask) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s")
