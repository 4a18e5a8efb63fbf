"""What `ruac tune` searches: settings of a recipe's stages, each within a range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ruac.training.config import Stage

# multiplies all learning rates of the model, so that what one stage has over another stays
RATES = "rates"
OF_HEAD = ("ranking", "harmless", "calibration")


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, each order of magnitude as likely as another."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"a range must go up, from above zero: not from {self.low} to {self.high}")


def default_space() -> dict[str, Range]:
    """By the name of a setting of a stage; of its attack, "attack.<name>"."""
    return {
        "attack.style_epsilon": Range(0.05, 1.0),
        "attack.deformation_epsilon": Range(0.05, 2.0),
        "attack.weight": Range(0.05, 0.5),
        "attack.rate": Range(1e-4, 1e-2),
        "alignment_weight": Range(0.01, 1.0),
        "ranking": Range(0.01, 1.0),
        "harmless": Range(1.0, 100.0),
        "calibration": Range(0.1, 10.0),
        RATES: Range(0.3, 3.0),
    }


def searched(space: Mapping[str, Range], stages: Sequence[Stage]) -> dict[str, Range]:
    """The part of the space that says anything about these stages.

    Raises ValueError for a name that is no such setting, and when nothing is left.
    """
    known = default_space()
    for name in space:
        if name not in known:
            raise ValueError(f"space: no setting '{name}' to search; choose among {', '.join(known)}")
    found = {name: range_ for name, range_ in space.items() if any(_concerns(name, stage) for stage in stages)}
    if not found:
        raise ValueError(f"space: {', '.join(space) or 'nothing'} says nothing about these stages; add '{RATES}'")
    return found


def varied(stage: Stage, values: Mapping[str, float]) -> Stage:
    """The stage with these settings, as far as they concern it."""
    own = {name: value for name, value in values.items() if _concerns(name, stage)}
    of_attack = {name.removeprefix("attack."): own.pop(name) for name in list(own) if name.startswith("attack.")}
    attack = replace(stage.attack, **of_attack) if stage.attack is not None else None
    factor = own.pop(RATES, 1.0)
    rates = {"rate": factor * stage.rate, "encoder_rate": factor * stage.encoder_rate}
    if stage.head_rate is not None:
        rates["head_rate"] = factor * stage.head_rate
    return replace(stage, attack=attack, **{**rates, **own})


def _concerns(name: str, stage: Stage) -> bool:
    """A weight of zero switches its term off, and no search switches it on."""
    if name.startswith("attack."):
        return stage.attack is not None
    if name in OF_HEAD:
        return stage.train == "head"
    return name == RATES or stage.alignment_weight > 0
