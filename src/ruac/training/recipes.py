"""One recipe, and what is compared with it: the same pictures, clicks, steps and rates with another objective or another seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from ruac.training.config import Stage, TrainConfig

Alignment = Literal["paper", "proper", "none"]
NO_ATTACK = "none"


def segmentation_alone(config: TrainConfig) -> TrainConfig:
    """Without attack, alignment and divergence; stages that train the head alone are left out.

    Raises ValueError when no stage is left.
    """
    usual = Stage(steps=1)
    names = ("head_rate", "alignment", "alignment_weight", "alignment_of", "kl_weight", "kl_begins")
    stages = [
        replace(stage, attack=None, **{name: getattr(usual, name) for name in names})
        for stage in config.stages
        if stage.train != "head"
    ]
    if not stages:
        raise ValueError("--config: every stage of this recipe trains the head alone; name one that trains masks")
    return replace(config, stages=stages)


def with_attack(config: TrainConfig, kind: str) -> TrainConfig:
    """Another attack, of the same weight and beginning, in every stage that attacks; "none": no attacked branch at all.

    Raises ValueError when no stage attacks, or for an unknown attack.
    """

    def changed(stage: Stage) -> Stage:
        attack = None if stage.attack is None or kind == NO_ATTACK else replace(stage.attack, kind=kind)
        return replace(stage, attack=attack)

    return _changed(config, lambda stage: stage.attack is not None, changed, f"--attack {kind}: no stage of this recipe attacks")


def with_alignment(config: TrainConfig, kind: Alignment) -> TrainConfig:
    """Another alignment in every stage that says what the variance should be.

    Raises ValueError when none does, or when one would no longer do so, because its alignment has no weight.
    """
    changed = _changed(
        config,
        lambda stage: stage.trains_head,
        lambda stage: replace(stage, alignment=kind),
        f"--alignment {kind}: no stage of this recipe trains the uncertainty",
    )
    for old, new in zip(config.stages, changed.stages, strict=True):
        if old.trains_head and not new.trains_head:
            raise ValueError(f"--alignment {kind}: this recipe gives it no weight; set alignment_weight in its stages")
    return changed


def member(config: TrainConfig, number: int) -> TrainConfig:
    """The same recipe from another seed, for an ensemble; in a folder of its own."""
    return replace(config, out=config.out / f"member-{number}", seed=config.seed + number)


def _changed(
    config: TrainConfig, concerns: Callable[[Stage], bool], changed: Callable[[Stage], Stage], otherwise: str
) -> TrainConfig:
    if not any(map(concerns, config.stages)):
        raise ValueError(f"{otherwise}; leave the option out, or name another recipe")
    return replace(config, stages=[changed(stage) if concerns(stage) else stage for stage in config.stages])
