"""A model as two ONNX graphs: pixels to features, and features with prompts to masks and their uncertainty.

encoder: pixels uint8 [images, 3, S, S] -> fine, middle, coarse [images, C_i, H_i, W_i]
decoder: fine, middle, coarse of one image; points [objects, points, 2] (x, y) in the network input; labels int32 [objects, points],
    1 foreground, 0 background, 2 and 3 the corners of a box, -1 nothing; mask_input [objects, H, W], earlier logits or zeros ->
    mean, variance, probability, uncertainty [objects, 4, H, W], in bits the last; iou [objects, 4]; gain [objects, 4], mean / gain
    being a next mask_input; object_score [objects]; chosen int64 [objects], which of the four masks to show
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ruac.export.bundle import DECODER, ENCODER
from ruac.features import ImageFeatures, Prompts
from ruac.model import RuacModel, chosen_token
from ruac.onnx_backend import LEVELS

OPSET = 20
FAMILIES = ("ruac_nano", "sam2", "sam2_video", "sam3_tracker", "sam3_tracker_video", "sam3_video", "edgetam", "edgetam_video")
INPUTS = ("points", "labels", "mask_input")
OUTPUTS = ("mean", "variance", "probability", "uncertainty", "iou", "gain", "object_score", "chosen")
LARGEST = 2**31 - 1  # bytes of a graph in one piece


class EncoderGraph(nn.Module):
    def __init__(self, model: RuacModel):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return self.model.encode(pixels, ()).levels


class DecoderGraph(nn.Module):
    position: Tensor

    def __init__(self, model: RuacModel):
        super().__init__()
        self.model = model
        sam: Any = model.sam
        self.register_buffer("position", sam.get_image_wide_positional_embeddings().detach().clone())

    def forward(
        self, fine: Tensor, middle: Tensor, coarse: Tensor, points: Tensor, labels: Tensor, mask_input: Tensor
    ) -> tuple[Tensor, ...]:
        prompts = Prompts(points[None], labels[None].long(), mask_input[None])
        features = self.model.decode(ImageFeatures((fine, middle, coarse), (), self.position), prompts)
        found = self.model(features)
        assert features.object_logit is not None  # of all FAMILIES
        gain = found.gain if isinstance(found.gain, Tensor) else torch.ones_like(features.iou)[..., None, None]
        outputs = {
            "mean": found.mean,
            "variance": found.variance,
            "probability": found.probability(),
            "uncertainty": found.entropy(),
            "iou": features.iou,
            "gain": gain[..., 0, 0],
            "object_score": torch.sigmoid(features.object_logit),
            "chosen": chosen_token(features, prompts, self.model.stability)[..., 0],
        }
        return tuple(outputs[name][0] for name in OUTPUTS)


class _OptionalMask(nn.Module):
    """A prompt encoder's embedding of masks for objects of which only some have one: one of zeros is none."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.embed, self.nothing = encoder.mask_embed, encoder.no_mask_embed

    def forward(self, masks: Tensor) -> Tensor:
        given = (masks != 0).flatten(1).any(1)
        return torch.where(given[:, None, None, None], self.embed(masks), self.nothing.weight.reshape(1, -1, 1, 1))


def to_onnx(model: RuacModel) -> dict[str, bytes]:
    """Both graphs in full precision, by file name.

    Raises ValueError for a family that is not among FAMILIES, a model that is not in float32, and one that is too large.
    """
    kind = str(model.sam.config.model_type)
    if kind not in FAMILIES:
        raise ValueError(f"a model of type {kind} cannot be exported: nano can, and what is built like SAM 2")
    sam: Any = model.sam
    side, dtype = model.side, sam.dtype
    if dtype != torch.float32:
        raise ValueError(f"a model in {dtype} cannot be exported: load it in float32, and choose the precision of the export")
    images, objects, clicks = map(torch.export.Dim, ("images", "objects", "clicks"))
    with torch.no_grad(), _optional_masks(sam.prompt_encoder), _quiet():
        pixels = torch.zeros(2, 3, side, side, dtype=torch.uint8)
        levels = model.encode(pixels[:1], ()).levels
        encoder = _export(EncoderGraph(model), {"pixels": pixels}, LEVELS, {"pixels": {0: images}})
        # two or more of each: one alone would be taken for a constant
        points = torch.full((3, 5, 2), side / 2)
        labels = torch.tensor([1, 0, 2, 3, -1], dtype=torch.int32).repeat(3, 1)
        masks = torch.randn(3, model.grid, model.grid, generator=torch.Generator().manual_seed(0))
        names: tuple[str, ...] = (*LEVELS, *INPUTS)
        inputs: dict[str, Tensor] = dict(zip(names, (*levels, points, labels, masks), strict=True))
        of_points = {0: objects, 1: clicks}
        axes = {**dict.fromkeys(LEVELS), "points": of_points, "labels": of_points, "mask_input": {0: objects}}
        decoder = _export(DecoderGraph(model), inputs, OUTPUTS, axes)
    return {ENCODER: encoder, DECODER: decoder}


def _export(graph: nn.Module, inputs: dict[str, Tensor], outputs: tuple[str, ...], axes: dict[str, Any]) -> bytes:
    program = torch.export.export(graph.eval(), (), inputs, dynamic_shapes=axes)
    made = torch.onnx.export(
        program,
        (),
        kwargs=inputs,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        external_data=False,
        verbose=False,
    )
    assert made is not None  # with dynamo
    content = made.model_proto
    if content.ByteSize() > LARGEST:
        raise ValueError("the model is larger than 2 GB, which is more than a graph in one file can hold")
    return content.SerializeToString()


@contextmanager
def _optional_masks(encoder: Any) -> Iterator[None]:
    embed = encoder.mask_embed
    encoder.mask_embed = _OptionalMask(encoder)
    try:
        yield
    finally:
        encoder.mask_embed = embed


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on what it deprecates itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
