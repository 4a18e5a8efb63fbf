"""What every tracker can do: take words about objects on any frame, go one frame further, and be put down and taken up again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ruac.distribution import MaskDistribution
from ruac.features import Frame
from ruac.predictor import Prediction, Prompt
from ruac.quality.expected import Quality
from ruac.regions import Mask
from ruac.video.frames import Frames
from ruac.video.trust import Signs

GIVEN_LOGIT = 10.0  # of a mask that a person has drawn, as SAM 2 has it


class Tracker(Protocol):
    """Objects have numbers of the caller's choice; a frame is named by its place in the video, from 0.

    signs: by object, of the frame returned last, whether its mask is still that of the object. Nothing of an object that was told
    there, and of models with a memory, whose trained object score says as much.
    """

    signs: dict[int, Signs]

    @property
    def objects(self) -> tuple[int, ...]:
        """Those that something has been said about, in the order of the first word."""
        ...

    def tell(self, frames: Frames, frame: int, number: int, said: Prompt | Mask) -> dict[int, Prediction]:
        """Words about an object, or its mask [height, width], on a frame, in place of any before. Returns all objects there."""
        ...

    def step(self, frames: Frames, frame: int, reverse: bool) -> dict[int, Prediction]:
        """All objects on a frame, by number; reverse: the way goes back in time. What was told on the frame stands."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that later frames depend on: tensors, and what JSON can hold."""
        ...

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on, in a new tracker, from what `state` gave."""
        ...


def check_mask(mask: Mask, size: tuple[int, int]) -> None:
    """Raises ValueError unless the mask is boolean, of the frame's size and not empty."""
    if mask.dtype != np.bool_ or mask.shape != size:
        raise ValueError(f"a mask must be boolean [{size[0]}, {size[1]}], got {mask.dtype} {list(mask.shape)}")
    if not mask.any():
        raise ValueError("an empty mask says nothing about an object")


def given(logits: Tensor, where: Frame, side: int, quality: Quality | None) -> Prediction:
    """A mask that a person has drawn, as logits [H, W] on the decoder's grid: taken as it is, and sure."""
    mean = logits.float().cpu()[None]
    certain = MaskDistribution(mean, torch.zeros_like(mean))
    return Prediction(certain, where, side, np.ones(1, np.float32), 1.0, quality=quality)


def pack(answers: Mapping[tuple[int, int], Prediction]) -> dict[str, Tensor]:
    """Predictions by (object, frame) as tensors that safetensors can hold."""
    tensors: dict[str, Tensor] = {}
    for (number, frame), answer in answers.items():
        gain, score, where = answer.distribution.gain, answer.object_score, answer.frame
        parts = {
            "mean": answer.distribution.mean,
            "variance": answer.distribution.variance,
            "gain": gain if isinstance(gain, Tensor) else torch.tensor(gain),
            "iou": torch.from_numpy(answer.iou),
            "score": torch.tensor([] if score is None else [score], dtype=torch.float64),
            "frame": torch.tensor([*where.original, *where.inside]),
        }
        tensors |= {f"told/{number}/{frame}/{name}": value.clone().contiguous() for name, value in parts.items()}
    return tensors


def unpack(tensors: Mapping[str, Tensor], side: int, quality: Quality | None) -> dict[tuple[int, int], Prediction]:
    """What `pack` was given."""
    parts: dict[tuple[int, int], dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("told/"):
            _, number, frame, name = key.split("/")
            parts.setdefault((int(number), int(frame)), {})[name] = value
    answers = {}
    for place, part in parts.items():
        height, width, rows, columns = part["frame"].tolist()
        score = part["score"].tolist()
        answers[place] = Prediction(
            MaskDistribution(part["mean"], part["variance"], part["gain"]),
            Frame((height, width), (rows, columns)),
            side,
            part["iou"].numpy(),
            score[0] if score else None,
            quality=quality,
        )
    return answers
