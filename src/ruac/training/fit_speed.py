"""What it saves to make the answers once: a fitting step on answers from disk, and one whose pictures are encoded and asked anew."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ruac.data.folder import Sample
from ruac.evaluate.protocol import read
from ruac.heads import ExactHead
from ruac.model import RuacModel
from ruac.training.answers import AnswerFiles, Answers, Picture, make_answers, picture_seed
from ruac.training.fit import FitConfig, fitting_step, make_optimizer


@dataclass(frozen=True)
class StepTimes:
    """Median seconds of a step on `images` pictures with two answers about each of `objects` objects; side: of the network input."""

    cached: float
    uncached: float
    images: int
    objects: int
    side: int


def step_times(model: RuacModel, samples: Sequence[Sample], folder: Path, rounds: int = 5) -> StepTimes:
    """Both kinds of step in turn, on the same pictures, the first `FitConfig.stage.images` that have an object.

    folder: for the answers. The model must have an exact head, which is fitted in place. Raises ValueError for too few pictures.
    """
    config = FitConfig()
    stage, head = config.stage, cast(ExactHead, model.head)
    model.eval().requires_grad_(False)
    files, optimizer = AnswerFiles(folder, model, stage.objects, config.seed), make_optimizer(head, config)

    def made(picture: Picture) -> Answers | None:
        return make_answers(model, read(picture.sample), stage.objects, picture_seed(config.seed, picture))

    chosen: list[Picture] = []
    for sample in samples:
        picture = Picture.of("timed", sample)
        answers = made(picture) if len(chosen) < stage.images else None
        if answers is not None:
            files.write(picture, answers)
            chosen.append(picture)
    if len(chosen) < stage.images:
        raise ValueError(f"{len(chosen)} of {len(samples)} pictures have an object; a step takes {stage.images}")
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for step in range(rounds + 1):
        for cached, times in seconds.items():
            start = time.perf_counter()
            batch = [answers for answers in map(files.read if cached else made, chosen) if answers is not None]
            fitting_step(head, optimizer, Answers.together(batch), step, config)
            if step:  # the first warms up
                times.append(time.perf_counter() - start)
    return StepTimes(statistics.median(seconds[True]), statistics.median(seconds[False]), stage.images, stage.objects, model.side)
