"""A fitted method as a file: its numbers, its name, and the decoder that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ruac.errors import one_line
from ruac.model import RuacModel, decoder_sha256
from ruac.writing import write_whole

FORMAT = "ruac-rival-1"


@dataclass(frozen=True)
class Stored:
    """method: its name; tensors: its numbers; facts: what is worth knowing about them, in words."""

    method: str
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, str]


def write(file: Path, stored: Stored, model: RuacModel) -> Path:
    """The file, its folder made if need be; model: that the method was fitted to."""
    described = {**stored.facts, "format": FORMAT, "method": stored.method, "decoder": decoder_sha256(model)}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, save({name: value.contiguous() for name, value in stored.tensors.items()}, metadata=described))
    return file


def read(file: Path, model: RuacModel) -> Stored:
    """What `write` wrote. Raises FileNotFoundError, and ValueError for another file or one that was fitted to another decoder."""
    if not file.is_file():
        raise FileNotFoundError(f"no fitted method at {file}: `ruac train --method NAME` writes one")
    try:
        with safe_open(file, "pt") as opened:
            facts = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{file}: not a safetensors file, or a damaged one ({one_line(error)})") from None
    if facts.get("format") != FORMAT or "method" not in facts:
        raise ValueError(f"{file}: not a fitted method ({FORMAT}); `ruac train --method NAME` writes one")
    if facts.get("decoder") != decoder_sha256(model):
        raise ValueError(f"{file}: fitted to another mask decoder than this model's; fit it again with `ruac train --method`")
    return Stored(facts["method"], tensors, facts)
