"""Image encoders that keep few activations for the backward pass, and compute the rest again there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ruac.model import RuacModel


@contextmanager
def sparing(model: RuacModel) -> Iterator[None]:
    """Inside, the blocks of the image encoder keep their inputs alone, in training mode; the gradients are the same.

    transformers' own way, but for the encoder only. nano has no such blocks: as a whole its encoder would take as much memory when it
    is computed again, and a third more time.
    """
    blocks = [layer for layer in model.sam.vision_encoder.modules() if isinstance(layer, GradientCheckpointingLayer)]
    for block in blocks:
        block.gradient_checkpointing = True
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        for block in blocks:
            block.gradient_checkpointing = False
