"""Image features on disk, so that a picture goes through the image encoder once, however often it is asked about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ruac.families import Family
from ruac.features import DecoderFeatures, Frame, ImageFeatures, Prompts
from ruac.model import RuacModel, head_sha256
from ruac.training.tensorfile import read_tensors, write_tensors

FORMAT = "ruac-embeddings-1"
POSITION = "position.safetensors"  # of the model, not of a picture


@contextmanager
def encoded_once(model: RuacModel, folder: Path) -> Iterator[CachedFamily]:
    """While this lasts, what the model encodes is kept in `folder` in half precision, and what is there already is not encoded again.

    What is encoded anew is rounded as well, so that it makes no difference which of the two happened. Files that were made with other
    weights, from another picture, or that are damaged, are made again.
    """
    family = CachedFamily(model.family, folder, embeddings_key(model))
    model.family = family
    try:
        yield family
    finally:
        del model.family  # it is opened anew when it is needed


def embeddings_key(model: RuacModel) -> str:
    """What image features depend on besides the picture: the Segment Anything model's weights, not its head's, and the input side."""
    return f"{FORMAT} {head_sha256(model.sam)} {model.side}"


class CachedFamily:
    """A family whose `encode` remembers; see `families.Family` for what the rest does."""

    def __init__(self, family: Family, folder: Path, key: str):
        """key: see `embeddings_key`."""
        self.family, self.folder, self.key = family, folder, key
        self.side, self.grid = family.side, family.grid
        self.channels, self.token_width, self.stability = family.channels, family.token_width, family.stability
        self.encoded = 0  # how many pictures have gone through the encoder

    def prepare(self, image: Tensor) -> tuple[Tensor, Frame]:
        return self.family.prepare(image)

    def encode(self, pixels: Tensor, frames: tuple[Frame, ...]) -> ImageFeatures:
        """Raises ValueError for features that half precision does not hold."""
        places = frames or (None,) * len(pixels)
        each = [self._one(image, frame) for image, frame in zip(pixels, places, strict=True)]
        levels = tuple(torch.cat(maps) for maps in zip(*(one.levels for one in each), strict=True))
        return ImageFeatures(levels, frames, each[0].position)

    def decode(self, features: ImageFeatures, prompts: Prompts) -> DecoderFeatures:
        return self.family.decode(features, prompts)

    def _one(self, image: Tensor, frame: Frame | None) -> ImageFeatures:
        frames = () if frame is None else (frame,)
        inside = self.side if frame is None else frame.inside
        picture = hashlib.sha256(image.cpu().contiguous().numpy().tobytes())
        key = f"{self.key} {picture.hexdigest()} {inside}"
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
        maps, shared = read_tensors(path, key), read_tensors(self.folder / POSITION, self.key)
        if maps is not None and shared is not None:
            levels, position = tuple(maps[name] for name in sorted(maps)), shared["position"]
        else:
            features = self.family.encode(image[None], frames)
            self.encoded += 1
            levels, position = tuple(half(level) for level in features.levels), features.position
            write_tensors(path, {f"level{i}": level for i, level in enumerate(levels)}, key)
            write_tensors(self.folder / POSITION, {"position": position}, self.key)
        # one order in memory whichever way they came, since sums are rounded in another order in another one
        full = tuple(v.to(image.device, torch.float32, memory_format=torch.channels_last) for v in (*levels, position))
        return ImageFeatures(full[:-1], frames, full[-1])


def half(values: Tensor) -> Tensor:
    """In half precision. Raises ValueError where that has no number for a value."""
    rounded = values.half()
    if not torch.isfinite(rounded).all():
        raise ValueError(
            "the model's features are NaN or beyond 65504, which half precision does not hold: its weights are broken"
        )
    return rounded
