"""What a training run gives: a model folder that is there whole or not at all, and the average of several."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError

from ruac.errors import WorkError, one_line
from ruac.loading import read
from ruac.model import RuacModel


def write_model(model: RuacModel, folder: Path, remedy: str) -> None:
    """In half precision, in place of what is there. remedy: of what keeps it from being written. Raises WorkError."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.half().save_pretrained(partial)
    except SafetensorError as error:
        raise WorkError(f"{folder}: not written ({one_line(error)}); {remedy}") from None
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


@torch.no_grad()
def average(models: Sequence[Path]) -> RuacModel:
    """A model of weights that are the mean of the others', of members that were trained from one start (Wortsman et al. 2022,
    "Model soups"): nearly as good as all of them together, for the cost of one. Its quality has to be fitted anew."""
    members = [read(path).float() for path in models]
    states = [member.state_dict() for member in members]
    first = members[0]
    first.load_state_dict({name: torch.stack([state[name] for state in states]).float().mean(0) for name in states[0]})
    first.config.quality = None
    return first
