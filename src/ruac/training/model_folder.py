"""What a training run gives: a model folder that is there whole or not at all, and the average of several."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from ruac.errors import RoomError, one_line
from ruac.loading import read
from ruac.model import RuacModel
from ruac.writing import naming, only_writer

CONFIGURATION = "config.json"


def write_model(model: RuacModel, folder: Path, remedy: str) -> None:
    """In half precision, in place of what is there. remedy: of what keeps it from being written. Raises RoomError, OSError."""
    partial = folder.with_name(f".{folder.name}.partial")
    with naming(folder), _emptied(partial):
        _save(model.half(), partial, folder, remedy)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)


def add_model(model: RuacModel, folder: Path) -> None:
    """Into a folder that holds no model yet, and is made if need be; whatever stops that, it holds a whole one afterwards or none.

    Raises RoomError, OSError, and ValueError when somebody else writes there.
    """
    with only_writer(folder), naming(folder), _emptied(folder / ".model.partial") as partial:
        _save(model, partial, folder, "make room and run the same command again")
        # without its configuration a folder is no model
        for file in sorted(partial.iterdir(), key=lambda file: file.name == CONFIGURATION):
            file.replace(folder / file.name)


@contextmanager
def _emptied(partial: Path) -> Iterator[Path]:
    """A folder that is not there before and afterwards."""
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save(model: RuacModel, partial: Path, folder: Path, remedy: str) -> None:
    try:
        model.save_pretrained(partial)
    except SafetensorError as error:
        raise RoomError(f"{folder}: not written ({one_line(error)}); {remedy}") from None


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
