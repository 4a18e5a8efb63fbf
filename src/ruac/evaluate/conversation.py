"""A simulated annotator and a model: what is said about each object of a picture, and what is answered, prompt after prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ruac.data.prompts import first_click, jittered_box, next_click
from ruac.evaluate.question import Picture, Question
from ruac.features import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND, Prompts
from ruac.model import RuacModel, chosen_token
from ruac.regions import Mask, bounding_box


class Point(NamedTuple):
    """Original pixel coordinates and what they mean, one of the labels of `features.Prompts`."""

    x: float
    y: float
    label: int


# one prompt: a click, or the two corners of a box
Word = tuple[Point, ...]
# what comes next, after these words and the mask that answered them (None before the first); None when all is said
Annotator = Callable[[tuple[Word, ...], Mask | None], Word | None]


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model returned for one object: the question it was part of, its place there, and its mask [height, width]."""

    question: Question
    index: int
    mask: Mask


@dataclass(frozen=True)
class Turn:
    """After so many prompts: what has been said about each object, and the answers."""

    prompts: int
    said: tuple[tuple[Word, ...], ...]
    answers: tuple[Answer, ...]


def look_at(model: RuacModel, image: NDArray[np.uint8]) -> Picture:
    """Encode an RGB image [height, width, 3]."""
    pixels = torch.from_numpy(image).permute(2, 0, 1).to(model.device)
    prepared, frame = model.prepare(pixels)
    return Picture(model, pixels, model.encode(prepared[None], (frame,)))


def ask(picture: Picture, prompts: Prompts) -> Question:
    """The model's answer to prompts [1, P, ...] about a picture, with all that a method may look at."""
    model = picture.model
    decoded = model.decode(picture.features, prompts)
    token = chosen_token(decoded, prompts, model.stability)
    return Question(picture, prompts, decoded, token[..., 0], model(decoded.select(token)))


def correcting(truth: Mask, valid: Mask, prompt: Literal["point", "box"]) -> Annotator:
    """Starts at the centre of the object, or with a box, and clicks on the centre of the largest error until there is none."""

    def word(said: tuple[Word, ...], mask: Mask | None) -> Word | None:
        return first_prompt(truth, prompt) if mask is None else correction(mask, truth, valid)

    return word


def reciting(words: Sequence[Word]) -> Annotator:
    """Says these words whatever the masks."""
    return lambda said, mask: words[len(said)] if len(said) < len(words) else None


def converse(picture: Picture, annotators: Sequence[Annotator], last: int) -> Iterator[Turn]:
    """Turn after turn, up to `last` prompts. Objects about which nothing more is said keep their answer.

    All annotators must begin with equally many points, and none may go on once it has stopped.
    """
    said: list[tuple[Word, ...]] = [() for _ in annotators]
    answers: list[Answer | None] = [None for _ in annotators]
    for prompts in range(1, last + 1):
        masks = [None if answer is None else answer.mask for answer in answers]
        words = [say(before, mask) for say, before, mask in zip(annotators, said, masks, strict=True)]
        # whoever stopped stays silent, so those still speaking all have the same number of prompts
        speaking = [i for i, word in enumerate(words) if word is not None]
        for i in speaking:
            said[i] = (*said[i], words[i] or ())
        if speaking:
            for i, answer in zip(
                speaking, _answer(picture, [said[i] for i in speaking], [answers[i] for i in speaking]), strict=True
            ):
                answers[i] = answer
        yield Turn(prompts, tuple(said), tuple(answer for answer in answers if answer is not None))


def box_word(box: tuple[float, float, float, float]) -> Word:
    """(x0, y0, x1, y1) as its two corners."""
    x0, y0, x1, y1 = box
    return Point(x0, y0, BOX_TOP_LEFT), Point(x1, y1, BOX_BOTTOM_RIGHT)


def first_prompt(truth: Mask, prompt: Literal["point", "box"]) -> Word:
    if prompt == "box":
        return box_word(jittered_box(truth))
    # looking for it in the box around the object is faster and changes nothing: all outside is outside
    rows, columns = bounding_box(truth)
    x, y = first_click(truth[rows, columns])
    return (Point(x + columns.start, y + rows.start, FOREGROUND),)


def correction(mask: Mask, truth: Mask, valid: Mask) -> Word | None:
    """The next click; None when all is right."""
    rows, columns = box = bounding_box((mask ^ truth) & valid)
    click = next_click(mask[box], truth[box], valid[box]) if rows.stop else None
    return (Point(click[0] + columns.start, click[1] + rows.start, click[2]),) if click else None


def _answer(picture: Picture, said: Sequence[tuple[Word, ...]], before: Sequence[Answer | None]) -> list[Answer]:
    """said: the same number of points for every object; before: the answers to refine, all of them or none."""
    device = picture.image.device
    points = [[point for word in words for point in word] for words in said]
    places = torch.tensor([[(p.x, p.y) for p in line] for line in points], dtype=torch.float32, device=device)
    labels = torch.tensor([[p.label for p in line] for line in points], device=device)
    low = [answer.question.low.prompt[0, answer.index, 0] for answer in before if answer is not None]
    prompts = Prompts(picture.frame.to_input(places)[None], labels[None], torch.stack(low)[None] if low else None)
    question = ask(picture, prompts)
    masks = (question.mean[0, :, 0] > 0).cpu().numpy()
    return [Answer(question, i, mask) for i, mask in enumerate(masks)]
