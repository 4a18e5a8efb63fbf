"""SAM, the first one: a padded square, one feature level, no object score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ruac.families.decoder import attend, embed_masks, embed_points, hypernetworks, unflatten, upscale
from ruac.families.inputs import IMAGENET_MEAN, IMAGENET_SPREAD, normalise, pad_to_square
from ruac.features import BACKGROUND, BOX_TOP_LEFT, DecoderFeatures, Frame, ImageFeatures, Prompts

STRIDE = 4  # of the decoder's output grid
GREY = 116  # about ImageNet's mean; what is padded is black after normalisation anyway


class Sam:
    """sam: transformers' `SamModel`."""

    stability = None

    def __init__(self, sam: Any):
        self.sam = sam
        self.side: int = sam.prompt_encoder.input_image_size
        self.grid: int = STRIDE * sam.prompt_encoder.image_embedding_size[0]
        self.token_width: int = sam.mask_decoder.hidden_size
        self.channels: int = self.token_width // 8

    def prepare(self, image: Tensor) -> tuple[Tensor, Frame]:
        return pad_to_square(image, self.side, self.side // self.grid, GREY)

    def encode(self, pixels: Tensor, frames: tuple[Frame, ...]) -> ImageFeatures:
        coarse = self.sam.vision_encoder(self._normalised(pixels, frames)).last_hidden_state
        return ImageFeatures((coarse,), frames, self.sam.get_image_wide_positional_embeddings())

    def decode(self, features: ImageFeatures, prompts: Prompts) -> DecoderFeatures:
        decoder = self.sam.mask_decoder
        (coarse,) = features.expand(prompts.points.shape[1])
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens, image = self._attend(own, coarse, features.position, prompts)
        mask_tokens = tokens[:, 1:]
        found = DecoderFeatures(
            pixels=upscale(decoder, image),
            weights=hypernetworks(decoder.output_hypernetworks_mlps, mask_tokens),
            tokens=mask_tokens,
            iou=decoder.iou_prediction_head(tokens[:, 0]),
            object_logit=None,
        )
        return unflatten(found, len(prompts.points))

    def _normalised(self, pixels: Tensor, frames: tuple[Frame, ...]) -> Tensor:
        normalised = normalise(pixels, IMAGENET_MEAN, IMAGENET_SPREAD, self.sam.dtype)
        for image, frame in zip(normalised, frames, strict=False):  # no frames: nothing is padded
            image[:, frame.inside[0] :] = 0
            image[:, :, frame.inside[1] :] = 0
        return normalised

    def _attend(self, own: Tensor, coarse: Tensor, position: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """The decoder's own tokens [T, D] after the transformer, [M, T, D], and the coarse features after it."""
        encoder, decoder = self.sam.prompt_encoder, self.sam.mask_decoder
        kinds = torch.cat([kind.weight for kind in encoder.point_embed])
        said = embed_points(encoder, kinds, prompts)
        tokens = torch.cat([own.expand(len(coarse), *own.shape), said.to(own.dtype)], 1)
        labels = prompts.labels.flatten(0, 1)
        words = labels >= BACKGROUND
        # the first SAM hears the closing "no point" only after clicks without a box
        closed = words.any(-1) & ~(labels >= BOX_TOP_LEFT).any(-1)
        absent = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        absent[:, len(own) :] = ~torch.cat([words, closed[:, None]], 1)
        tokens, image = attend(decoder.transformer, tokens, absent, coarse + embed_masks(encoder, prompts), position)
        return tokens[:, : len(own)], image
