"""The model that a training run starts from, and nano at other input sizes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ruac.families.nano import NanoConfig, NanoModel
from ruac.heads import make_head
from ruac.loading import read
from ruac.model import RuacConfig, RuacModel, channels_last
from ruac.training.config import TrainConfig

Adapt = Callable[[RuacModel], None]


def as_it_is(model: RuacModel) -> None:
    """No change."""


def start_model(config: TrainConfig, adapt: Adapt = as_it_is) -> RuacModel:
    """The model that `start` names, or nano on ImageNet weights. adapt: changes its modules in place.

    Raises ValueError when the pictures of a stage, or the model that is to be written, are of a size that it does not take.
    """
    if config.start is not None:
        model = read(config.start)
    else:
        torch.manual_seed(config.seed)
        model = RuacModel(RuacConfig(sam=NanoConfig.of_size(config.image_size).to_dict(), head="exact", head_trained=False))
        model.sam.vision_encoder.backbone.load_imagenet()
    if not is_nano(model):
        sizes = {
            "image_size": config.image_size,
            **{f"stages[{i}].image_size": s.image_size for i, s in enumerate(config.stages)},
        }
        for name, size in sizes.items():
            if size != model.side:
                raise ValueError(f"{name}: {size}, but {config.start} takes pictures of {model.side} pixels only; give that")
    if config.head not in (None, model.config.head):
        model.head = make_head(config.head, model.family.channels, model.family.token_width)
        model.config.head, model.config.head_trained = config.head, False
    model.config.quality = None  # fitted to weights that training is about to change
    adapt(model)
    return channels_last(model)


def is_nano(model: RuacModel) -> bool:
    return isinstance(model.sam, NanoModel)


def resized(model: RuacModel, image_size: int, adapt: Adapt = as_it_is) -> RuacModel:
    """The same weights for another input size: nothing in nano depends on it but the grid. Other models are returned as they are.

    adapt: what had been done to the modules of the model.
    """
    if model.side == image_size or not is_nano(model):
        return model
    sam = NanoConfig.of_size(image_size, model.sam.token_width).to_dict()
    other = RuacModel(RuacConfig(sam=sam, head=model.config.head, head_trained=model.config.head_trained))
    adapt(other)
    other.load_state_dict(model.state_dict())
    return channels_last(other.to(device=model.device))  # pyright: ignore[reportCallIssue]  hidden by transformers' signature


def stretches(model: RuacModel) -> bool:
    """Whether the model takes photographs stretched to a square, not padded."""
    _, frame = model.prepare(torch.zeros(3, 8, 16, dtype=torch.uint8))
    return frame.inside == (model.side, model.side)
