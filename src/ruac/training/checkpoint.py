"""What a training run keeps on disk: checkpoints (safetensors, no pickle) and a log of every step."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ruac.model import RuacModel
from ruac.training.config import TrainConfig


@dataclass(frozen=True)
class Position:
    """Where a run stands: the stage and step that come next, and the optimiser's moments by name."""

    stage: int
    step: int
    optimizer: dict[str, Tensor] = field(default_factory=dict)


def save_checkpoint(
    config: TrainConfig, model: RuacModel, averages: dict[str, Tensor], optimizer: torch.optim.Optimizer | None, at: Position
) -> None:
    """Write to a temporary name and rename, so that a kill or a full disk leaves the checkpoint before."""
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v.contiguous() for k, v in averages.items()}
    if optimizer is not None:
        names = {id(p): n for n, p in model.named_parameters()}
        for p, moments in optimizer.state.items():
            tensors |= {f"optimizer.{key}/{names[id(p)]}": value.contiguous() for key, value in moments.items()}
    path = config.out / "checkpoint.safetensors"
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, {"stage": str(at.stage), "step": str(at.step), "stages": config.fingerprint()})
    partial.replace(path)


def load_checkpoint(config: TrainConfig, model: RuacModel, averages: dict[str, Tensor]) -> Position:
    """Fill the model and the averages in place. Raises ValueError when the checkpoint in `out` is of a run with other settings."""
    path = config.out / "checkpoint.safetensors"
    if not path.is_file():
        return Position(0, 0)
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    if meta["stages"] != config.fingerprint():
        raise ValueError(f"{path}: belongs to a run with other settings; choose another --config.out or remove it")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
    for name, tensor in load_file(path).items():
        kind, _, rest = name.partition(".")
        parts[kind][rest] = tensor
    model.load_state_dict(parts["model"])
    averages.update(parts["ema"])
    return Position(int(meta["stage"]), int(meta["step"]), parts["optimizer"])


def restore_optimizer(optimizer: torch.optim.Optimizer, model: RuacModel, saved: dict[str, Tensor]) -> None:
    """Give the optimiser the moments that `save_checkpoint` named by parameter."""
    by_name = dict(model.named_parameters())
    for name, tensor in saved.items():
        key, _, parameter = name.partition("/")
        optimizer.state[by_name[parameter]][key] = tensor


class StepLog:
    """Figures of every step, appended to a CSV file: stage, step, time in seconds, figures as JSON.

    Rows of steps that a killed run had made after its last checkpoint are dropped: they are made again.
    """

    def __init__(self, path: Path, stage: int, step: int):
        if path.is_file():
            with path.open(newline="") as file:
                kept = [row for row in csv.reader(file) if len(row) == 4 and (int(row[0]), int(row[1])) < (stage, step)]
            with path.open("w", newline="") as file:
                csv.writer(file).writerows(kept)
        self.file = path.open("a", newline="", buffering=1)  # a line a step, readable while the run goes on
        self.writer = csv.writer(self.file)

    def add(self, stage: int, step: int, figures: dict[str, float]) -> None:
        self.writer.writerow([stage, step, f"{time.time():.1f}", json.dumps({k: round(v, 5) for k, v in figures.items()})])

    def __enter__(self) -> StepLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
