"""Predictor: an image once, then a click, a box or an earlier mask; out come the mask and the uncertainty of each of its pixels.

The arguments are those of Segment Anything's own predictor, so code written for that one runs here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ruac.data.image import ImageError, read_image
from ruac.distribution import MaskDistribution
from ruac.features import BACKGROUND, FOREGROUND, Frame, ImageFeatures, Prompts, box_points
from ruac.loading import load
from ruac.model import RuacModel, compile_encoder
from ruac.onnx_backend import PROVIDERS, OnnxModel, is_exported
from ruac.quality.expected import Quality
from ruac.regions import Mask, depth, fewest, heaviest_region, interior_point, region_around

# shares of the expected error that the most doubtful pixels hold: those that deserve a click, and those that deserve a look
DOUBTFUL, WORTH_A_LOOK = 0.5, 0.9
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
OBJECTS_AT_ONCE = 32  # decoded together, so that memory stays bounded


class PromptError(ValueError):
    """A click, box or mask that makes no sense for the image; the message says which and why."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """What is said about one object, in pixels of the original image; anything may be left out, but not everything.

    point_coords: [N, 2] (x, y); point_labels: [N], 1 on the object, 0 on the background, all 1 if left out;
    box: [4] (x0, y0, x1, y1); mask_input: [h, w] low-resolution logits of an earlier prediction of the same image.
    """

    point_coords: ArrayLike | None = None
    point_labels: ArrayLike | None = None
    box: ArrayLike | None = None
    mask_input: ArrayLike | None = None

    @staticmethod
    def of(points: Sequence[tuple[float, float, int]], box: ArrayLike | None) -> Prompt:
        """From points (x, y, label), maybe none of them, and a box or None."""
        return Prompt([point[:2] for point in points] or None, [point[2] for point in points] or None, box)


@dataclass(frozen=True, eq=False)
class Prediction:
    """M candidate masks of one object, the best first, read out when first asked for, at the image's own resolution.

    distribution: logit moments [M, h, w] at low resolution; frame, side: how they lie over the image; iou: [M] predicted IoU of
    each mask with the truth; low_resolution: read out on the decoder's grid instead, padding cut off: sixteen times fewer pixels
    than the network input has, and no resampling; object_score: probability that there is an object at all, None of
    a model that does not say; clicks: [N, 2] (x, y) that it answers, in pixels of the image; quality: of the model,
    or None of one that has none.
    """

    distribution: MaskDistribution
    frame: Frame
    side: int
    iou: NDArray[np.float32]
    object_score: float | None
    low_resolution: bool = False
    clicks: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))
    quality: Quality | None = None

    @property
    def score(self) -> float:
        """Predicted IoU of the best mask."""
        return float(self.iou[0])

    @property
    def low_res_logits(self) -> NDArray[np.float32]:
        """[M, h, w]; one of them is the `mask_input` of a next prediction."""
        return self.distribution.prompt.numpy()

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """[M, height, width], where foreground is the likelier."""
        return (self._full.mean > 0).numpy()

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """[M, height, width] of foreground."""
        return self._full.probability().numpy()

    @cached_property
    def uncertainty(self) -> NDArray[np.float32]:
        """[M, height, width] entropy in bits, 0 (certain) to 1 (a coin toss)."""
        return self._full.entropy().numpy()

    @cached_property
    def expected_error(self) -> NDArray[np.float32]:
        """[M, height, width] probability that the mask is wrong there, 0 to 1/2."""
        return self._full.expected_error().numpy()

    @cached_property
    def expected_iou(self) -> NDArray[np.float32]:
        """[M] IoU of each mask with the truth, as its pixels' probabilities expect it; `iou` is the decoder's guess.

        Calibrated, and made on the decoder's grid, where the model has been fitted for it by `ruac quality`.
        """
        if self.quality is None:
            return self._full.expected_iou().numpy()
        low = self.distribution.crop(self.frame, self.side)
        return self.quality.expected_iou(low).cpu().numpy()

    @cached_property
    def aleatoric(self) -> NDArray[np.float32]:
        """[M, height, width] the part of the doubt, in bits, that would stay if the logit were known."""
        return self._full.aleatoric().numpy()

    @cached_property
    def epistemic(self) -> NDArray[np.float32]:
        """[M, height, width] the part of the doubt, in bits, that comes from not knowing the logit."""
        return self._full.epistemic().numpy()

    @cached_property
    def _full(self) -> MaskDistribution:
        place = self.distribution.crop if self.low_resolution else self.distribution.resize
        return place(self.frame, self.side)


@dataclass(frozen=True, eq=False)
class NextClick:
    """Where a click is expected to help most, in pixels of the image.

    x, y: the pixel; label: the opposite of what the mask says there, 1 foreground, 0 background: for a person who sees that the mask
    is wrong; region: boolean [height, width], where to look for errors: the part around it of the fewest pixels that hold
    WORTH_A_LOOK of all expected error.
    """

    x: int
    y: int
    label: int
    region: Mask


class Predictor:
    """Keeps the features of one image, so that every further prompt costs only a decoding.

    model: whatever `load` takes, put on `device` with `head`; or a loaded or opened model, which stays as it is and where it is; or
    a folder that `ruac export` wrote. backend: torch, or onnx or openvino for such a folder; by default what fits the model.
    precision: fp32, or bf16 for what GPUs are fastest with; compile: see `compile_encoder`; both of a model that is loaded here.
    Raises what `load` and `OnnxModel.open` raise, and ValueError for a backend or a precision that does not fit.
    """

    def __init__(
        self,
        model: str | Path | RuacModel | OnnxModel = "nano",
        device: str = "cpu",
        head: str | Path | None = None,
        backend: str | None = None,
        precision: str = "fp32",
        compile: bool = False,
    ):
        self.model = _opened(model, device, head, backend, precision, compile)
        self._overwritten = compile and self.model.device.type == "cuda"
        self.quality = Quality.of(self.model.config.quality)
        self._features: ImageFeatures | None = None

    @torch.inference_mode()
    def set_image(self, image: NDArray[np.uint8] | str | Path) -> None:
        """Encode an image: uint8 RGB [height, width, 3] or a file. Raises ImageError for anything else."""
        self._features = None  # after an error, no answer may come from the image before
        pixels = image if isinstance(image, np.ndarray) else read_image(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ImageError(f"expected a uint8 RGB image [height, width, 3], got {pixels.dtype} {list(pixels.shape)}")
        # torch knows no negative strides, which flipped arrays have
        prepared, frame = self.model.prepare(torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1))
        features = self.model.encode(prepared[None].to(self.model.device), (frame,))
        self._features = replace(features, levels=tuple(map(torch.clone, features.levels))) if self._overwritten else features

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = False,
        low_resolution: bool = False,
    ) -> Prediction:
        """One object. See `Prompt` for the arguments and `predict_many` for the last two and for errors."""
        return self.predict_many([Prompt(point_coords, point_labels, box, mask_input)], multimask_output, low_resolution)[0]

    @torch.inference_mode()
    def predict_many(
        self, prompts: Sequence[Prompt], multimask_output: bool = False, low_resolution: bool = False
    ) -> list[Prediction]:
        """Several objects of the image; each prediction is what the prompt alone would give.

        multimask_output: three candidate masks an object (whole, part, part of a part), sorted by predicted IoU, instead of the
        one that the model chooses: the best candidate for a single click, the mask meant by all words together for more. The
        uncertainty is always that of the mask beside it. low_resolution: see `Prediction`.

        Raises PromptError for a prompt that makes no sense, RuntimeError before `set_image`.
        """
        if self._features is None:
            raise RuntimeError("no image yet: call set_image(image) before predict(...)")
        words = [parse(prompt, self._features.frames[0], self.model.grid) for prompt in prompts]
        found: dict[int, Prediction] = {}
        for members in _batches(words):
            batch = join([words[i] for i in members], self.model.device)
            found.update(zip(members, self._decode(self._features, batch, multimask_output, low_resolution), strict=True))
        return [found[i] for i in range(len(prompts))]

    @staticmethod
    def next_click(prediction: Prediction) -> NextClick:
        """Where the next click on the best mask of a prediction helps most, as its own probabilities see it.

        The fewest pixels that hold half of all expected error fall into regions. The click is at the most interior pixel of the region
        with most of it, where a pixel counts the more the deeper it lies: a thin rim along the outline is wrong in small pieces, a
        wide one in large ones. No earlier click is asked for again. Works on the decoder's grid.
        """
        error = prediction.distribution.crop(prediction.frame, prediction.side).expected_error()[0].numpy()
        height, width = prediction.frame.original
        scale = np.array([error.shape[1] / width, error.shape[0] / height])
        # a click may lie between the last pixel's centre and the border
        columns, rows = ((prediction.clicks + 0.5) * scale).astype(int).clip(0, np.array(error.shape[::-1]) - 1).T
        error[rows, columns] = 0
        doubtful = fewest(error, DOUBTFUL)
        x, y = interior_point(heaviest_region(doubtful, error * depth(doubtful)))
        region = region_around(fewest(error, WORTH_A_LOOK), x, y)
        column, row = (int(n) for n in (np.array([x, y]) + 0.5) / scale)
        there = prediction.masks[0][(y, x) if prediction.low_resolution else (row, column)]
        whole = cv2.resize(region.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).view(np.bool_)
        return NextClick(column, row, BACKGROUND if there else FOREGROUND, whole)

    def _decode(self, image: ImageFeatures, prompts: Prompts, multimask_output: bool, low_resolution: bool) -> list[Prediction]:
        answer = self.model.answer(image, prompts, multimask_output)
        object_score = [None] * len(answer.iou) if answer.object_score is None else answer.object_score.tolist()
        places, labels = image.frames[0].to_original(prompts.points[0]).cpu().numpy(), prompts.labels[0].cpu().numpy()
        return [
            Prediction(
                answer.distribution.map(lambda values, i=i: values[i]),
                image.frames[0],
                self.model.side,
                answer.iou[i].numpy(),
                object_score[i],
                low_resolution,
                places[i][np.isin(labels[i], (BACKGROUND, FOREGROUND))],
                self.quality,
            )
            for i in range(len(answer.iou))
        ]


def _opened(
    model: str | Path | RuacModel | OnnxModel,
    device: str,
    head: str | Path | None,
    backend: str | None,
    precision: str,
    compile: bool,
) -> RuacModel | OnnxModel:
    if backend not in (None, "torch", *PROVIDERS):
        raise ValueError(f"no backend '{backend}': torch, {', '.join(PROVIDERS)}")
    if precision not in PRECISIONS:
        raise ValueError(f"no precision '{precision}': {', '.join(PRECISIONS)}")
    as_it_is = precision == "fp32" and not compile
    if isinstance(model, RuacModel | OnnxModel) and not as_it_is:
        raise ValueError("a model that is loaded stays as it is: leave precision and compile out, or give its name")
    if isinstance(model, OnnxModel):
        return model
    if isinstance(model, RuacModel):
        if backend not in (None, "torch"):
            raise ValueError(f"a loaded model runs on torch: for {backend}, name a folder that `ruac export` wrote")
        return model.eval()
    # "nano" is the embedded model, whatever a folder is called
    if backend == "torch" or (backend is None and (str(model) == "nano" or not is_exported(Path(model)))):
        loaded = load(model, device, head=head, dtype=PRECISIONS[precision])
        return compile_encoder(loaded) if compile else loaded
    if not as_it_is:
        raise ValueError(f"{model}: an exported model has its own precision: leave precision and compile out")
    if head is not None or device != "cpu":
        raise ValueError(f"{model}: an exported model has its head inside and runs on the cpu: leave head and device out")
    return OnnxModel.open(Path(model), backend or "onnx")


def parse(prompt: Prompt, frame: Frame, grid: int) -> Prompts:
    """The words about one object, checked, as a batch of one; a box becomes two points. Raises PromptError."""
    points = _numbers("point_coords", np.empty((0, 2)) if prompt.point_coords is None else prompt.point_coords)
    if points.ndim != 2 or points.shape[1] != 2:
        raise PromptError(f"point_coords must be [N, 2] (x, y), got {list(points.shape)}")
    labels = np.ones(len(points)) if prompt.point_labels is None else _numbers("point_labels", prompt.point_labels)
    if labels.shape != (len(points),):
        raise PromptError(f"{len(points)} points, but point_labels is {list(labels.shape)}: give one label a point")
    if not np.isin(labels, (BACKGROUND, FOREGROUND)).all():
        raise PromptError(f"a point label is 1 (object) or 0 (background), got {labels.tolist()}")
    if not len(points) and prompt.box is None and prompt.mask_input is None:
        raise PromptError("nothing is said about the object: give a point, a box or a mask")
    height, width = frame.original
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise PromptError(f"point ({x:g}, {y:g}) is outside the image of {width} x {height} pixels")
    words = Prompts(frame.to_input(torch.from_numpy(points))[None, None], torch.from_numpy(labels).long()[None, None])
    if prompt.box is not None:
        corners, corner_labels = box_points(torch.from_numpy(_box(prompt.box, width, height))[None, None])
        words = words.with_points(frame.to_input(corners), corner_labels)
    return words if prompt.mask_input is None else words.with_mask(_mask_logits(prompt.mask_input, grid))


def _batches(words: Sequence[Prompts]) -> Iterator[list[int]]:
    """Indices of prompts to decode together: those with an earlier mask apart from those without, and not too many."""
    for with_mask in (False, True):
        members = [i for i, word in enumerate(words) if (word.mask_logits is not None) == with_mask]
        yield from (members[start : start + OBJECTS_AT_ONCE] for start in range(0, len(members), OBJECTS_AT_ONCE))


def join(words: Sequence[Prompts], device: torch.device) -> Prompts:
    """Prompts of one object each as those of one image with P objects."""
    padded = Prompts.pad(words)
    mask = padded.mask_logits
    return Prompts(
        padded.points.transpose(0, 1).to(device),
        padded.labels.transpose(0, 1).to(device),
        None if mask is None else mask.transpose(0, 1).to(device),
    )


def _box(value: ArrayLike, width: int, height: int) -> NDArray[np.float32]:
    """[4] (x0, y0, x1, y1). Raises PromptError for one that is no box, has no area or leaves the image."""
    box = _numbers("box", value)
    if box.shape != (4,):
        raise PromptError(f"box must be [4] (x0, y0, x1, y1), got {list(box.shape)}")
    x0, y0, x1, y1 = box.tolist()
    text = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if x0 >= x1 or y0 >= y1:
        raise PromptError(f"{text} is empty or inside out: x0 < x1 and y0 < y1 are needed")
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        raise PromptError(f"{text} leaves the image of {width} x {height} pixels")
    return box


def _mask_logits(value: ArrayLike, grid: int) -> Tensor:
    """[1, 1, h, w] of [h, w] or, as Segment Anything has it, [1, h, w]. Raises PromptError."""
    logits = _numbers("mask_input", value)
    if logits.shape not in ((grid, grid), (1, grid, grid)):
        raise PromptError(f"mask_input must be low-resolution logits [{grid}, {grid}], got {list(logits.shape)}")
    return torch.from_numpy(logits.reshape(1, 1, grid, grid))


def _numbers(name: str, value: ArrayLike) -> NDArray[np.float32]:
    try:
        numbers = np.array(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise PromptError(f"{name} must be numbers, got {value!r}") from None
    if not np.isfinite(numbers).all():
        raise PromptError(f"{name} holds NaN or infinity")
    return numbers
