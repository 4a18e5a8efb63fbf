"""What a training run keeps to go on from: one file (safetensors, no pickle), there whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ruac.errors import WorkError, one_line
from ruac.training.config import TrainConfig
from ruac.writing import TEMPORARY, write_whole

FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Position:
    """The stage and the step that come next."""

    stage: int = 0
    step: int = 0


@dataclass(frozen=True)
class Saved:
    """A run as it stands: tensors by name, of the model, of its averaged weights, of the attackers, and of the optimiser, whose names
    are "<what>/<parameter>"."""

    at: Position = Position()
    model: dict[str, Tensor] = field(default_factory=dict)
    ema: dict[str, Tensor] = field(default_factory=dict)
    attack: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)


PARTS = ("model", "ema", "attack", "optimizer")


def state_of(objective: nn.Module, averages: dict[str, Tensor], optimizer: torch.optim.Optimizer, at: Position) -> Saved:
    """A copy, on the CPU. objective: with the submodules `model` and, where attackers learn, `attack`."""
    tensors: dict[str, dict[str, Tensor]] = {"model": {}, "ema": averages, "attack": {}, "optimizer": {}}
    for name, value in objective.state_dict().items():
        part, _, rest = name.partition(".")
        tensors[part][rest] = value
    names = {id(p): name for name, p in objective.named_parameters()}
    for p, moments in optimizer.state.items():
        tensors["optimizer"] |= {f"{what}/{names[id(p)]}": value for what, value in moments.items()}
    return Saved(at, **{part: copied(of_part) for part, of_part in tensors.items()})


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU; apart, for some models hold one tensor under two names, which safetensors refuses."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, objective: nn.Module, saved: dict[str, Tensor]) -> None:
    """Give the optimiser the moments that `state_of` named by parameter."""
    parameters = dict(objective.named_parameters())
    for name, value in saved.items():
        what, _, parameter = name.partition("/")
        p = parameters[parameter]
        # AdamW counts its steps on the CPU
        optimizer.state[p][what] = value if what == "step" else value.to(p.device)


def save_checkpoint(config: TrainConfig, saved: Saved) -> None:
    """Replace the checkpoint in `out`. When that fails the one before stays. Raises WorkError when weights are not finite."""
    path = config.out / FILE
    broken = [name for name, value in saved.model.items() if not torch.isfinite(value).all()]
    if broken:
        raise WorkError(f"{path}: not written, {len(broken)} tensors hold NaN or infinity, such as {broken[0]}; {kept(config)}")
    tensors = {f"{part}.{name}": value for part in PARTS for name, value in getattr(saved, part).items()}
    write_whole(path, save(tensors, {"stage": str(saved.at.stage), "step": str(saved.at.step), "run": config.fingerprint()}))


def load_checkpoint(config: TrainConfig) -> Saved | None:
    """The checkpoint in `out`, None when there is none.

    Raises ValueError when it is of a run with other settings, or damaged.
    """
    path = config.out / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged ({one_line(error)}); remove it to start again") from None
    if meta.get("run") != config.fingerprint():
        raise ValueError(f"{path}: belongs to a run with other settings, or of another method; choose another --out or remove it")
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    try:
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        return Saved(Position(int(meta["stage"]), int(meta["step"])), **parts)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({one_line(error)}); remove it to start again") from None


def kept(config: TrainConfig) -> str:
    """In words, what is left of a run that has failed."""
    path = config.out / FILE
    if not path.is_file():
        return "there is no checkpoint yet"
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    return f"the checkpoint of stage {int(meta['stage']) + 1}, step {meta['step']} is kept"


def remove_leftovers(folder: Path) -> None:
    """What a killed run had not finished writing."""
    for file in folder.glob(TEMPORARY):
        file.unlink(missing_ok=True)
