"""Settings of a training run: the same dataclasses make the command's options and read its YAML files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ruac.data.scenes import SceneConfig


@dataclass(frozen=True)
class Stage:
    """One part of a training run.

    steps: optimiser steps; image_size: side of the training pictures in pixels; images: pictures a step; objects: prompted objects a
    picture; rate: peak learning rate; encoder_rate: that of the image encoder; train: all weights on the segmentation losses, or
    the head alone on the likelihood, its masks unchanged; warmup: steps of linear warm-up before the cosine to a twentieth;
    focal: exponent of the focal weights, 0 for the plain cross-entropy; ranking, harmless: weights, beside the likelihood, of the
    order of right and wrong pixels, and of that order being no worse than by the plain logits; pictures: composed scenes, or whole
    photographs, half of them in another style.
    """

    steps: int
    image_size: int = 256
    images: int = 8
    objects: int = 3
    rate: float = 1e-3
    encoder_rate: float = 3e-4
    train: Literal["all", "head"] = "all"
    warmup: int = 200
    focal: float = 1.0
    ranking: float = 0.1
    harmless: float = 20.0
    pictures: Literal["scenes", "photographs"] = "scenes"


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    data: folder of sets, or sets, in the folder format; out: where checkpoints, logs and the model go; stages: run in this order;
    start: a model to go on from, or none for nano on ImageNet weights; image_size: input side of the model that is written;
    weight_decay, clip: of AdamW and of the gradient's norm; ema: decay a step of the averaged weights, which are what is written;
    checkpoint_minutes, validate_minutes: how often; validation_images: of the held-out part of each set; workers: processes that
    make pictures.
    """

    data: list[Path]
    out: Path
    stages: list[Stage]
    start: str | None = None
    image_size: int = 512
    scenes: SceneConfig = field(default_factory=SceneConfig)
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    checkpoint_minutes: float = 3.0
    validate_minutes: float = 15.0
    validation_images: int = 8
    workers: int = 1

    def fingerprint(self) -> str:
        """What a checkpoint must share with a run to be its continuation."""
        kept = ("stages", "seed", "scenes", "image_size", "start", "weight_decay", "clip", "ema")
        return json.dumps({k: v for k, v in asdict(self).items() if k in kept}, sort_keys=True)
