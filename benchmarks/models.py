"""Models of random weights that benchmarks share: what they take does not depend on the weights."""

from __future__ import annotations

import torch
from transformers import Sam2Config, Sam2Model

from ruac.families.nano import NanoConfig
from ruac.model import RuacConfig, RuacModel, channels_last


def around_sam2_tiny() -> RuacModel:
    """Of random weights, with a head that takes its time as a trained one does."""
    torch.manual_seed(0)
    model = channels_last(RuacModel.around(Sam2Model(Sam2Config()).eval().requires_grad_(False)))
    model.config.head_trained = True
    return model


def tiny() -> RuacModel:
    """Of random weights: what is kept of an image does not depend on them, and thousands take a minute."""
    torch.manual_seed(0)
    return RuacModel(RuacConfig(sam=NanoConfig.of_size(64, width=32).to_dict(), head="exact")).eval().requires_grad_(False)
