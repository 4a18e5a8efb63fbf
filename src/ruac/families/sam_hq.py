"""SAM-HQ: SAM whose masks are the sum of its own and of a high-quality token's, on finer features."""

from __future__ import annotations

from typing import Any

import torch

from ruac.families.decoder import hypernetworks, unflatten, upscale
from ruac.families.sam import Sam
from ruac.features import DecoderFeatures, Frame, ImageFeatures, Prompts


class SamHQ(Sam):
    """sam: transformers' `SamHQModel`.

    Both of its products are one: logit = [h, h_hq] · [x, x_hq], so that pixels, weights and tokens are twice as wide as SAM's.
    """

    def __init__(self, sam: Any):
        super().__init__(sam)
        self.channels *= 2
        self.token_width *= 2

    def encode(self, pixels: torch.Tensor, frames: tuple[Frame, ...]) -> ImageFeatures:
        decoder = self.sam.mask_decoder
        output = self.sam.vision_encoder(self._normalised(pixels, frames))
        coarse, early = output.last_hidden_state, output.intermediate_embeddings[0].permute(0, 3, 1, 2)
        fine = decoder.encoder_conv2(decoder.activation(decoder.encoder_norm(decoder.encoder_conv1(coarse))))
        fine = fine + decoder.compress_vit_conv2(decoder.activation(decoder.compress_vit_norm(decoder.compress_vit_conv1(early))))
        return ImageFeatures((fine, coarse), frames, self.sam.get_image_wide_positional_embeddings())

    def decode(self, features: ImageFeatures, prompts: Prompts) -> DecoderFeatures:
        decoder = self.sam.mask_decoder
        fine, coarse = features.expand(prompts.points.shape[1])
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, decoder.hq_token.weight])
        tokens, image = self._attend(own, coarse, features.position, prompts)
        mask_tokens, hq_token = tokens[:, 1:-1], tokens[:, -1:]
        pixels = upscale(decoder, image)
        refined = decoder.mask_conv2(decoder.activation(decoder.mask_norm(decoder.mask_conv1(pixels)))) + fine
        hq_weights = decoder.hq_mask_mlp(hq_token).expand(-1, mask_tokens.shape[1], -1)
        found = DecoderFeatures(
            pixels=torch.cat([pixels, refined], 1),
            weights=torch.cat([hypernetworks(decoder.output_hypernetworks_mlps, mask_tokens), hq_weights], -1),
            tokens=torch.cat([mask_tokens, hq_token.expand_as(mask_tokens)], -1),
            iou=decoder.iou_prediction_head(tokens[:, 0]),
            object_logit=None,
        )
        return unflatten(found, len(prompts.points))
