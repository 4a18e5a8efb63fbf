"""RuacModel: a Segment Anything model and an uncertainty head, saved and loaded as one (safetensors only)."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

import ruac.families.nano  # noqa: F401  registers nano with AutoModel
from ruac.distribution import MaskDistribution
from ruac.features import BACKGROUND, DecoderFeatures, Frame, ImageFeatures, Prompts
from ruac.heads import make_head


@strict
class RuacConfig(PreTrainedConfig):
    """sam: the configuration of the Segment Anything model, with its model_type; head: a name that `heads.make_head` knows."""

    model_type = "ruac"

    sam: dict[str, Any] | None = None
    head: str = "exact"


class RuacModel(PreTrainedModel):
    """Encode an image once, decode for every click, read the mask and its uncertainty from a MaskDistribution."""

    config_class = RuacConfig
    config: RuacConfig

    def __init__(self, config: RuacConfig):
        super().__init__(config)
        self.sam = AutoModel.from_config(AutoConfig.for_model(**(config.sam or {"model_type": "ruac_nano"})))
        self.head = make_head(config.head, self.sam.channels, self.sam.token_width)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """The parts have initialised themselves."""

    @property
    def side(self) -> int:
        """Side of the square network input in pixels."""
        return self.sam.side

    @property
    def grid(self) -> int:
        """Side of the low-resolution logits."""
        return self.sam.grid

    def prepare(self, image: Tensor) -> tuple[Tensor, Frame]:
        """uint8 RGB [3, height, width] to uint8 [3, S, S] and where the image lies there."""
        return self.sam.prepare(image)

    def encode(self, pixels: Tensor, frames: tuple[Frame, ...]) -> ImageFeatures:
        """[B, 3, S, S] in 0..255."""
        return self.sam.encode(pixels, frames)

    def decode(self, features: ImageFeatures, prompts: Prompts) -> DecoderFeatures:
        """All K candidate masks of every prompted object, as features for the head."""
        return self.sam.decode(features, prompts)

    def forward(self, features: DecoderFeatures) -> MaskDistribution:
        """Logit mean and variance [B, P, K, H, W] at low resolution."""
        return self.head(features)


def chosen_token(features: DecoderFeatures, prompts: Prompts) -> Tensor:
    """The mask token to answer with, [B, P, 1].

    One foreground click alone is ambiguous (part or whole?): the best of the multimask tokens 1.. by predicted IoU.
    Anything more says what is meant: token 0, trained for that. SAM 2's own rule.
    """
    best = features.iou[:, :, 1:].argmax(-1, keepdim=True) + 1
    words = (prompts.labels >= BACKGROUND).sum(-1, keepdim=True)
    return torch.where(words <= 1, best, torch.zeros_like(best))


def load(model: str | Path, device: str = "cpu") -> RuacModel:
    """A model by name: "nano" (ships with the package), a folder that `save_pretrained` wrote, or a hub id "owner/name".

    Raises FileNotFoundError naming the folder when it holds no model, ValueError for a device that is not there.
    """
    _check_device(device)
    path = Path(str(files("ruac") / "weights" / "nano")) if str(model) == "nano" else Path(model)
    is_hub_id = not path.exists() and str(model).count("/") == 1 and not str(model).startswith((".", "/", "~"))
    if not is_hub_id and not (path / "model.safetensors").is_file():
        raise FileNotFoundError(f"no model at {path}: expected a folder with config.json and model.safetensors, or 'nano'")
    name = str(model) if is_hub_id else str(path)
    loaded = RuacModel.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
    loaded.eval().to(device=device)  # pyright: ignore[reportCallIssue]  hidden by transformers' own signature
    return channels_last(loaded)


def channels_last(model: RuacModel) -> RuacModel:
    """Reorder the weights in place for the memory format that convolutions on CPUs are fastest with."""
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return model


def weights_sha256(model: RuacModel) -> str:
    """Hash of the head's kind, the input side and all parameters by name: the same wherever the model was loaded from."""
    digest = hashlib.sha256(f"{model.config.head} {model.side}".encode())
    tensors: dict[str, Tensor] = model.state_dict()
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_device(device: str) -> None:
    """Raises ValueError for one that this machine or this torch does not have."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device}: not available here ({reason}); use cpu") from None
