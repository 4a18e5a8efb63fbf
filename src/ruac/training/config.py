"""Settings of a training run: the same dataclasses make the command's options and read its YAML files."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ruac.attack import ATTACKS
from ruac.data.scenes import SceneConfig


@dataclass(frozen=True)
class Attacking:
    """The adversarial branch of a stage.

    kind: an attack that `ruac attack` knows; style_epsilon, deformation_epsilon, rms: its budgets, see `ruac.attack.AttackSettings`;
    rate: peak learning rate of the attackers; weight: of the branch, the clean one has the rest; begins: share of the stage that
    passes before. slope: show attackers which way the clean loss rises, so that a few hundred steps teach them more than noise does;
    it costs the clean branch a backward pass down to the pixels.
    """

    kind: str = "cooperative"
    style_epsilon: float = 0.3
    deformation_epsilon: float = 0.15
    rms: float = 8.0
    rate: float = 1e-3
    weight: float = 0.2
    begins: float = 0.3
    slope: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ATTACKS:
            raise ValueError(f"attack.kind: no attack '{self.kind}'; choose one of {', '.join(ATTACKS)}")
        for name in ("weight", "begins"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"attack.{name}: {getattr(self, name)} is no share; give a number from 0 to 1")


@dataclass(frozen=True)
class Stage:
    """One part of a training run.

    steps: optimiser steps; image_size: side of the training pictures in pixels, for all models but nano the one their input has;
    images: pictures a step, over all processes; objects: prompted objects a picture; accumulation: passes that a step's pictures are
    divided into; recompute: keep no activations inside the blocks of an image encoder (nano has none) but compute them again for the
    backward pass: the same gradient in less memory; train: all weights, all but the image encoder's, or the head alone, its masks
    unchanged.

    rate: peak learning rate; encoder_rate, head_rate: those of the image encoder (of nano: its backbone) and of the head (none: as
    all others); warmup: steps of linear warm-up, before a cosine down to the share `last` of the peak. focal: exponent of the
    focal weights, 0 for the plain cross-entropy; ranking, harmless, calibration: weights, when the head is trained alone, of the
    order of right and wrong pixels, of that order being no worse than by the plain logits, and of the calibration error of each
    picture. pictures: composed scenes, or whole photographs, half of them in another style or all as they are.

    attack: learn from attacked pictures as well. alignment: what makes uncertainty and error agree: the paper's loss, a proper score,
    or nothing but the segmentation loss, then taken of the logit that the variance has shrunk; alignment_weight: beside the
    segmentation loss, with 0 the head is left as it is (alone it is trained on nothing else, with weight 1); alignment_of: of clean
    and attacked pictures, or as in the paper of attacked ones only. kl_weight: of the divergence of each random factor from
    Gamma(1, 3), summed over the elements of a picture (the paper's: 1e-11 · 0.05 = 5e-13); kl_begins: share of the stage that passes
    before.
    """

    steps: int
    image_size: int = 256
    images: int = 8
    objects: int = 3
    accumulation: int = 1
    recompute: bool = True
    train: Literal["all", "decoder", "head"] = "all"
    rate: float = 1e-3
    encoder_rate: float = 3e-4
    head_rate: float | None = None
    warmup: int = 200
    last: float = 0.05
    focal: float = 1.0
    ranking: float = 0.05
    harmless: float = 5.0
    calibration: float = 2.0
    pictures: Literal["scenes", "photographs", "untouched"] = "scenes"
    attack: Attacking | None = None
    alignment: Literal["paper", "proper", "none"] = "proper"
    alignment_weight: float = 0.0
    alignment_of: Literal["all", "attacked"] = "all"
    kl_weight: float = 0.0
    kl_begins: float = 0.2

    def __post_init__(self) -> None:
        for name in ("steps", "image_size", "images", "objects", "accumulation"):
            if getattr(self, name) < 1:
                raise ValueError(f"stages.{name}: {getattr(self, name)}; it must be at least 1")
        if self.images % self.accumulation:
            raise ValueError(f"stages.accumulation: {self.images} pictures a step do not divide into {self.accumulation} passes")

    @property
    def trains_head(self) -> bool:
        """Whether anything says what the variance should be."""
        return self.train == "head" or self.alignment == "none" or self.alignment_weight > 0

    def attack_at(self, done: float) -> Attacking | None:
        """The attack after this share of the stage."""
        return self.attack if self.attack is not None and done >= self.attack.begins else None

    def kl_at(self, done: float) -> float:
        """The weight of the divergence after this share of the stage."""
        return self.kl_weight if done >= self.kl_begins and self.trains_head else 0.0

    def factor(self, step: int) -> float:
        """Share of the peak learning rates at a step: linear warm-up, then a cosine from 1 to `last`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.last + (1 - self.last) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass(frozen=True)
class Hedge:
    """What is kept of a trained exact head when the model is written, for domains that it has not seen; see `ExactHead.hedge`.

    deviations: share of all standard deviations; surroundings: share of what a pixel's surroundings change in their logarithm. With 1
    all is kept, as it should be for pictures like those of the training.
    """

    deviations: float = 1.0
    surroundings: float = 1.0

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 < share <= 1:
                raise ValueError(f"hedge.{name}: {share}; give a share above 0, at most 1")


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    data: folders of pictures with masks: sets in the folder format, folders of such sets, or videos as DAVIS and MOSE have them
    (JPEGImages/<clip>/*.jpg, Annotations/<clip>/*.png), of which single frames are drawn; `ruac data convert` makes sets of SA-V, COCO
    and others. out: where checkpoints, logs and the model go; stages: run in this order; start: a model to go on from, or none for
    nano on ImageNet weights; head: its kind, none for the one that the model has; image_size: input side of the model that is
    written, of all models but nano the one they have; hedge: of what the head has learnt.

    weight_decay, clip: of AdamW and of the gradient's norm; ema: decay a step of the averaged weights, which are what is written;
    precision: of the model's own arithmetic, full or bfloat16 (losses and head stay in full); checkpoint_minutes, validate_minutes:
    how often; validation_images: of the held-out part of each set; workers: processes that make pictures.
    """

    data: list[Path]
    out: Path
    stages: list[Stage]
    start: str | None = None
    head: Literal["exact", "paper"] | None = None
    image_size: int = 512
    hedge: Hedge = field(default_factory=Hedge)
    scenes: SceneConfig = field(default_factory=SceneConfig)
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: Literal["no", "bf16"] = "no"
    checkpoint_minutes: float = 3.0
    validate_minutes: float = 15.0
    validation_images: int = 8
    workers: int = 1

    def __post_init__(self) -> None:
        for name, least in (("image_size", 1), ("validation_images", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)}; it must be at least {least}")

    def fingerprint(self) -> str:
        """What a checkpoint must share with a run to be its continuation; processes and passes may be others."""
        kept = ("stages", "seed", "scenes", "image_size", "start", "head", "weight_decay", "clip", "ema", "precision")
        values = {k: v for k, v in asdict(self).items() if k in kept}
        for stage in values["stages"]:
            del stage["accumulation"], stage["recompute"]
        return json.dumps(values, sort_keys=True)


@dataclass(frozen=True)
class MethodConfig(TrainConfig):
    """A run of a method that is compared with. method: its name, with its numbers: a run of another method does not go on from it."""

    method: str = ""

    @staticmethod
    def of(config: TrainConfig, method: str) -> MethodConfig:
        return MethodConfig(**vars(config), method=method)

    def fingerprint(self) -> str:
        return json.dumps([self.method, super().fingerprint()])
