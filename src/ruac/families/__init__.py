"""Segment Anything models, each opened just before its masks are made. One file a family.

A family turns a photograph into `ImageFeatures` once and, for every click, into `DecoderFeatures`; what it does in between is its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import transformers
from torch import Tensor

from ruac.features import DecoderFeatures, Frame, ImageFeatures, Prompts


class Family(Protocol):
    """An opened model.

    side: of the square network input, in pixels; grid: of the low-resolution logits; channels, token_width: C and D of its
    `DecoderFeatures`; stability: (δ, least share) if token 0 gives way to the best of the others when fewer of the pixels with
    logit > -δ have logit > δ, or None.
    """

    side: int
    grid: int
    channels: int
    token_width: int
    stability: tuple[float, float] | None

    def prepare(self, image: Tensor) -> tuple[Tensor, Frame]:
        """An RGB image, uint8 [3, height, width], as uint8 [3, S, S], and where it lies there."""
        ...

    def encode(self, pixels: Tensor, frames: tuple[Frame, ...]) -> ImageFeatures:
        """pixels: [B, 3, S, S] in 0..255, as `prepare` makes them; no frames: nothing is padded."""
        ...

    def decode(self, features: ImageFeatures, prompts: Prompts) -> DecoderFeatures:
        """All K candidate masks of every prompted object; K = 4, token 0 for the one mask that many words mean."""
        ...


# model_type of a configuration: transformers' class, file here, class there. Checkpoints of the video models hold the image model.
FAMILIES = {
    "sam": ("SamModel", "sam", "Sam"),
    "sam_hq": ("SamHQModel", "sam_hq", "SamHQ"),
    "sam2": ("Sam2Model", "sam2", "Sam2"),
    "sam2_video": ("Sam2Model", "sam2", "Sam2"),
    "sam3_tracker": ("Sam3TrackerModel", "sam3", "Sam3Tracker"),
    "sam3_tracker_video": ("Sam3TrackerModel", "sam3", "Sam3Tracker"),
    "sam3_video": ("Sam3TrackerModel", "sam3", "Sam3Tracker"),
    "edgetam": ("EdgeTamModel", "edgetam", "EdgeTam"),
    "edgetam_video": ("EdgeTamModel", "edgetam", "EdgeTam"),
}


def open_model(sam: Any) -> Family:
    """The family of a model of transformers' or of nano, around that model. Raises ValueError for one of another kind."""
    kind = sam.config.model_type
    if kind == "ruac_nano":
        return sam
    if kind not in FAMILIES:
        raise ValueError(f"no Segment Anything model of type '{kind}': known are {', '.join(sorted(FAMILIES))}, ruac_nano")
    _, file, name = FAMILIES[kind]
    return getattr(import_module(f"ruac.families.{file}"), name)(sam)


def model_class(kind: str) -> type[transformers.PreTrainedModel]:
    """transformers' class for a checkpoint whose configuration has this model_type. Raises ValueError for another kind."""
    if kind not in FAMILIES:
        raise ValueError(f"a model of type '{kind}' is no Segment Anything that we know: {', '.join(sorted(FAMILIES))}")
    return getattr(transformers, FAMILIES[kind][0])
