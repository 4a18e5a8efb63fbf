"""Weights under the names of the original SAM 2 code, such as RUAC's authors published: translated for transformers' Sam2Model.

SAM 2 and 2.1 are the same model for images: 2.1 only adds tensors for video, and those are left out. So are RUAC's attackers.

The names inside the authors' head (`sam_mask_decoder.pixel_bndl.*`) are not public, its mathematics is (method, form A). Its layers
are told apart by the shapes of their weights. Two things are assumed: the 2C outputs of the map of the mask tokens are C for the
foreground, then C for the background; and tensors of one number (parameters of the prior) do not matter, unless their name speaks
of logits: a factor on the logits would. Whatever else does not fit is refused. That may happen to the authors' own file: beside SAM
2.1 and the attackers of their published code its 330,844,812 bytes have room for a head of about 34,500 numbers, and form A has
25,761.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Sam2Config, Sam2Model

TRUNK, HEAD = "image_encoder.trunk.", "sam_mask_decoder.pixel_bndl."
POSITION = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
SECOND_POSITION = "prompt_encoder.shared_embedding.positional_embedding"  # transformers' copy of the same matrix
POINTS = 4
LISTED = 10  # names in a message before it only counts

# first parts of the names that an image does not need: memory, object pointers; and the attacker without "attack" in its name
LEFT_OUT = {
    *("memory_attention", "memory_encoder", "maskmem_tpos_enc", "no_mem_pos_enc", "mask_downsample"),
    *("no_obj_ptr", "no_obj_embed_spatial", "obj_ptr_proj", "obj_ptr_tpos_proj"),
    "style_gcn",
}


class Hiera(NamedTuple):
    """An image encoder: width and heads of its first stage (both double from stage to stage), blocks and window of each stage,
    which blocks attend to the whole image, side of the background position embedding."""

    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    windows: tuple[int, int, int, int]
    whole: tuple[int, int, int]
    background: int


SIZES = {
    "tiny": Hiera(96, 1, (1, 2, 7, 2), (8, 4, 14, 7), (5, 7, 9), 7),
    "small": Hiera(96, 1, (1, 2, 11, 2), (8, 4, 14, 7), (7, 10, 13), 7),
    "base-plus": Hiera(112, 2, (2, 3, 16, 3), (8, 4, 14, 7), (12, 16, 20), 14),
    "large": Hiera(144, 2, (2, 6, 36, 4), (8, 4, 16, 8), (23, 33, 43), 7),
}

# From transformers' names to the original ones, one after the other: both have the same tree, read with other words.
RENAMES = [
    (r"^vision_encoder\.backbone\.", TRUNK),
    (r"^vision_encoder\.neck\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"^(prompt_encoder|mask_decoder)\.", r"sam_\1."),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    # an nn.Sequential counts its activations too
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    # perceptrons: three layers in the heads, two in the blocks of both transformers
    (r"(_head|_mlps\.\d)\.layers\.0\.", r"\1.layers.1."),
    (r"(_head|_mlps\.\d)\.proj_out\.", r"\1.layers.2."),
    (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
    (r"\.proj_in\.", ".layers.0."),
    (r"\.layer_norm(\d|_final_attn)\.", r".norm\1."),
    (r"\.o_proj\.", ".out_proj."),
]


class Layer(NamedTuple):
    """A layer of the paper's head: shapes of its weight and bias there, and what it is for, for messages."""

    weight: tuple[int, ...]
    bias: tuple[int]
    purpose: str


CHANNELS, TOKEN = 32, 256
HEAD_LAYERS = {
    "pixel_mean": Layer((CHANNELS, CHANNELS, 1, 1), (CHANNELS,), "pixels to pixels"),
    "pixel_concentration": Layer((1, CHANNELS, 1, 1), (1,), "pixels to their concentration"),
    "weight_mean": Layer((2 * CHANNELS, TOKEN), (2 * CHANNELS,), "mask tokens to the weights of foreground and background"),
    "weight_concentration": Layer((CHANNELS, TOKEN), (CHANNELS,), "mask tokens to the concentrations of their weights"),
}


@dataclass(frozen=True)
class Converted:
    """sam: all that `Sam2Model(config).load_state_dict` wants; head: the paper's head, None for a file of plain SAM 2.

    The tensors are those of the file, except that none is there twice.
    """

    config: Sam2Config
    sam: dict[str, Tensor]
    head: dict[str, Tensor] | None


def is_official(names: Iterable[str]) -> bool:
    """Whether tensors with these names come from the original SAM 2 code, or from code built on it."""
    return any(name.startswith((TRUNK, "sam_prompt_encoder.", "sam_mask_decoder.")) for name in names)


