"""All images, one after the other: the next ones are read while the model works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as ProgressTask
from rich.text import Text

from ruac.calibrate.bounds import Guarantee, bounds
from ruac.calibrate.shift import Traits
from ruac.data.image import ImageError, read_image
from ruac.everything import Search, Window, generate
from ruac.label.coco import index_png
from ruac.label.likeness import drawn
from ruac.label.measure import measure
from ruac.label.part import Folder, Label, Part, key_of
from ruac.label.prompts import NAMELESS, Category, Task
from ruac.predictor import Prediction, Predictor, Prompt
from ruac.writing import write_whole

AHEAD = 2  # images that are read and wait
EVERYTHING = Category(1, NAMELESS)  # what is found without being asked for


@dataclass(frozen=True)
class Job:
    """An image to label. name: of its results."""

    name: str
    task: Task


def label_images(
    predictor: Predictor, jobs: Sequence[Job], folder: Folder, search: Search | None, guarantee: Guarantee | None
) -> list[str]:
    """Make the parts that are missing. search: how to look for everything, None where prompts say what is wanted.

    Returns a line for every image that failed. Raises ValueError when a part is damaged.
    """
    failed: list[str] = []
    left = [job for job in jobs if part_of(job, folder) is None]
    console = Console(stderr=True)
    columns = (TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("labelling", total=len(left))
        for job, picture in _read_ahead(left):
            try:
                _label_one(predictor, job, picture.result(), folder, search, guarantee)
            except ImageError as error:
                failed.append(str(error))
            except ValueError as error:
                failed.append(f"{job.task.image.path}: {error}")
            except OSError as error:
                failed.append(f"{error.filename or job.task.image.path}: {error.strerror or error}")
            progress.advance(bar)
    return failed


def part_of(job: Job, folder: Folder) -> Part | None:
    """What is done of just this image file and these prompts, if it is. Raises ValueError when the part is damaged."""
    if not job.task.image.path.is_file():
        return None
    part = folder.load(job.name)
    return part if part is not None and part.key == key_of(job.task.image, job.task.wanted) else None


def _read_ahead(jobs: Sequence[Job]) -> Iterator[tuple[Job, Future[NDArray[np.uint8]]]]:
    """The jobs, each with its picture; a thread reads AHEAD of what is asked for, so that so many are held."""
    pool = ThreadPoolExecutor(1, "reader")
    waiting: deque[tuple[Job, Future[NDArray[np.uint8]]]] = deque()
    try:
        for job in jobs:
            waiting.append((job, pool.submit(read_image, job.task.image.path)))
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def _label_one(
    predictor: Predictor,
    job: Job,
    image: NDArray[np.uint8],
    folder: Folder,
    search: Search | None,
    guarantee: Guarantee | None,
) -> None:
    """The part of an image; its mask file first, so that a part means that all is there."""
    size = image.shape[0], image.shape[1]
    key = key_of(job.task.image, job.task.wanted)
    if search:
        traits = guarantee and Traits.of(image, None)
        labels = tuple(_searched(predictor, image, search, guarantee))
    else:
        answers = _ask(predictor, image, job.task)
        traits = guarantee and _traits(image, answers, job.task, guarantee)
        labels = tuple(_measured(image, answers, job.task, guarantee))
    part = Part(job.name, key, job.task.image.name, *size, labels, traits)
    write_whole(folder.mask_path(job.name), index_png(part))
    folder.save(part)


def _ask(predictor: Predictor, image: NDArray[np.uint8], task: Task) -> deque[Prediction]:
    """An answer for every object. Raises ValueError where the prompts do not fit the image."""
    size = image.shape[0], image.shape[1]
    if task.size is not None and task.size != size:
        raise ValueError(f"has {size[1]} x {size[0]} pixels, but {task.size[1]} x {task.size[0]} in the file of the prompts")
    wanted = [told.fit(size) for told in task.wanted]
    predictor.set_image(image)
    return deque(predictor.predict_many([Prompt.of(told.points, told.box) for told in wanted]))


def _traits(image: NDArray[np.uint8], answers: Sequence[Prediction], task: Task, guarantee: Guarantee) -> Traits:
    i = drawn(guarantee.calibration.policy, task)
    return guarantee.traits_of(image, answers[i], task.wanted[i].points, task.wanted[i].box)


def _measured(image: NDArray[np.uint8], answers: deque[Prediction], task: Task, guarantee: Guarantee | None) -> Iterator[Label]:
    """Empties the answers, so that the maps of one object at a time are held."""
    window = Window.whole((image.shape[0], image.shape[1]))
    for told in task.wanted:
        answer = answers.popleft()
        around = guarantee and bounds(answer, guarantee, guarantee.asked_alike(told.points, told.box))
        yield measure(image, answer, window, told.category, around)


def _searched(predictor: Predictor, image: NDArray[np.uint8], search: Search, guarantee: Guarantee | None) -> Iterator[Label]:
    """No calibration asks for objects like that."""
    segments = deque(generate(predictor, image, search))
    while segments:
        segment = segments.popleft()
        around = guarantee and bounds(segment.prediction, guarantee, asked_alike=False)
        yield measure(segment.window.cut(image), segment.prediction, segment.window, EVERYTHING.id, around)


class _Rate(ProgressColumn):
    """How fast it goes."""

    def render(self, task: ProgressTask) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s")
