"""What the lane computes for each request: bytes in, bytes of JSON out. Nothing here knows of HTTP."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ruac.calibrate.bounds import Guarantee, bounds, tempered
from ruac.data.image import ImageError, read_image
from ruac.data.labels import encode as run_lengths
from ruac.everything import Search, generate
from ruac.output import Origin, box_of, describe, encode_uncertainty, points_of
from ruac.predictor import Prediction, Prompt, PromptError
from ruac.serve.embeddings import Embedding, EmbeddingCache, Model, PunctualPredictor, encode
from ruac.serve.metrics import Metrics
from ruac.serve.schema import (
    Band,
    BoundsOut,
    EverythingIn,
    EverythingOut,
    ImageOut,
    MaskOut,
    PredictIn,
    PredictionOut,
    PredictOut,
    PromptIn,
    Rle,
    UncertaintyOut,
)
from ruac.serve.settings import MAX_ANSWER, MIB, Deadline, Settings
from ruac.serve.spool import Incoming, Spool

LOGITS = np.dtype("<f2")


class UnknownImageError(Exception):
    """No image of that id is here any more, or ever was."""


class LargeAnswerError(ValueError):
    """An answer that would take more than MAX_ANSWER."""


@dataclass(frozen=True)
class Engine:
    """All but the spool is of one worker and used by its lane alone."""

    settings: Settings
    model: Model
    guarantee: Guarantee | None
    spool: Spool
    cache: EmbeddingCache
    metrics: Metrics

    def accept(self, incoming: Incoming) -> bytes:
        """Reads and encodes an upload, unless it was sent before, and keeps it. Raises ImageError."""
        incoming.file.flush()
        embedding = self.cache.get(incoming.id) or self._encode(incoming.path)
        image = self.spool.keep(incoming)
        self.cache.put(image, embedding)
        height, width = embedding.size
        return ImageOut(id=image, width=width, height=height, kept_s=self.settings.ttl).model_dump_json().encode()

    def predict(self, image: str, asked: PredictIn, deadline: Deadline) -> bytes:
        """Raises UnknownImageError, PromptError, LargeAnswerError, LateError."""
        embedding = self._embedding(image)
        prompts = [_prompt(prompt, self.model.grid) for prompt in asked.prompts]
        answers = embedding.predict_many(prompts, asked.multimask_output)
        budget, predictions = _Budget(), []
        for prompt in prompts:
            deadline.check()
            # taken off the list, so that the maps of one object at a time are held
            predictions.append(self._prediction(prompt, answers.pop(0), asked, budget))
        return PredictOut(predictions=predictions).model_dump_json().encode()

    def everything(self, image: str, asked: EverythingIn, deadline: Deadline) -> bytes:
        """Raises UnknownImageError, LargeAnswerError, LateError."""
        pixels = self._pixels(image)
        search = Search(grid=asked.grid, least=asked.least, overlap=asked.overlap, parts=asked.parts)
        segments = generate(PunctualPredictor(self.model, deadline), pixels, search)
        budget, objects = _Budget(), []
        while segments:
            deadline.check()
            segment = segments.pop(0)
            found = self._mask(Prompt([segment.click]), segment.prediction, asked, budget)
            # the number that it was chosen by
            found.expected_iou = float(replace(segment.prediction, low_resolution=True).expected_iou[0])
            objects.append(found)
        return EverythingOut(objects=objects).model_dump_json().encode()

    def _prediction(self, prompt: Prompt, answer: Prediction, asked: PredictIn, budget: _Budget) -> PredictionOut:
        around = None
        if self.guarantee is not None:
            around = self._bounds(prompt, answer, budget)
            answer = tempered(answer, self.guarantee.calibration.temperature)
        masks = []
        for one in _each(answer):
            masks.append(self._mask(prompt, one, asked, budget))
            if asked.low_res_logits:
                masks[-1].low_res_logits = budget.spend(_text(one.low_res_logits[0].astype(LOGITS).tobytes()))
        return PredictionOut(masks=masks, object_score=answer.object_score, bounds=around)

    def _mask(self, prompt: Prompt, one: Prediction, asked: PredictIn | EverythingIn, budget: _Budget) -> MaskOut:
        """Of a prediction with one mask."""
        told = describe(prompt, one, Origin("", "", ""))
        budget.spend(told["rle"]["counts"])
        fields = {name: told[name] for name in ("rle", "area", "score", "expected_iou", "mean_uncertainty", "next_click")}
        return MaskOut(**fields, uncertainty=_uncertainty(one.uncertainty[0], asked, budget))

    def _bounds(self, prompt: Prompt, answer: Prediction, budget: _Budget) -> BoundsOut:
        assert self.guarantee is not None
        found = bounds(answer, self.guarantee, self.guarantee.asked_alike(points_of(prompt), box_of(prompt)))
        inner, outer = (_rle(mask, budget) for mask in (found.inner, found.outer))
        promise = found.promise
        return BoundsOut(inner=inner, outer=outer, alpha=promise["alpha"], holds=promise["holds"], words=promise["words"])

    def _embedding(self, image: str) -> Embedding:
        path = self._path(image)
        embedding = self.cache.get(image)
        self.metrics.embeddings.labels("miss" if embedding is None else "hit").inc()
        if embedding is None:
            embedding = self._encode(path)
            self.cache.put(image, embedding)
        return embedding

    def _encode(self, path: Path) -> Embedding:
        return encode(self.model, _read(path, self.settings.max_pixels))

    def _pixels(self, image: str) -> NDArray[np.uint8]:
        return _read(self._path(image), self.settings.max_pixels)

    def _path(self, image: str) -> Path:
        path = self.spool.find(image)
        if path is None:
            raise UnknownImageError
        return path


class _Budget:
    """What an answer may still hold."""

    def __init__(self) -> None:
        self._left = MAX_ANSWER

    def spend(self, text: str) -> str:
        """The text. Raises LargeAnswerError."""
        self._left -= len(text)
        if self._left < 0:
            raise LargeAnswerError(
                f"the answer is over the limit of {MAX_ANSWER // MIB} MiB: ask about fewer objects at once, or for bands, not png16"
            )
        return text


def _read(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    """[height, width, 3]. Raises ImageError that does not tell where uploads lie."""
    try:
        return read_image(path, max_pixels)
    except ImageError as error:
        raise ImageError(str(error).replace(str(path), "the upload")) from None


def _prompt(told: PromptIn, grid: int) -> Prompt:
    """Raises PromptError."""
    earlier = None if told.mask_input is None else _logits(told.mask_input, grid)
    return Prompt(told.point_coords or None, told.point_labels, told.box, earlier)


def _logits(text: str, grid: int) -> NDArray[np.float32]:
    """[grid, grid]. Raises PromptError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise PromptError("mask_input is not base64") from None
    if len(data) != grid * grid * LOGITS.itemsize:
        raise PromptError(f"mask_input must be {grid} x {grid} numbers of 16 bits, as in low_res_logits; got {len(data)} bytes")
    return np.frombuffer(data, LOGITS).reshape(grid, grid).astype(np.float32)


def _each(answer: Prediction) -> Iterator[Prediction]:
    """One of each of its masks."""
    for i in range(len(answer.iou)):
        part = answer.distribution.map(lambda values, i=i: values[i : i + 1])
        yield replace(answer, distribution=part, iou=answer.iou[i : i + 1])


def _uncertainty(bits: NDArray[np.float32], asked: PredictIn | EverythingIn, budget: _Budget) -> UncertaintyOut | None:
    """bits: [height, width]."""
    if asked.uncertainty == "png16":
        _, png = cv2.imencode(".png", encode_uncertainty(bits))
        return UncertaintyOut(png16=budget.spend(_text(png.tobytes())))
    if asked.uncertainty == "bands":
        return UncertaintyOut(bands=_bands(bits, asked.levels, budget))
    return None


def _bands(bits: NDArray[np.float32], levels: Sequence[float], budget: _Budget) -> list[Band]:
    return [Band(at_least=level, rle=_rle(bits >= level, budget)) for level in levels]


def _rle(mask: NDArray[np.bool_], budget: _Budget) -> Rle:
    found: Any = run_lengths(mask)
    return Rle(size=list(mask.shape), counts=budget.spend(found["counts"].decode("ascii")))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
