"""One person, one picture: what has been said about the object so far, and the model's answer to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ruac.app.models import Loaded
from ruac.calibrate.bounds import Bounds, bounds, tempered
from ruac.data.labels import Size
from ruac.predictor import NextClick, Prediction, Predictor, Prompt

MOST_WORDS = 100  # clicks and boxes about one object
SAME = 1e-3  # logits

Point = tuple[float, float, int]  # x, y, label
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True, eq=False)
class Told:
    """All that is said up to one click or box. mask: low-resolution logits of the answer before it, None where a box starts anew."""

    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask: NDArray[np.float32] | None = None

    @property
    def prompt(self) -> Prompt:
        return replace(Prompt.of(self.points, self.box), mask_input=self.mask)


@dataclass(frozen=True, eq=False)
class Answer:
    """candidates: one mask each as the model gave it, the one it means first; chosen: the one that is shown."""

    told: Told
    candidates: tuple[Prediction, ...]
    chosen: int = 0


class Conversation:
    """image: RGB [height, width, 3], encoded here, once, for all that is said later. Raises ImageError when it cannot be."""

    def __init__(self, loaded: Loaded, image: NDArray[np.uint8], name: str):
        self.loaded, self.image, self.name = loaded, image, name
        self._predictor = loaded.predictor()
        self._predictor.set_image(image)
        self._history: list[Told] = []
        self.answer: Answer | None = None

    @property
    def nbytes(self) -> int:
        """Of what this holds for later, the shared weights left out."""
        masks = sum(told.mask.nbytes for told in self._history if told.mask is not None)
        moments = [prediction.distribution for prediction in self.answer.candidates] if self.answer else []
        return self.image.nbytes + self._predictor.nbytes + masks + sum(m.mean.nbytes + m.variance.nbytes for m in moments)

    @property
    def told(self) -> Told:
        return self._history[-1] if self._history else Told()

    def click(self, x: float, y: float, label: int) -> None:
        """One more word about the same object, which refines the mask that is shown. Raises PromptError outside the picture."""
        logits = self.answer.candidates[self.answer.chosen].low_res_logits[0] if self.answer else None
        self._say(replace(self.told, points=(*self.told.points, (x, y, label)), mask=logits))

    def draw_box(self, box: Box) -> None:
        """In place of an earlier box; the mask is not that of before, which may have been of another object. Raises PromptError."""
        self._say(replace(self.told, box=box, mask=None))

    def take_suggestion(self) -> None:
        """Raises ValueError before the first answer."""
        click = self.suggestion()
        self.click(click.x, click.y, click.label)

    def undo(self) -> None:
        """The last word is as if it had never been said."""
        if self._history:
            self._history.pop()
            self.answer = self._ask(self._history[-1]) if self._history else None

    def clear(self) -> None:
        self._history.clear()
        self.answer = None

    def choose(self, candidate: int) -> None:
        """Show that candidate. Raises ValueError where there is none such."""
        if self.answer is None or not 0 <= candidate < len(self.answer.candidates):
            raise ValueError("there is no such candidate")
        self.answer = replace(self.answer, chosen=candidate)

    def suggestion(self) -> NextClick:
        """Where the next click on the mask that is shown helps most. Raises ValueError before the first answer."""
        return Predictor.next_click(self._copy(None))

    def shown(self, size: Size | None = None, candidate: int | None = None) -> tuple[Prediction, Bounds | None]:
        """A mask with calibrated probabilities, and the masks around it, where there is a calibration.

        size: height and width of what is read out, the picture's own if left out; candidate: the chosen one if left out.
        Raises ValueError before the first answer.
        """
        prediction, guarantee = self._copy(candidate), self.loaded.guarantee
        if size is not None:
            prediction = replace(prediction, frame=replace(prediction.frame, original=size))
        if guarantee is None:
            return prediction, None
        around = bounds(prediction, guarantee, guarantee.asked_alike(self.told.points, self.told.box))
        return tempered(prediction, guarantee.calibration.temperature), around

    def with_model(self, loaded: Loaded) -> Conversation:
        """The same words to another model."""
        other = Conversation(loaded, self.image, self.name)
        before = Told()
        for told in self._history:
            if told.box != before.box and told.box is not None:
                other.draw_box(told.box)
            else:
                other.click(*told.points[-1])
            before = told
        return other

    def _copy(self, candidate: int | None) -> Prediction:
        """To be thrown away with all maps that are read out of it."""
        if self.answer is None:
            raise ValueError("click on an object first")
        return replace(self.answer.candidates[self.answer.chosen if candidate is None else candidate])

    def _say(self, told: Told) -> None:
        if len(self._history) >= MOST_WORDS:
            raise ValueError(f"{MOST_WORDS} clicks on one object are the most; clear them to go on")
        self.answer = self._ask(told)
        self._history.append(told)

    def _ask(self, told: Told) -> Answer:
        prompt = told.prompt
        meant = self._predictor.predict_many([prompt])[0]
        others = self._predictor.predict_many([prompt], multimask_output=True)[0]
        return Answer(told, _unlike(only(meant, 0), [only(others, i) for i in range(len(others.iou))]))


def only(prediction: Prediction, candidate: int) -> Prediction:
    """One of its masks."""
    part = slice(candidate, candidate + 1)
    return replace(prediction, distribution=prediction.distribution.map(lambda values: values[part]), iou=prediction.iou[part])


def _unlike(meant: Prediction, others: Sequence[Prediction]) -> tuple[Prediction, ...]:
    """The one that is meant and the others, less the one that it is itself."""
    mean = meant.distribution.mean
    # the same mask, computed beside others, differs by its last digits
    return (meant, *(other for other in others if not mean.allclose(other.distribution.mean, atol=SAME)))
