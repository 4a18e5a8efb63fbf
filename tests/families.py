"""Tiny models of every family with random weights, to compare with transformers' own forward pass."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import transformers as tr
from torch import Tensor, nn
from transformers.models.edgetam.configuration_edgetam import (
    EdgeTamMaskDecoderConfig,
    EdgeTamPromptEncoderConfig,
    EdgeTamVisionConfig,
)
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig, Sam2MaskDecoderConfig, Sam2PromptEncoderConfig

from ruac.families.nano import NanoConfig, NanoModel

WIDTH = 32
DECODER = {"hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 16}


def tiny_sam() -> tr.SamModel:
    return tr.SamModel(tr.SamConfig(**_first_generation()))


def tiny_sam_hq() -> tr.SamHQModel:
    parts = _first_generation()
    return tr.SamHQModel(tr.SamHQConfig(**{**parts, "mask_decoder_config": {**parts["mask_decoder_config"], "vit_dim": 48}}))


def tiny_sam2(**decoder: Any) -> tr.Sam2Model:
    backbone = Sam2HieraDetConfig(
        hidden_size=12,
        num_attention_heads=1,
        image_size=[64, 64],
        window_positional_embedding_background_size=[4, 4],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[12, 24, 48, 96],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 2, 2, 2],
        global_attention_blocks=[3],
    )
    vision = tr.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[96, 48, 24, 12],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=WIDTH,
    )
    prompts = Sam2PromptEncoderConfig(hidden_size=WIDTH, image_size=64, patch_size=16)
    return tr.Sam2Model(
        tr.Sam2Config(
            vision_config=vision,
            prompt_encoder_config=prompts,
            mask_decoder_config=Sam2MaskDecoderConfig(**DECODER, **decoder),
        )
    )


def tiny_sam3_tracker() -> tr.Sam3TrackerModel:
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "pretrain_image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
    }
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": WIDTH,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }
    prompts = {"hidden_size": WIDTH, "image_size": 56, "patch_size": 14}
    return tr.Sam3TrackerModel(
        tr.Sam3TrackerConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER)
    )


class FourMapsConfig(tr.PreTrainedConfig):
    """Of a stand-in for timm's RepViT, so that EdgeTAM can be tested without timm."""

    model_type = "test_four_maps"


class FourMaps(tr.PreTrainedModel):
    config_class = FourMapsConfig
    widths: ClassVar = (8, 12, 16, 24)

    def __init__(self, config: FourMapsConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(nn.Conv2d(3, width, 2 ** (i + 2), 2 ** (i + 2)) for i, width in enumerate(self.widths))
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> Any:
        return tr.modeling_outputs.BaseModelOutput(last_hidden_state=[layer(pixel_values) for layer in self.layers])


tr.AutoConfig.register("test_four_maps", FourMapsConfig)
tr.AutoModel.register(FourMapsConfig, FourMaps)


def tiny_edgetam() -> tr.EdgeTamModel:
    vision = EdgeTamVisionConfig(
        backbone_config=FourMapsConfig(),
        backbone_channel_list=list(reversed(FourMaps.widths)),
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=WIDTH,
    )
    prompts = EdgeTamPromptEncoderConfig(hidden_size=WIDTH, image_size=64, patch_size=16)
    return tr.EdgeTamModel(
        tr.EdgeTamConfig(
            vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=EdgeTamMaskDecoderConfig(**DECODER)
        )
    )


def tiny_nano() -> NanoModel:
    return NanoModel(NanoConfig.of_size(64, width=WIDTH))


TINY = {
    "sam": tiny_sam,
    "sam_hq": tiny_sam_hq,
    "sam2": tiny_sam2,
    "sam3_tracker": tiny_sam3_tracker,
    "edgetam": tiny_edgetam,
}


def shaken(model: Any, seed: int = 0) -> Any:
    """Every weight random and not small: transformers starts biases, and whole embeddings, at zero, where much is the same."""
    g = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        # the one random table of positions is shared between two modules in real checkpoints
        if value.is_floating_point() and "positional_embedding" not in name:
            value.copy_(value + 0.15 * torch.randn(value.shape, generator=g))
    shared = model.shared_image_embedding.positional_embedding
    model.prompt_encoder.shared_embedding.positional_embedding.data.copy_(shared.data)
    return model.eval().requires_grad_(False)


def _first_generation() -> dict[str, Any]:
    vision = {
        "hidden_size": 48,
        "output_channels": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
        "mlp_dim": 96,
        "window_size": 2,
        "global_attn_indexes": [0, 1],
        "num_pos_feats": WIDTH // 2,
    }
    prompts = {"hidden_size": WIDTH, "image_size": 64, "patch_size": 16, "image_embedding_size": 4, "mask_input_channels": 4}
    return {"vision_config": vision, "prompt_encoder_config": prompts, "mask_decoder_config": DECODER}
