"""SAM 2's mask decoder, opened at its last product."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder

from ruac.features import DecoderFeatures


def decode(
    decoder: Sam2MaskDecoder,
    levels: tuple[Tensor, ...],
    position: Tensor,
    sparse: Tensor,
    dense: Tensor,
) -> DecoderFeatures:
    """All that `Sam2MaskDecoder.forward` computes before and beside its hypernetwork product.

    levels: per object, stride 4 [M, D/8, 4h, 4w], stride 8 [M, D/4, 2h, 2w] and stride 16 [M, D, h, w]; position: [1, D, h, w],
    encoding of the grid; sparse: [M, 1, N, D] point tokens; dense: [M or 1, D, h, w] mask prompt.
    Returns features with B = M and P = 1.
    """
    fine, middle, coarse = levels
    own = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(len(coarse), 1, *own.shape), sparse], 2)
    tokens, image = decoder.transformer(
        point_embeddings=tokens,
        image_embeddings=coarse + dense,
        image_positional_embeddings=position.expand_as(coarse),
        attention_similarity=None,
    )
    mask_tokens = tokens[:, :, 2 : 2 + decoder.num_mask_tokens]
    image = image.squeeze(1).mT.unflatten(-1, coarse.shape[-2:])
    pixels = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(image) + middle))
    pixels = decoder.activation(decoder.upscale_conv2(pixels) + fine)
    weights = [mlp(mask_tokens[:, :, k]) for k, mlp in enumerate(decoder.output_hypernetworks_mlps)]
    return DecoderFeatures(
        pixels=pixels.unsqueeze(1),
        weights=torch.stack(weights, 2),
        tokens=mask_tokens,
        iou=decoder.iou_prediction_head(tokens[:, :, 1]),
        object_logit=decoder.pred_obj_score_head(tokens[:, :, 0]).squeeze(-1),
    )
