"""Interactive segmentation with a simulated annotator: one model, one image, click after click.

The first prompt is a click at the centre of the object (or a box around it); every further click goes to the centre of the
largest error of the mask that the model itself returned, at the image's own resolution. That mask enters as mask prompt. An
object whose mask has become perfect is left as it is: a person would not click again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ruac.data.folder import IGNORE, Sample, object_ids, read_mask
from ruac.data.image import read_image
from ruac.data.prompts import first_click, jittered_box, next_click
from ruac.distribution import MaskDistribution
from ruac.evaluate.error_detection import RegionHistograms, histograms
from ruac.evaluate.metrics import MaskQuality, mask_quality
from ruac.features import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND, ImageFeatures, Prompts
from ruac.heads import PlainHead
from ruac.model import RuacModel, chosen_token
from ruac.regions import Mask, band_around, bounding_box

# objects with fewer pixels are not evaluated: nobody could click on them
MIN_PIXELS = 16
# objects decoded at once, to bound memory
DECODE_TOGETHER = 8

# what is judged as uncertainty, on the same masks and the same pixels: logits of the probability of foreground
# the arguments are the distributions of the model's own head and of the plain decoder, with the same masks
Readout = Callable[[MaskDistribution, MaskDistribution], Tensor]
READOUTS: dict[str, Readout] = {
    "head": lambda own, plain: own.scaled_mean(),
    "plain": lambda own, plain: plain.mean,
}


@dataclass(frozen=True)
class Protocol:
    """What is asked of the model.

    clicks: after how many prompts to judge, ascending (a box counts as the first); max_objects: of an image, drawn at random by
    the seed and the image's id, the same ones for every model; prompt: the first one.
    """

    clicks: tuple[int, ...] = (1, 3, 5)
    max_objects: int = 10
    seed: int = 0
    prompt: Literal["point", "box"] = "point"

    def __post_init__(self) -> None:
        if not self.clicks or list(self.clicks) != sorted(set(self.clicks)) or self.clicks[0] < 1:
            raise ValueError(
                f"clicks must be ascending numbers from 1, such as 1,3,5, not {','.join(map(str, self.clicks)) or 'none'}"
            )
        if self.max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, not {self.max_objects}")
        if self.prompt not in ("point", "box"):
            raise ValueError(f"prompt must be 'point' or 'box', not {self.prompt!r}")


@dataclass(frozen=True)
class Judged:
    """An image after some number of clicks: its objects' masks, and the pixels of all of them together, by read-out."""

    quality: tuple[MaskQuality, ...]
    detection: dict[str, RegionHistograms]

    def __add__(self, other: Judged) -> Judged:
        detection = {name: histogram + other.detection[name] for name, histogram in self.detection.items()}
        return Judged(self.quality + other.quality, detection)


@dataclass(frozen=True)
class ImageResult:
    """objects: the ids that were evaluated, in the order of `Judged.quality`; after: by number of prompts."""

    id: str
    objects: tuple[int, ...]
    after: dict[int, Judged]


@dataclass(frozen=True)
class LabelledImage:
    """image: uint8 RGB [height, width, 3]; ids: uint8 [height, width], 0 background, 1..254 objects, 255 ignore."""

    id: str
    image: NDArray[np.uint8]
    ids: NDArray[np.uint8]


def read(sample: Sample) -> LabelledImage:
    """Raises ValueError naming the file when one cannot be read or they do not fit together."""
    image, ids = read_image(sample.image), read_mask(sample.mask)
    if ids.shape != image.shape[:2]:
        raise ValueError(f"{sample.mask}: {_size(ids)} pixels, but its image has {_size(image)}; they must be of one size")
    return LabelledImage(sample.id, image, ids)


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
    model: RuacModel, labelled: LabelledImage, protocol: Protocol, readouts: Mapping[str, Readout] = READOUTS
) -> ImageResult:
    """Click through the objects of one image. The model must be in evaluation mode; it works on the device it is on."""
    objects = choose_objects(labelled.ids, labelled.id, protocol)
    after = {n: Judged((), {name: RegionHistograms.empty() for name in readouts}) for n in protocol.clicks}
    if not objects:
        return ImageResult(labelled.id, (), after)
    pixels, frame = model.prepare(torch.from_numpy(labelled.image).permute(2, 0, 1).to(model.device))
    features = model.encode(pixels[None], (frame,))
    valid = labelled.ids != IGNORE
    for start in range(0, len(objects), DECODE_TOGETHER):
        truths = [labelled.ids == i for i in objects[start : start + DECODE_TOGETHER]]
        for clicks, answers in _converse(model, features, truths, valid, protocol):
            for truth, answer in zip(truths, answers, strict=True) if clicks in after else ():
                after[clicks] += _judge(answer, truth, valid, readouts)
    return ImageResult(labelled.id, objects, after)


