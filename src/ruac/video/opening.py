"""From a name or a model to the two models of a video: the one for single images, and the one with a memory."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from ruac.adapter import load_head
from ruac.families import model_class
from ruac.loading import UNTRAINED, check_device, load, pretrained
from ruac.model import RuacModel, head_sha256, weights_sha256

# model_type of a checkpoint that holds a memory: transformers' class for it
VIDEO_MODELS = {
    "sam2_video": "Sam2VideoModel",
    "sam3_tracker_video": "Sam3TrackerVideoModel",
    "sam3_video": "Sam3TrackerVideoModel",
    "edgetam_video": "EdgeTamVideoModel",
}


def open_model(
    model: str | Path | PreTrainedModel, device: str = "cpu", head: str | Path | None = None
) -> tuple[RuacModel, PreTrainedModel | None]:
    """The model that decodes single images, with its head, and the video model around the same weights, None of one without a memory.

    model: what `ruac.load` takes, where checkpoints of SAM 2, SAM 3's tracker and EdgeTAM keep their memory; or a loaded model, a
    RuacModel or transformers' video model, which stays where it is. Warns and raises as `ruac.load` does, and ValueError for a
    head beside a RuacModel, which has its own.
    """
    if isinstance(model, RuacModel):
        if head is not None:
            raise ValueError(f"{head}: a RuacModel has its head inside; leave head out, or name the model that the head is for")
        return model.eval(), None
    if isinstance(model, PreTrainedModel):
        video = model
    else:
        name = _video_class(model)
        if name is None:
            return load(model, device, head=head), None
        check_device(device)
        video = pretrained(getattr(transformers, name), str(model))
    kind = str(video.config.model_type)
    if kind not in VIDEO_MODELS:
        raise ValueError(
            f"a model of type '{kind}' has no memory for video: known are {', '.join(VIDEO_MODELS)}, and any RuacModel"
        )
    image = RuacModel.around(image_part(video))
    if head is not None:
        load_head(image, Path(head))
    if not image.config.head_trained:
        warnings.warn(UNTRAINED.format(model if isinstance(model, str | Path) else kind), stacklevel=3)
    if not isinstance(model, PreTrainedModel):
        video.to(device)  # pyright: ignore[reportArgumentType]
    image.head.to(video.device)
    return image.eval(), video.eval()


def tracker_sha256(image: RuacModel, video: PreTrainedModel | None) -> str:
    """Hash of all weights that a track depends on: `weights_sha256` and, of a model with a memory, also the memory's."""
    own = weights_sha256(image)
    return own if video is None else hashlib.sha256(f"{own} {head_sha256(video)}".encode()).hexdigest()


def image_part(video: Any) -> PreTrainedModel:
    """The model for single images inside a video model: the same modules, not copies."""
    kind = model_class(video.config.model_type)
    parts = {name: getattr(video.config, name) for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")}
    with torch.device("meta"):
        image = kind(kind.config_class(**parts))  # pyright: ignore[reportOptionalCall]
    for name, _ in list(image.named_children()):
        setattr(image, name, getattr(video, name))
    image.no_memory_embedding = video.no_memory_embedding
    return image.train(video.training)  # what is around shared modules must not change how they work


def _video_class(model: str | Path) -> str | None:
    """transformers' class for a folder or a hub id with a memory; None for everything else, which `load` judges."""
    if str(model) == "nano" or Path(model).is_file():
        return None
    if not (Path(model) / "config.json").is_file() and (Path(model).exists() or str(model).count("/") != 1):
        return None
    try:
        kind = PreTrainedConfig.get_config_dict(str(model))[0].get("model_type")
    except (OSError, ValueError):
        return None
    return VIDEO_MODELS.get(str(kind))
