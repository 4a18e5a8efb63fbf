"""SAM 2 and 2.1, and everything built like them: a stretched square, three feature levels, an object score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ruac.families.decoder import attend, embed_masks, embed_points, hypernetworks, unflatten, upscale
from ruac.families.inputs import IMAGENET_MEAN, IMAGENET_SPREAD, normalise, stretch_to_square
from ruac.features import BACKGROUND, DecoderFeatures, Frame, ImageFeatures, Prompts


class Sam2:
    """sam: transformers' `Sam2Model`, or one with the same parts."""

    mean, spread = IMAGENET_MEAN, IMAGENET_SPREAD

    def __init__(self, sam: Any):
        self.sam = sam
        decoder = sam.config.mask_decoder_config
        self.side: int = sam.prompt_encoder.input_image_size
        self.grid: int = sam.prompt_encoder.mask_input_size[0]
        self.channels: int = decoder.hidden_size // 8
        self.token_width: int = decoder.hidden_size
        self.stability: tuple[float, float] | None = (
            (decoder.dynamic_multimask_stability_delta, decoder.dynamic_multimask_stability_thresh)
            if decoder.dynamic_multimask_via_stability
            else None
        )

    def prepare(self, image: Tensor) -> tuple[Tensor, Frame]:
        return stretch_to_square(image, self.side)

    def encode(self, pixels: Tensor, frames: tuple[Frame, ...]) -> ImageFeatures:
        sam = self.sam
        levels = list(sam.vision_encoder(normalise(pixels, self.mean, self.spread, sam.dtype)).fpn_hidden_states)
        # the last one, also where there are four, as in SAM 3, and the decoder takes three: what transformers does
        levels[-1] = levels[-1] + sam.no_memory_embedding.reshape(1, -1, 1, 1)
        fine, middle, coarse = levels[:3]
        decoder = sam.mask_decoder
        levels = (decoder.conv_s0(fine), decoder.conv_s1(middle), coarse)
        return ImageFeatures(levels, frames, sam.get_image_wide_positional_embeddings())

    def decode(self, features: ImageFeatures, prompts: Prompts) -> DecoderFeatures:
        return decode(self.sam, features.expand(prompts.points.shape[1]), features.position, prompts)


def decode(sam: Any, levels: tuple[Tensor, ...], position: Tensor, prompts: Prompts) -> DecoderFeatures:
    """Everything about the prompted objects but the masks themselves, which are the head's to make.

    levels: per object, stride 4 [M, D/8, 4h, 4w], stride 8 [M, D/4, 2h, 2w] and stride 16 [M, D, h, w]; position: [1, D, h, w].
    """
    encoder, decoder = sam.prompt_encoder, sam.mask_decoder
    fine, middle, coarse = levels
    if not prompts.labels.shape[-1]:
        prompts = prompts.with_points(*_no_point(prompts))
    words = prompts.labels.flatten(0, 1) >= BACKGROUND  # (M, N)
    said = embed_points(encoder, encoder.point_embed.weight, prompts)
    own = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(coarse.shape[0], *own.shape), said.to(own.dtype)], 1)
    absent = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    absent[:, len(own) : -1] = ~words
    absent[:, len(own)] &= words.any(-1)  # of an object about which nothing is said, SAM 2 hears "no point" twice
    tokens, image = attend(decoder.transformer, tokens, absent, coarse + embed_masks(encoder, prompts), position)
    mask_tokens = tokens[:, 2 : len(own)]
    features = DecoderFeatures(
        pixels=upscale(decoder, image, middle, fine),
        weights=hypernetworks(decoder.output_hypernetworks_mlps, mask_tokens),
        tokens=mask_tokens,
        iou=decoder.iou_prediction_head(tokens[:, 1]),
        object_logit=decoder.pred_obj_score_head(tokens[:, 0]).squeeze(-1),
    )
    return unflatten(features, len(prompts.points))


def _no_point(prompts: Prompts) -> tuple[Tensor, Tensor]:
    shape = (*prompts.labels.shape[:2], 1)
    return prompts.points.new_zeros(*shape, 2), prompts.labels.new_full(shape, -1)
