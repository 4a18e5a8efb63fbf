"""What a stage trains, and how fast."""

from __future__ import annotations

from typing import Any

from torch import nn

from ruac.model import RuacModel
from ruac.training.config import Stage
from ruac.training.objective import Objective
from ruac.training.start import is_nano
from ruac.training.variant import Variant


def parameter_groups(objective: Objective, variant: Variant, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for the optimiser, each with its peak rate; what the stage does not train is set to need no gradient.

    Raises ValueError when nothing is left to train.
    """
    model, stage = objective.model, objective.stage
    model.requires_grad_(True)
    frozen, encoder = _frozen(model, stage), {id(p) for p in _image_encoder(model).parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        by_stage = stage.trains_head if name.startswith("head.") else stage.train != "head" and id(p) not in frozen
        p.requires_grad_(by_stage if variant.trains is None else variant.trains(name))
        if p.requires_grad:
            rate, decay = stage.rate, weight_decay if p.ndim > 1 else 0.0
            if name.startswith("head."):
                # its start, at zero, is no better than any other place
                rate, decay = stage.rate if stage.head_rate is None else stage.head_rate, 0.0
            elif id(p) in encoder:
                rate = stage.encoder_rate
            groups.setdefault((rate, decay), []).append(p)
    if not groups:
        raise ValueError("stages: nothing to train; the head of this model has no parameters, or all is left out")
    found: list[dict[str, Any]] = [{"params": ps, "peak": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]
    attackers = attacking_parameters(objective)
    if attackers and stage.attack is not None:
        found.append({"params": attackers, "peak": stage.attack.rate, "weight_decay": weight_decay})
    return found


def attacking_parameters(objective: Objective) -> list[nn.Parameter]:
    """Those of the attackers, which climb; none where the attack does not learn."""
    return list(objective.attack.parameters()) if isinstance(objective.attack, nn.Module) else []


def _image_encoder(model: RuacModel) -> nn.Module:
    """What was trained before: of nano the backbone, for its pyramid starts from nothing."""
    return model.sam.vision_encoder.backbone if is_nano(model) else model.sam.vision_encoder


def _frozen(model: RuacModel, stage: Stage) -> set[int]:
    """The image encoder when the decoder alone learns; else, of nano, the first layers.

    And always the random table of positions, which some models call a parameter and hold twice.
    """
    frozen = {id(p) for name, p in model.named_parameters() if name.endswith(".positional_embedding")}
    if stage.train == "decoder":
        return frozen | {id(p) for p in model.sam.vision_encoder.parameters()}
    if is_nano(model):
        backbone = model.sam.vision_encoder.backbone
        backbone.freeze_early()
        frozen |= {id(p) for p in backbone.parameters() if not p.requires_grad}
    return frozen
