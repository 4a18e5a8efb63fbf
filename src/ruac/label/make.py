"""One image: from the file to what is kept of it. Whatever works on many images calls this for each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ruac.calibrate.bounds import Guarantee, bounds
from ruac.calibrate.shift import Traits
from ruac.data.image import ImageError, read_image
from ruac.errors import name_problem
from ruac.everything import Search, Window, generate
from ruac.label.coco import index_png
from ruac.label.likeness import drawn
from ruac.label.measure import measure
from ruac.label.part import Label, Part, key_of
from ruac.label.prompts import NAMELESS, Category, Task
from ruac.label.store import read_from_store
from ruac.predictor import Prediction, Predictor, Prompt

EVERYTHING = Category(1, NAMELESS)  # what is found without being asked for


@dataclass(frozen=True)
class Job:
    """An image to label. name: of its results."""

    name: str
    task: Task


@dataclass(frozen=True)
class Made:
    """What becomes of the job of that name. part: and the content of its mask file, or None and a line that says why."""

    name: str
    part: Part | None = None
    mask: bytes = b""
    failed: str = ""


@dataclass(frozen=True)
class Maker:
    """search: how to look for everything, None where prompts say what is wanted."""

    predictor: Predictor
    search: Search | None
    guarantee: Guarantee | None

    def make(self, job: Job) -> Made:
        """Never raises for what is wrong with one image."""
        place, name = job.task.image.place, job.task.image.name
        if problem := name_problem(name):
            return Made(job.name, failed=problem)
        try:
            part = self._part(job)
            return Made(job.name, part, index_png(part))
        except ImageError as error:
            return Made(job.name, failed=str(error))
        except ValueError as error:
            return Made(job.name, failed=f"{place}: {error}")
        except OSError as error:
            return Made(job.name, failed=f"{error.filename or place}: {error.strerror or error}")

    def _part(self, job: Job) -> Part:
        task = job.task
        place = task.image.place
        image = read_from_store(place) if isinstance(place, str) else read_image(place)
        key = key_of(task.image, task.wanted)
        if self.search:
            traits = self.guarantee and Traits.of(image, None)
            labels = tuple(self._searched(image, self.search))
        else:
            answers = self._ask(image, task)
            traits = self.guarantee and _traits(image, answers, task, self.guarantee)
            labels = tuple(self._measured(image, answers, task))
        return Part(job.name, key, task.image.name, image.shape[0], image.shape[1], labels, traits)

    def _ask(self, image: NDArray[np.uint8], task: Task) -> deque[Prediction]:
        """An answer for every object. Raises ValueError where the prompts do not fit the image."""
        size = image.shape[0], image.shape[1]
        if task.size is not None and task.size != size:
            raise ValueError(f"has {size[1]} x {size[0]} pixels, but {task.size[1]} x {task.size[0]} in the file of the prompts")
        wanted = [told.fit(size) for told in task.wanted]
        self.predictor.set_image(image)
        return deque(self.predictor.predict_many([Prompt.of(told.points, told.box) for told in wanted]))

    def _measured(self, image: NDArray[np.uint8], answers: deque[Prediction], task: Task) -> Iterator[Label]:
        """Empties the answers, so that the maps of one object at a time are held."""
        window, guarantee = Window.whole((image.shape[0], image.shape[1])), self.guarantee
        for told in task.wanted:
            answer = answers.popleft()
            around = guarantee and bounds(answer, guarantee, guarantee.asked_alike(told.points, told.box))
            yield measure(image, answer, window, told.category, around)

    def _searched(self, image: NDArray[np.uint8], search: Search) -> Iterator[Label]:
        """No calibration asks for objects like that."""
        segments = deque(generate(self.predictor, image, search))
        while segments:
            segment = segments.popleft()
            around = self.guarantee and bounds(segment.prediction, self.guarantee, asked_alike=False)
            yield measure(segment.window.cut(image), segment.prediction, segment.window, EVERYTHING.id, around)


def _traits(image: NDArray[np.uint8], answers: Sequence[Prediction], task: Task, guarantee: Guarantee) -> Traits:
    i = drawn(guarantee.calibration.policy, task)
    return guarantee.traits_of(image, answers[i], task.wanted[i].points, task.wanted[i].box)
