"""Encoded images in memory: as many as fit, those used last, and none for ever."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ruac.model import RuacModel
from ruac.onnx_backend import OnnxModel
from ruac.predictor import Prediction, Predictor, Prompt
from ruac.serve.settings import Deadline

Model = RuacModel | OnnxModel


class Embedding(Predictor):
    """A predictor for one image, whose size in memory is known."""

    @property
    def nbytes(self) -> int:
        features = self._features
        return 0 if features is None else sum(level.nbytes for level in (*features.levels, features.position))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return (0, 0) if self._features is None else self._features.frames[0].original


class PunctualPredictor(Predictor):
    """Stops between two steps when its time is up, with a LateError."""

    def __init__(self, model: Model, deadline: Deadline):
        super().__init__(model)
        self._deadline = deadline

    def predict_many(
        self, prompts: Sequence[Prompt], multimask_output: bool = False, low_resolution: bool = False
    ) -> list[Prediction]:
        self._deadline.check()
        return super().predict_many(prompts, multimask_output, low_resolution)


@dataclass
class EmbeddingCache:
    """Bounded by count, by bytes and by `ttl` seconds without use; the least recently used goes first. Any thread may use it."""

    max_images: int
    max_bytes: int
    ttl: float
    _entries: OrderedDict[str, tuple[float, Embedding]] = field(default_factory=OrderedDict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def get(self, image: str) -> Embedding | None:
        with self._lock:
            self._drop_expired()
            entry = self._entries.pop(image, None)
            if entry is None:
                return None
            self._entries[image] = time.monotonic(), entry[1]
            return entry[1]

    def put(self, image: str, embedding: Embedding) -> None:
        """One that is larger than all the place there is, is not kept."""
        with self._lock:
            self._drop_expired()
            self._entries.pop(image, None)
            self._entries[image] = time.monotonic(), embedding
            while len(self._entries) > self.max_images or self._bytes() > self.max_bytes:
                self._entries.popitem(last=False)

    def figures(self) -> tuple[int, int]:
        """Images and bytes that are kept."""
        with self._lock:
            self._drop_expired()
            return len(self._entries), self._bytes()

    def _bytes(self) -> int:
        return sum(embedding.nbytes for _, embedding in self._entries.values())

    def _drop_expired(self) -> None:
        oldest = time.monotonic() - self.ttl
        while self._entries and next(iter(self._entries.values()))[0] < oldest:
            self._entries.popitem(last=False)


def encode(model: Model, pixels: NDArray[np.uint8]) -> Embedding:
    """pixels: RGB [height, width, 3]."""
    embedding = Embedding(model)
    embedding.set_image(pixels)
    return embedding