def convert(tensors: Mapping[str, Tensor]) -> Converted:
    """The same weights for transformers.

    Raises ValueError that lists every tensor which is missing, not known, or of another shape than the public models have.
    """
    size = _size(tensors)
    config = sam2_config(size)
    with torch.device("meta"):
        wanted = Sam2Model(config).state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, value in wanted.items():
        parts = _sources(name)
        shapes |= dict.fromkeys(parts, (len(value) // len(parts), *value.shape[1:]))
    head = {name: value for name, value in tensors.items() if name.startswith(HEAD)}
    unknown = [name for name in tensors if name not in shapes and name not in head and not _is_left_out(name)]
    reshaped = [name for name, shape in shapes.items() if name in tensors and tensors[name].shape != shape]
    problems = [
        *_listed("missing", [name for name in shapes if name not in tensors]),
        *_listed("not known", [_described(name, tensors[name]) for name in unknown]),
        *_listed("of another shape", [f"{_described(name, tensors[name])} instead of {list(shapes[name])}" for name in reshaped]),
        *_head_problems(head),
    ]
    if problems:
        raise ValueError(f"these are not the weights of SAM 2 ({size}) under their original names:\n" + "\n".join(problems))
    sam = {}
    for name in wanted:
        values = [tensors[source] for source in _sources(name)]
        sam[name] = values[0] if len(values) == 1 else torch.cat(values)
    sam[SECOND_POSITION] = sam[SECOND_POSITION].clone()  # of one matrix, and one tensor cannot be saved under two names
    return Converted(config, sam, _head(head) if head else None)


def sam2_config(size: str) -> Sam2Config:
    """The public SAM 2 of one of SIZES, at 1024 px."""
    hiera = SIZES[size]
    widths = [hiera.width * 2**stage for stage in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": hiera.width,
        "num_attention_heads": hiera.heads,
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [hiera.heads * 2**stage for stage in range(4)],
        "blocks_per_stage": list(hiera.blocks),
        "window_size_per_stage": list(hiera.windows),
        "global_attention_blocks": list(hiera.whole),
        "window_positional_embedding_background_size": [hiera.background] * 2,
    }
    vision = {"model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": widths[::-1]}
    return Sam2Config(vision_config=vision)


def _size(tensors: Mapping[str, Tensor]) -> str:
    """Which of SIZES has an image encoder of this width and depth."""
    first = tensors.get(f"{TRUNK}patch_embed.proj.weight")
    if first is None:
        raise ValueError(f"no image encoder of SAM 2 under its original names: {TRUNK}patch_embed.proj.weight is missing")
    numbers = [int(found[1]) for name in tensors if (found := re.match(re.escape(TRUNK) + r"blocks\.(\d+)\.", name))]
    width, depth = first.shape[0] if first.ndim else 0, max(numbers, default=-1) + 1
    for size, hiera in SIZES.items():
        if (hiera.width, sum(hiera.blocks)) == (width, depth):
            return size
    known = ", ".join(f"{size} {hiera.width} x {sum(hiera.blocks)}" for size, hiera in SIZES.items())
    raise ValueError(f"no public SAM 2 has an image encoder of width {width} with {depth} blocks ({TRUNK}*); known: {known}")


def _sources(name: str) -> list[str]:
    """Original names of the tensors that, one below the other, are transformers' tensor `name`."""
    if name.endswith(".positional_embedding"):  # of the clicks and of the image grid: one matrix, which transformers has twice
        return [POSITION]
    if name == "prompt_encoder.point_embed.weight":
        return [f"sam_prompt_encoder.point_embeddings.{i}.weight" for i in range(POINTS)]
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return [name]


def _is_left_out(name: str) -> bool:
    return name.split(".")[0] in LEFT_OUT or "attack" in name


def _head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head under our names. Its `_head_problems` are none."""
    head = {}
    for layer, weights in _by_layer(tensors).items():
        weight = weights[0]
        head[f"{layer}.weight"] = tensors[weight].reshape(HEAD_LAYERS[layer].weight)
        head[f"{layer}.bias"] = tensors[_bias(weight)]
    return head


def _head_problems(tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps the tensors of a head from being the paper's, a line each; none when there are no tensors."""
    if not tensors:
        return []
    problems, used = [], set()
    for layer, weights in _by_layer(tensors).items():
        shape, bias_shape, purpose = HEAD_LAYERS[layer]
        used |= {name for weight in weights for name in (weight, _bias(weight))}
        if len(weights) != 1:
            found = ", ".join(weights) or "none"
            problems.append(f"head: exactly one weight {list(shape[:2])} ({purpose}) expected, found {found}")
        for bias in map(_bias, weights):
            if bias not in tensors:
                problems.append(f"head: {bias} {list(bias_shape)} ({purpose}) is missing")
            elif tensors[bias].shape != bias_shape:
                problems.append(f"head: {_described(bias, tensors[bias])} ({purpose}) instead of {list(bias_shape)}")
    for name, value in tensors.items():
        if name not in used and (value.numel() > 1 or "logit" in name):
            problems.append(f"head: {_described(name, value)} has no place")
    if problems:
        problems.append("head: all it has is " + ", ".join(_described(name, value) for name, value in tensors.items()))
    return problems


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """For each of HEAD_LAYERS the names of the weights with its shape, as a linear layer or as a convolution of 1 x 1."""
    found: dict[str, list[str]] = {layer: [] for layer in HEAD_LAYERS}
    for name, value in tensors.items():
        for layer, (shape, _, _) in HEAD_LAYERS.items():
            if name.endswith(".weight") and tuple(value.shape) in (shape[:2], (*shape[:2], 1, 1)):
                found[layer].append(name)
    return found


def _bias(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"


def _described(name: str, value: Tensor) -> str:
    return f"{name} {list(value.shape)}"


def _listed(kind: str, entries: Collection[str]) -> list[str]:
    """A line of a message; no line for nothing."""
    if not entries:
        return []
    more = f" and {len(entries) - LISTED} more" if len(entries) > LISTED else ""
    return [f"{kind} ({len(entries)}): " + ", ".join(list(entries)[:LISTED]) + more]
