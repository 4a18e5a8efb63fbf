"""From a photograph to the square that an image encoder takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.features import Frame

IMAGENET_MEAN, IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pad_to_square(image: Tensor, side: int, stride: int, grey: int) -> tuple[Tensor, Frame]:
    """uint8 RGB [3, height, width] scaled with its aspect ratio and padded with grey on the right and below: [3, S, S]."""
    frame = Frame.fit(image.shape[-2], image.shape[-1], side, stride)
    rows, columns = frame.inside
    return F.pad(_resize(image, frame.inside), (0, side - columns, 0, side - rows), value=grey), frame


def stretch_to_square(image: Tensor, side: int) -> tuple[Tensor, Frame]:
    """uint8 RGB [3, height, width] stretched to [3, S, S], as SAM 2 and its successors were trained."""
    return _resize(image, (side, side)), Frame((image.shape[-2], image.shape[-1]), (side, side))


def normalise(pixels: Tensor, mean: Sequence[float], spread: Sequence[float], dtype: torch.dtype) -> Tensor:
    """[B, 3, S, S] in 0..255 to the encoder's range; mean and spread are of channels in 0..1."""
    shift, scale = (torch.tensor(v, device=pixels.device).reshape(3, 1, 1) for v in (mean, spread))
    return ((pixels / 255 - shift) / scale).to(dtype)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
