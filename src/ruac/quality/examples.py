"""What the expected IoU is fitted on: masks of labelled pictures by one, three and five clicks and by boxes, with their true IoU.

Each picture is asked about twice: as it is, and as another camera or sensor would show it, because masks of the training source
alone are too good to tell much about those of other domains.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from ruac.data.folder import IGNORE
from ruac.data.prompts import jittered_box
from ruac.data.restyle import restyle
from ruac.evaluate.conversation import Annotator, Answer, box_word, converse, correcting, look_at, reciting
from ruac.evaluate.metrics import iou
from ruac.evaluate.protocol import LabelledImage, Protocol, choose_objects
from ruac.evaluate.question import Picture
from ruac.model import RuacModel
from ruac.quality.expected import shifted_iou
from ruac.regions import Mask

CLICKS = (1, 3, 5)


@dataclass(frozen=True, eq=False)
class Examples:
    """Of each of n masks: `shifted_iou`, expected_iou by its pixels' probabilities, predicted_iou by the decoder, and the true iou."""

    shifted_iou: NDArray[np.float64]
    expected_iou: NDArray[np.float64]
    predicted_iou: NDArray[np.float64]
    iou: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.iou)

    @staticmethod
    def join(parts: Sequence[Examples]) -> Examples:
        """All together; there must be one part at least."""
        return Examples(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Examples)))


@torch.inference_mode()
def examples_of(model: RuacModel, labelled: LabelledImage, max_objects: int, seed: int) -> Examples | None:
    """Of one picture; None when it has no object. What is drawn depends on the seed and the picture's id alone."""
    objects = choose_objects(labelled.ids, labelled.id, Protocol(max_objects=max_objects, seed=seed))
    if not objects:
        return None
    rng = np.random.default_rng([seed, zlib.crc32(labelled.id.encode())])
    valid, truths = labelled.ids != IGNORE, [labelled.ids == i for i in objects]
    parts = []
    for image in (labelled.image, restyle(labelled.image, rng)):
        picture = look_at(model, image)
        correct: list[Annotator] = [correcting(truth, valid, "point") for truth in truths]
        boxes: list[Annotator] = [reciting([box_word(jittered_box(truth, rng))]) for truth in truths]
        turns = [*converse(picture, correct, CLICKS[-1]), *converse(picture, boxes, 1)]
        wanted = [turn for i, turn in enumerate(turns, start=1) if i in CLICKS or i == len(turns)]
        for turn in wanted:
            parts += [_example(picture, answer, truth, valid) for answer, truth in zip(turn.answers, truths, strict=True)]
    return Examples.join(parts)


def _example(picture: Picture, answer: Answer, truth: Mask, valid: Mask) -> Examples:
    question = answer.question
    low = question.low.crop(picture.frame, picture.model.side).map(lambda value: value[0, answer.index])
    predicted = question.decoded.iou.gather(2, question.token[..., None])[0, answer.index]
    shifted, expected, guessed = (v.cpu().double().numpy() for v in (shifted_iou(low), low.expected_iou(), predicted.clamp(0, 1)))
    return Examples(shifted, expected, guessed, np.array([iou(answer.mask, truth, valid)]))
