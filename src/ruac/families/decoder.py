"""What the mask decoders of the whole family share: prompt tokens, the two-way transformer, the last upscaling.

transformers' modules are called part by part, for two reasons: their own `forward` multiplies pixels and weights before anyone can
look at them, and it has no way to hide the padding of a batch, so that an object's mask would depend on its neighbours' clicks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ruac.features import BACKGROUND, DecoderFeatures, Prompts


def embed_points(encoder: Any, kinds: Tensor, prompts: Prompts) -> Tensor:
    """Tokens of all points, and one more that is no point, which ends every list: [M, N + 1, D] with M = B * P.

    encoder: a prompt encoder; kinds: [4, D], its embeddings of background, foreground and the two corners of a box.
    """
    points, labels = prompts.points.flatten(0, 1), prompts.labels.flatten(0, 1)
    side = encoder.input_image_size
    # at pixel centres; four dimensions is what the encoding expects, which rounds coordinates to its own precision
    places = encoder.shared_embedding((points + 0.5).float().unsqueeze(0), (side, side))[0]
    nothing = encoder.not_a_point_embed.weight
    tokens = torch.where((labels >= BACKGROUND)[..., None], places + kinds[labels.clamp_min(0)], nothing)
    return torch.cat([tokens, nothing.expand(tokens.shape[0], 1, -1)], 1)


def embed_masks(encoder: Any, prompts: Prompts) -> Tensor:
    """What is added to the coarse features for the earlier masks: [M, D, h, w], or [1, D, 1, 1] where there are none."""
    if prompts.mask_logits is None:
        return encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    masks = prompts.mask_logits.flatten(0, 1).unsqueeze(1)
    return encoder.mask_embed(masks.to(encoder.no_mask_embed.weight.dtype))


def attend(transformer: Any, tokens: Tensor, absent: Tensor, image: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """The two-way transformer of any Segment Anything.

    tokens: [M, T, D]; absent: boolean [M, T], tokens that nothing may look at; image: [M, D, h, w]; position: [1, D, h, w].
    Returns both after it has run.
    """
    hidden = None
    if torch.compiler.is_compiling() or absent.any():  # a graph that is being made knows no values
        hidden = torch.zeros(absent.shape, dtype=tokens.dtype, device=tokens.device)
        hidden = hidden.masked_fill(absent, -torch.inf)[:, None, None]  # (M, heads, queries, T)
    first = queries = tokens.unsqueeze(1)
    keys, place = (maps.flatten(2).mT.unsqueeze(1) for maps in (image, position))
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            queries = layer.self_attn(queries, queries, queries, hidden)[0]
        else:
            queries = queries + layer.self_attn(queries + first, queries + first, queries, hidden)[0]
        queries = layer.layer_norm1(queries)
        queries = queries + layer.cross_attn_token_to_image(queries + first, keys + place, keys)[0]
        queries = layer.layer_norm2(queries)
        queries = layer.layer_norm3(queries + layer.mlp(queries))
        keys = keys + layer.cross_attn_image_to_token(keys + place, queries + first, queries, hidden)[0]
        keys = layer.layer_norm4(keys)
    queries = queries + transformer.final_attn_token_to_image(queries + first, keys + place, keys)[0]
    queries = transformer.layer_norm_final_attn(queries)
    return queries.squeeze(1), keys.squeeze(1).mT.unflatten(-1, image.shape[-2:])


def upscale(decoder: Any, image: Tensor, middle: Tensor | None = None, fine: Tensor | None = None) -> Tensor:
    """[M, D, h, w] to pixel features [M, D/8, 4h, 4w], with the encoder's finer levels where a family has them."""
    pixels = decoder.upscale_conv1(image)
    pixels = decoder.activation(decoder.upscale_layer_norm(pixels if middle is None else pixels + middle))
    pixels = decoder.upscale_conv2(pixels)
    return decoder.activation(pixels if fine is None else pixels + fine)


def hypernetworks(mlps: nn.ModuleList, tokens: Tensor) -> Tensor:
    """Mask tokens [M, K, D] to mask weights [M, K, C], each by its own network."""
    return torch.stack([mlp(tokens[:, k]) for k, mlp in enumerate(mlps)], 1)


def unflatten(features: DecoderFeatures, images: int) -> DecoderFeatures:
    """Features of M = B * P objects, whose fields lack the second axis, as [B, P, ...]."""
    return features.map(lambda value: value.unflatten(0, (images, -1)))
