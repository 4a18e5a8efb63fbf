"""What a mask decoder of transformers' sees on its way to the logits, taken beside a forward pass that stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from ruac.features import DecoderFeatures, Prompts
from ruac.model import chosen_token


@contextmanager
def recording(decoder: Any, stability: tuple[float, float] | None) -> Iterator[list[DecoderFeatures]]:
    """A list that grows by one entry for each pass through the decoder: of the mask that the pass has chosen, so K = 1.

    decoder: a mask decoder of SAM 2's kind; stability: see `families.Family`.
    """
    passes: list[DecoderFeatures] = []
    seen: dict[str, Tensor] = {}
    weights: list[Tensor] = []
    tokens: list[Tensor] = []

    def begin(_: Any, __: Any, arguments: dict[str, Any]) -> None:
        seen["multimask"] = torch.tensor(bool(arguments["multimask_output"]))
        weights.clear()
        tokens.clear()

    def keep(name: str) -> Any:
        # the last one counts: the activation is called once for each upscaling
        return lambda _, __, output: seen.__setitem__(name, output)

    def keep_weights(_: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        tokens.append(inputs[0])
        weights.append(output)

    def end(_: Any, __: Any, ___: Any) -> None:
        batch, objects = seen["iou"].shape[:2]
        features = DecoderFeatures(
            pixels=seen["pixels"].unflatten(0, (batch, objects)),
            weights=torch.stack(weights, 2),
            tokens=torch.stack(tokens, 2),
            iou=seen["iou"],
            object_logit=seen["object"].squeeze(-1),
        )
        passes.append(features.select(_choice(features, bool(seen["multimask"]), stability)))

    with ExitStack() as hooks:
        for handle in (
            decoder.register_forward_pre_hook(begin, with_kwargs=True),
            decoder.activation.register_forward_hook(keep("pixels")),
            decoder.iou_prediction_head.register_forward_hook(keep("iou")),
            decoder.pred_obj_score_head.register_forward_hook(keep("object")),
            *(mlp.register_forward_hook(keep_weights) for mlp in decoder.output_hypernetworks_mlps),
            decoder.register_forward_hook(end),
        ):
            hooks.callback(handle.remove)
        yield passes


def _choice(features: DecoderFeatures, multimask: bool, stability: tuple[float, float] | None) -> Tensor:
    """The mask token that the video model goes on with, [B, P, 1]: the rules of `chosen_token`, its own idea of one word."""
    words = torch.ones(*features.iou.shape[:2], 1 if multimask else 2, dtype=torch.long, device=features.iou.device)
    return chosen_token(features, Prompts(words[..., None].expand(*words.shape, 2), words), stability)
