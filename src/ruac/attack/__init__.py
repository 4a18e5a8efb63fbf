"""Attacks on a batch of labelled pictures, differentiable and batched: RUAC's cooperative one, and those it is compared with.

    settings = AttackSettings(channels=128, generator=torch.Generator().manual_seed(0))
    attack = make_attack("cooperative", settings)
    attacked = attack(batch, features)  # features of the clean images

Attacks that learn are nn.Modules. Their gradient is reversed: give their parameters to the model's own optimiser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator, Tensor

from ruac.attack.batch import Attack, AttackedBatch, LabelledBatch, Objective
from ruac.attack.cooperative import CooperativeAttack, DeformationAttack, StyleAttack
from ruac.attack.others import MixStyle, NoAttack, RandomDeformation, RandomNoise, RandomStyle, StyleGeneration, UncertainStyle
from ruac.attack.pixels import GradientAscent, PatchAttack

__all__ = ["ATTACKS", "Attack", "AttackSettings", "AttackedBatch", "LabelledBatch", "Objective", "make_attack"]


@dataclass(frozen=True)
class AttackSettings:
    """What attacks need to be made; each takes what concerns it.

    channels: D of the coarsest features, `ImageFeatures.levels[-1]`; generator: of all that is drawn (but for dropout);
    style_epsilon: largest shift of a mean in normalised units; deformation_epsilon: size of an offset in cells of the features;
    rms: of noise, pgd_budget and pgd_step: in grey levels; patch_share: of the area of an image; objective: what PGD makes large.
    """

    channels: int
    generator: Generator
    style_epsilon: float = 0.3
    deformation_epsilon: float = 0.15
    rms: float | Tensor = 8.0
    patch_share: float = 0.02
    pgd_budget: float = 8.0
    pgd_step: float = 2.0
    pgd_steps: int = 5
    objective: Objective | None = None


def _pgd(settings: AttackSettings) -> GradientAscent:
    if settings.objective is None:
        raise ValueError("attack 'pgd' climbs an objective: give one in the settings")
    s = settings
    return GradientAscent(settings.objective, s.generator, s.pgd_budget, s.pgd_step, s.pgd_steps)


ATTACKS: dict[str, Callable[[AttackSettings], Attack]] = {
    "none": lambda s: NoAttack(),
    "noise": lambda s: RandomNoise(s.generator, s.rms),
    "random-style": lambda s: RandomStyle(s.generator, s.style_epsilon),
    "random-deformation": lambda s: RandomDeformation(s.generator, s.deformation_epsilon),
    "mixstyle": lambda s: MixStyle(s.generator),
    "dsu": lambda s: UncertainStyle(s.generator),
    "stylegen": lambda s: StyleGeneration(s.generator),
    "patch": lambda s: PatchAttack(s.generator, s.patch_share),
    "pgd": _pgd,
    "style": lambda s: StyleAttack(s.channels, s.style_epsilon),
    "deformation": lambda s: DeformationAttack(s.channels, s.deformation_epsilon),
    "cooperative": lambda s: CooperativeAttack(s.channels, s.style_epsilon, s.deformation_epsilon),
}


def make_attack(name: str, settings: AttackSettings) -> Attack:
    """An attack by its name. Raises ValueError for an unknown name, or for PGD without an objective."""
    if name not in ATTACKS:
        raise ValueError(f"no attack '{name}': choose one of {', '.join(ATTACKS)}")
    return ATTACKS[name](settings)
