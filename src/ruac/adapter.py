"""A head alone in a file of under a megabyte: trained for one Segment Anything model, sent to whoever has that model."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ruac.errors import LONGEST, one_line
from ruac.heads import make_head
from ruac.model import RuacModel, decoder_sha256, head_sha256
from ruac.writing import write_whole

FORMAT = "ruac-head-1"


def save_head(model: RuacModel, file: Path) -> None:
    """Write the model's head, its folder made if need be; what it fits is in the file's metadata.

    Raises ValueError for a head that is not trained: who loads it would believe it.
    """
    if not model.config.head_trained:
        raise ValueError(f"{file}: not written: this model's head is not trained, so there is nothing to save")
    described = {**_fits(model), "format": FORMAT, "head": model.config.head, "decoder": decoder_sha256(model)}
    described["sha256"] = head_sha256(model.head)
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in model.head.state_dict().items()}
    write_whole(file, save(tensors, metadata=described))


def load_head(model: RuacModel, file: Path) -> None:
    """Give the model a head that `save_head` wrote, in place.

    Warns when it was trained on other decoder weights. Raises FileNotFoundError, and ValueError for a file that is no head or one
    for another family or size of decoder.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no head at {file}: expected a file that save_head or `ruac train` wrote")
    try:
        with safe_open(file, "pt") as opened:
            described = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{file}: not a safetensors file, or a damaged one ({one_line(error)})") from None
    if described.get("format") != FORMAT:
        raise ValueError(f"{file}: not a head ({FORMAT}); a whole model goes where the model's name goes")
    ours = _fits(model)
    theirs = {name: described.get(name, "?") for name in ours}
    if ours != theirs:
        wanted, got = (", ".join(f"{name} {value}" for name, value in each.items()) for each in (ours, theirs))
        got = " ".join(got.split())[:LONGEST]
        raise ValueError(f"{file}: a head for another model: made for {got}; this one is {wanted}")
    try:
        head = make_head(described.get("head", "?"), model.family.channels, model.family.token_width)
        head.load_state_dict(tensors)
        if not all(torch.isfinite(value).all() for value in tensors.values()):
            raise ValueError("NaN or infinity among its numbers")
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{file}: damaged ({one_line(error)})") from None
    if described.get("sha256") != head_sha256(head):
        raise ValueError(f"{file}: damaged (its numbers are not those that were saved); get a fresh copy")
    if described.get("decoder") != decoder_sha256(model):
        warnings.warn(
            f"{file} was trained on other decoder weights than this model's: its uncertainty may be wrong", stacklevel=2
        )
    model.head = head.to(model.device).train(model.training)
    model.config.head, model.config.head_trained = described["head"], True
    model.config.quality = None  # fitted to what the head before said


def _fits(model: RuacModel) -> dict[str, str]:
    family = model.family
    kind = str(model.sam.config.model_type)
    return {"family": kind, "channels": str(family.channels), "token_width": str(family.token_width)}
