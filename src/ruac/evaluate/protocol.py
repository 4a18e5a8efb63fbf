"""Interactive segmentation with a simulated annotator: one model, one image, click after click.

The first prompt is a click at the centre of the object (or a box around it); every further click goes to the centre of the
largest error of the mask that the model itself returned, at the image's own resolution. That mask enters as mask prompt. An
object whose mask has become perfect is left as it is: a person would not click again. Prompts may also be given beforehand: then
every model is told the same, whatever its masks.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ruac.data.folder import IGNORE, Sample, object_ids, read_mask
from ruac.data.image import read_image
from ruac.evaluate.baselines import METHODS
from ruac.evaluate.conversation import Annotator, Answer, Turn, Word, converse, correcting, look_at, reciting
from ruac.evaluate.disagreement import People, annotator_files, people_disagree, read_people
from ruac.evaluate.judging import Judged, judge
from ruac.evaluate.metrics import iou
from ruac.evaluate.question import Method, Reading
from ruac.model import RuacModel
from ruac.regions import Mask

# objects with fewer pixels are not evaluated: nobody could click on them
MIN_PIXELS = 16
# objects decoded at once, to bound memory
DECODE_TOGETHER = 8

DEFAULT: dict[str, Method] = {name: METHODS[name] for name in ("head", "plain")}


@dataclass(frozen=True)
class Protocol:
    """What is asked of the model.

    clicks: after how many prompts to judge, ascending (a box counts as the first); max_objects: of an image, drawn at random by
    the seed and the image's id, the same ones for every model; prompt: the first one; noc: go on to so many prompts and note the
    IoU after each, None for no further than the last of `clicks`.
    """

    clicks: tuple[int, ...] = (1, 3, 5)
    max_objects: int = 10
    seed: int = 0
    prompt: Literal["point", "box"] = "point"
    noc: int | None = None

    def __post_init__(self) -> None:
        if not self.clicks or list(self.clicks) != sorted(set(self.clicks)) or self.clicks[0] < 1:
            raise ValueError(
                f"clicks must be ascending numbers from 1, such as 1,3,5, not {','.join(map(str, self.clicks)) or 'none'}"
            )
        if self.max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, not {self.max_objects}")
        if self.prompt not in ("point", "box"):
            raise ValueError(f"prompt must be 'point' or 'box', not {self.prompt!r}")
        if self.noc is not None and self.noc < 1:
            raise ValueError(f"noc must be at least 1, not {self.noc}; 20 is usual")

    @property
    def last(self) -> int:
        """How many prompts an object gets, at most."""
        return max(self.clicks[-1], self.noc or 0)


@dataclass(frozen=True)
class ImageResult:
    """objects: the ids that were evaluated, in the order of everything else; after: by number of prompts; said: to each object;
    ious: with `Protocol.noc`, of each object after 1, 2, ... prompts."""

    id: str
    objects: tuple[int, ...]
    after: dict[int, Judged]
    said: tuple[tuple[Word, ...], ...] = ()
    ious: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class LabelledImage:
    """image: uint8 RGB [height, width, 3]; ids: uint8 [height, width], 0 background, 1..254 objects, 255 ignore; people: the same
    picture as several annotators see it, where the set has that."""

    id: str
    image: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    people: People | None = None


def read(sample: Sample) -> LabelledImage:
    """Raises ValueError naming the file when one cannot be read or they do not fit together."""
    image, ids = read_image(sample.image), read_mask(sample.mask)
    if ids.shape != image.shape[:2]:
        raise ValueError(f"{sample.mask}: {_size(ids)} pixels, but its image has {_size(image)}; they must be of one size")
    return LabelledImage(sample.id, image, ids, read_people(sample.mask) if annotator_files(sample.mask) else None)


def choose_objects(ids: NDArray[np.uint8], image_id: str, protocol: Protocol) -> tuple[int, ...]:
    """At most max_objects ids of at least MIN_PIXELS pixels, every one equally likely, ascending."""
    sizes = np.bincount(ids.ravel(), minlength=256)
    large = [i for i in object_ids(ids) if sizes[i] >= MIN_PIXELS]
    if len(large) > protocol.max_objects:
        rng = np.random.default_rng([protocol.seed, zlib.crc32(image_id.encode())])
        large = sorted(rng.choice(large, protocol.max_objects, replace=False).tolist())
    return tuple(large)


@torch.inference_mode()
def evaluate_image(
    model: RuacModel,
    labelled: LabelledImage,
    protocol: Protocol,
    methods: Mapping[str, Method] = DEFAULT,
    given: Mapping[int, Sequence[Word]] | None = None,
) -> ImageResult:
    """Click through the objects of one image. The model must be in evaluation mode; it works on the device it is on.

    methods: none to judge masks alone; all are judged on the masks of the model's own head. given: by object, what to say in place
    of the annotator's own clicks; these are the objects, then.
    """
    objects = choose_objects(labelled.ids, labelled.id, protocol) if given is None else tuple(sorted(given))
    after = {n: Judged.empty(methods) for n in protocol.clicks}
    if not objects:
        return ImageResult(labelled.id, (), after)
    picture = look_at(model, labelled.image)
    readings = {name: method(picture) for name, method in methods.items()}
    valid = labelled.ids != IGNORE
    said: list[tuple[Word, ...]] = []
    ious: list[tuple[float, ...]] = []
    for start in range(0, len(objects), DECODE_TOGETHER):
        targets = [_Target.of(labelled, i, valid) for i in objects[start : start + DECODE_TOGETHER]]
        annotators = _annotators(targets, protocol, given)
        course: list[list[float]] = [[] for _ in targets]
        known: dict[int, _Known] = {}
        for turn in converse(picture, annotators, protocol.last):
            if turn.prompts in after:
                known = _judge(turn, targets, readings, known)
                for i in range(len(targets)):
                    after[turn.prompts] += known[i].judged
            if turn.prompts <= (protocol.noc or 0):
                for values, target, answer in zip(course, targets, turn.answers, strict=True):
                    values.append(iou(answer.mask, target.truth, target.valid))
            if turn.prompts == protocol.last:
                said += turn.said
        ious += [tuple(values) for values in course]
    return ImageResult(labelled.id, objects, after, tuple(said), tuple(ious) if protocol.noc else ())


@dataclass(frozen=True, eq=False)
class _Target:
    """What the annotator knows of one object. truth, valid: [height, width]; disagreement: of several annotators, or None."""

    id: int
    truth: Mask
    valid: Mask
    disagreement: NDArray[np.floating] | None

    @staticmethod
    def of(labelled: LabelledImage, i: int, valid: Mask) -> _Target:
        truth = labelled.ids == i
        return _Target(i, truth, valid, None if labelled.people is None else people_disagree(labelled.people, truth))


@dataclass(frozen=True, eq=False)
class _Known:
    """A verdict stands as long as the answer does."""

    answer: Answer
    judged: Judged


def _annotators(targets: Sequence[_Target], protocol: Protocol, given: Mapping[int, Sequence[Word]] | None) -> list[Annotator]:
    if given is not None:
        return [reciting(given[target.id]) for target in targets]
    return [correcting(target.truth, target.valid, protocol.prompt) for target in targets]


def _judge(
    turn: Turn, targets: Sequence[_Target], readings: Mapping[str, Reading], known: Mapping[int, _Known]
) -> dict[int, _Known]:
    """Verdicts by place; methods are asked about new answers only, those of one question together."""
    verdicts = {i: verdict for i, verdict in known.items() if verdict.answer is turn.answers[i]}
    new: dict[int, list[int]] = {}
    for i, answer in enumerate(turn.answers):
        if i not in verdicts:
            new.setdefault(id(answer.question), []).append(i)
    for places in new.values():
        question = turn.answers[places[0]].question.part([turn.answers[i].index for i in places])
        logits = {name: reading(question) for name, reading in readings.items()}  # (P, height, width) each
        predicted = question.decoded.iou.gather(2, question.token[..., None])[0, :, 0].tolist()
        for k, i in enumerate(places):
            answer, target = turn.answers[i], targets[i]
            of_object = {name: logit[k] for name, logit in logits.items()}
            judged = judge(answer.mask, target.truth, target.valid, of_object, predicted[k], target.disagreement)
            verdicts[i] = _Known(answer, judged)
    return verdicts


def _size(picture: NDArray[np.uint8]) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
