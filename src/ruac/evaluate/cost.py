"""What an uncertainty method costs, next to a plain click."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ruac.evaluate.averaging import at_original, plain_logits
from ruac.evaluate.conversation import ask, look_at
from ruac.evaluate.question import Method, Picture
from ruac.features import FOREGROUND, Prompts
from ruac.model import RuacModel, chosen_token

ROUNDS = 3


@torch.inference_mode()
def cost(methods: Mapping[str, Method], model: RuacModel, image: NDArray[np.uint8], clicks: int = 5) -> dict[str, float]:
    """Time of a click with each method, as a multiple of the time of a click without any.

    A click without any is the decoding of one clicked object and the logits of the returned mask at the image's own resolution, no
    head; the encoding of the picture is not part of it. A method's own work comes on top, so that 1 is for nothing; what it does
    once a picture is shared by `clicks` of them. The head's work is that of the method "head" alone, although the masks that all
    methods judge come from it.

    image: RGB [height, width, 3]. Medians of ROUNDS rounds in which everything takes its turn.
    """
    picture = look_at(model, image)
    frame, prompts = picture.frame, _click_in_the_middle(picture)
    question = ask(picture, prompts)

    def plain_click() -> Tensor:
        decoded = model.decode(picture.features, prompts)
        token = chosen_token(decoded, prompts, model.stability)[..., 0]
        return at_original(plain_logits(decoded, token), frame, model.side)

    jobs: dict[str, Callable[[], object]] = {"plain click": plain_click}
    jobs["its head"] = lambda: model(question.decoded.select(question.token[..., None])).resize(frame, model.side)
    for name, method in methods.items():
        reading = method(picture)
        jobs[f"{name}, once"] = lambda method=method: method(picture)
        jobs[f"{name}, every click"] = lambda reading=reading: reading(question)
    seconds = _medians(jobs, model.device)
    own = {name: seconds[f"{name}, once"] / clicks + seconds[f"{name}, every click"] for name in methods}
    if "head" in own:
        own["head"] += seconds["its head"]
    return {name: 1 + extra / seconds["plain click"] for name, extra in own.items()}


def _click_in_the_middle(picture: Picture) -> Prompts:
    """On whatever is there: the time does not depend on it."""
    rows, columns = picture.frame.inside
    points = torch.tensor([columns / 2, rows / 2], device=picture.image.device)
    return Prompts(points[None, None, None], torch.full((1, 1, 1), FOREGROUND, device=points.device))


def _medians(jobs: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Seconds that each takes."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            _wait(device)
            start = time.perf_counter()
            job()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: median(taken) for name, taken in seconds.items()}


def _wait(device: torch.device) -> None:
    """An accelerator works on after its calls have returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