class _Point(NamedTuple):
    """Original pixel coordinates and what they mean, one of the labels of `features.Prompts`."""

    x: float
    y: float
    label: int


@dataclass(frozen=True)
class _Answer:
    """What the model returned for one object: moments [H, W] at low resolution, the next mask prompt; at the image's own resolution,
    with the head and without."""

    low: MaskDistribution
    full: MaskDistribution
    plain: MaskDistribution
    mask: Mask


def _converse(
    model: RuacModel, features: ImageFeatures, truths: list[Mask], valid: Mask, protocol: Protocol
) -> Iterator[tuple[int, list[_Answer]]]:
    """(number of prompts so far, the answer for every object), prompt after prompt."""
    said = [_first_prompt(truth, protocol.prompt) for truth in truths]
    answers = _ask(model, features, said)
    yield 1, answers
    for clicks in range(2, protocol.clicks[-1] + 1):
        corrections = [_correction(answer.mask, truth, valid) for answer, truth in zip(answers, truths, strict=True)]
        # perfect masks stay perfect, so those still to be corrected all have the same number of prompts
        open_ones = [i for i, correction in enumerate(corrections) if correction]
        if open_ones:
            for i in open_ones:
                said[i] = [*said[i], *corrections[i]]
            answered = _ask(model, features, [said[i] for i in open_ones], [answers[i] for i in open_ones])
            better = dict(zip(open_ones, answered, strict=True))
            answers = [better.get(i, answer) for i, answer in enumerate(answers)]
        yield clicks, answers


def _first_prompt(truth: Mask, prompt: Literal["point", "box"]) -> list[_Point]:
    if prompt == "box":
        x0, y0, x1, y1 = jittered_box(truth)
        return [_Point(x0, y0, BOX_TOP_LEFT), _Point(x1, y1, BOX_BOTTOM_RIGHT)]
    # looking for it in the box around the object is faster and changes nothing: all outside is outside
    rows, columns = bounding_box(truth)
    x, y = first_click(truth[rows, columns])
    return [_Point(x + columns.start, y + rows.start, FOREGROUND)]


def _correction(mask: Mask, truth: Mask, valid: Mask) -> list[_Point]:
    """The next click; none when all is right."""
    rows, columns = box = bounding_box((mask ^ truth) & valid)
    click = next_click(mask[box], truth[box], valid[box]) if rows.stop else None
    return [_Point(click[0] + columns.start, click[1] + rows.start, click[2])] if click else []


def _ask(
    model: RuacModel, features: ImageFeatures, said: list[list[_Point]], before: list[_Answer] | None = None
) -> list[_Answer]:
    """said: the same number of points for every object; before: the answers to refine."""
    (frame,) = features.frames
    points = torch.tensor([[(p.x, p.y) for p in points] for points in said], dtype=torch.float32, device=model.device)
    labels = torch.tensor([[p.label for p in points] for points in said], device=model.device)
    mask = torch.stack([answer.low.mean for answer in before])[None] if before else None
    prompts = Prompts(frame.to_input(points)[None], labels[None], mask)
    decoded = model.decode(features, prompts)
    chosen = decoded.select(chosen_token(decoded, prompts, model.stability))
    low = model(chosen)  # [1, P, 1, H, W]
    full, plain = low.resize(frame, model.side), PlainHead()(chosen).resize(frame, model.side)
    masks = (full.mean > 0).cpu().numpy()
    return [
        _Answer(
            MaskDistribution(low.mean[0, i, 0], low.variance[0, i, 0]),
            MaskDistribution(full.mean[0, i, 0], full.variance[0, i, 0]),
            MaskDistribution(plain.mean[0, i, 0], plain.variance[0, i, 0]),
            masks[0, i, 0],
        )
        for i in range(len(said))
    ]


def _judge(answer: _Answer, truth: Mask, valid: Mask, readouts: Mapping[str, Readout]) -> Judged:
    device = answer.full.mean.device
    where = [torch.from_numpy(m).to(device) for m in (truth, valid, band_around(answer.mask, truth))]
    return Judged(
        (mask_quality(answer.mask, truth, valid),),
        {name: histograms(readout(answer.full, answer.plain), *where) for name, readout in readouts.items()},
    )


def _size(picture: NDArray[np.uint8]) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
