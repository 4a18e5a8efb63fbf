"""Tensors on disk that can be made again: a file is good, or it counts as not there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ruac.writing import write_whole


def write_tensors(path: Path, tensors: Mapping[str, Tensor], key: str) -> None:
    """key: what the tensors were made from; only who asks with the same one gets them."""
    kept = {name: value.contiguous().cpu() for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save(kept, metadata={"key": key, "sha256": tensors_sha256(kept)}))


def read_tensors(path: Path, key: str) -> dict[str, Tensor] | None:
    """On the CPU, as they were written; None when there is no such file, or one that was made from something else or is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            described = file.metadata() or {}
            if described.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except SafetensorError:
        return None
    return tensors if described.get("sha256") == tensors_sha256(tensors) else None


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Of names, kinds, shapes and numbers, whatever their order and device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return digest.hexdigest()
