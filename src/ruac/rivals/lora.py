"""Low-rank adaptation (Hu et al. 2022), by peft: the image encoder and the mask decoder learn, a few weights at a time."""

from __future__ import annotations

import torch
from torch import nn

from ruac.model import RuacModel
from ruac.training.variant import Variant

# parts of a Segment Anything model; the prompt encoder has embeddings, not layers
PARTS = ("vision_encoder", "mask_decoder", "dense_prompts")


def lora(rank: int = 8, seed: int = 0) -> Variant:
    """Training of adapters alone, which are multiplied into the weights at the end: what is written is a plain model.

    Raises ValueError for a rank below 1.
    """
    if rank < 1:
        raise ValueError(f"the rank of the adapters must be at least 1, not {rank}")
    return Variant(lambda model: with_lora(model, rank, seed), trains=is_adapter, finish=merge_lora, name=f"lora of rank {rank}")


def with_lora(model: RuacModel, rank: int, seed: int = 0) -> None:
    """Add an adapter to every linear layer and every full convolution of `PARTS`, in place; the answers do not change yet.

    Depthwise convolutions have no rank to reduce, and transposed ones no adapter in peft: they stay as they are. The adapters'
    numbers are a function of the seed. Raises ValueError without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError:
        raise ValueError("low-rank adapters need peft: pip install 'ruac[train]'") from None
    names = [f"sam.{name}" for name, module in model.sam.named_modules() if name.split(".")[0] in PARTS and _adaptable(module)]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # in a box of its own: peft asks models of transformers' for word embeddings
        inject_adapter_in_model(config, nn.ModuleDict({"sam": model.sam}))


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return ".lora_" in name


def merge_lora(model: RuacModel) -> None:
    """Multiply the adapters into the weights, in place: the modules and names are those of before `with_lora`."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.sam.named_modules()):
        if isinstance(module, LoraLayer) and isinstance(module, nn.Module):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.sam.get_submodule(parent), child, module.get_base_layer())


def _adaptable(module: nn.Module) -> bool:
    return type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1)
