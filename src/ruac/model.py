"""RuacModel: a Segment Anything model and an uncertainty head, saved and loaded as one."""

from __future__ import annotations

import atexit
import gc
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

import ruac.families.nano  # noqa: F401  registers nano with AutoModel
from ruac import checksums
from ruac.distribution import MaskDistribution
from ruac.families import Family, open_model
from ruac.features import BACKGROUND, DecoderFeatures, Frame, ImageFeatures, Prompts
from ruac.heads import PlainHead, make_head

if TYPE_CHECKING:
    from ruac.onnx_backend import OnnxModel

# at its end the interpreter would look for garbage among the millions of objects of transformers, for most of a second
atexit.register(gc.freeze)


@strict
class RuacConfig(PreTrainedConfig):
    """sam: the configuration of the Segment Anything model, with its model_type; head: a name that `heads.make_head` knows;
    head_trained: whether the head's variance means anything yet. Until it does, the model answers with the plain logits; quality:
    the line of the calibrated expected IoU, as `ruac quality` fits it to these weights and this head, or None.
    """

    model_type = "ruac"

    sam: dict[str, Any] | None = None
    head: str = "exact"
    head_trained: bool = True
    quality: dict[str, float] | None = None


@dataclass(frozen=True)
class Answer:
    """M masks of each of the P prompted objects of an image. distribution: of their logits, [P, M, H, W]; iou: [P, M], predicted;
    object_score: [P], probability that there is an object at all, None of a model that does not say."""

    distribution: MaskDistribution
    iou: Tensor
    object_score: Tensor | None


class RuacModel(PreTrainedModel):
    """Encode an image once, decode for every click, read the mask and its uncertainty from a MaskDistribution."""

    config_class = RuacConfig
    config: RuacConfig
    _keep_in_fp32_modules_strict = [r"^head\."]  # noqa: RUF012  a pattern, because decoders have heads of their own

    def __init__(self, config: RuacConfig):
        super().__init__(config)
        self.sam = AutoModel.from_config(AutoConfig.for_model(**(config.sam or {"model_type": "ruac_nano"})))
        self.head = make_head(config.head, self.family.channels, self.family.token_width)
        self.post_init()

    @classmethod
    def around(cls, sam: PreTrainedModel, head: str = "exact") -> Self:
        """A Segment Anything model that is already there, its weights not copied, with a head at its start."""
        with torch.device("meta"):
            model = cls(RuacConfig(sam=sam.config.to_dict(), head=head, head_trained=False))
        model.sam = sam
        del model.family  # it was opened around the placeholder
        model.head = make_head(head, model.family.channels, model.family.token_width).to(sam.device)
        return model.train(sam.training)

    def _init_weights(self, module: torch.nn.Module) -> None:
        """The parts have initialised themselves."""

    @cached_property
    def family(self) -> Family:
        """The model as what turns pixels and prompts into features for the head."""
        return open_model(self.sam)

    @property
    def side(self) -> int:
        """Side of the square network input in pixels."""
        return self.family.side

    @property
    def grid(self) -> int:
        """Side of the low-resolution logits."""
        return self.family.grid

    @property
    def stability(self) -> tuple[float, float] | None:
        """When token 0 gives way to the best of the others; see `families.Family`."""
        return self.family.stability

    def prepare(self, image: Tensor) -> tuple[Tensor, Frame]:
        """uint8 RGB [3, height, width] to uint8 [3, S, S] and where the image lies there."""
        return self.family.prepare(image)

    def encode(self, pixels: Tensor, frames: tuple[Frame, ...]) -> ImageFeatures:
        """[B, 3, S, S] in 0..255."""
        return self.family.encode(pixels, frames)

    def decode(self, features: ImageFeatures, prompts: Prompts) -> DecoderFeatures:
        """All K candidate masks of every prompted object, as features for the head."""
        return self.family.decode(features, prompts)

    def forward(self, features: DecoderFeatures) -> MaskDistribution:
        """Logit mean and variance [B, P, K, H, W] at low resolution, in full precision whatever the model's."""
        features = features.map(lambda value: value.to(torch.promote_types(value.dtype, torch.float32)))
        with torch.autocast(features.pixels.device.type, enabled=False):
            return self.head(features) if self.config.head_trained else PlainHead()(features)

    def answer(self, image: ImageFeatures, prompts: Prompts, multimask_output: bool, token: int | None = None) -> Answer:
        """The masks that a person is shown, of an image alone and on the CPU: the one that the model chooses or, with
        multimask_output, tokens 1.. by predicted IoU; or the one of the `token` that is named.
        """
        features = self.decode(image, prompts)
        if token is not None:
            index = torch.full_like(features.iou[..., :1], token, dtype=torch.long)
        else:
            index = ranked_tokens(features.iou) if multimask_output else chosen_token(features, prompts, self.stability)
        features = features.select(index)
        distribution = self(features).map(lambda values: values[0].float().cpu())
        objectness = features.object_logit
        return Answer(
            distribution,
            features.iou[0].float().cpu(),
            None if objectness is None else torch.sigmoid(objectness[0].float()).cpu(),
        )

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """As transformers does, and a SHA256SUMS beside the weights."""
        super().save_pretrained(str(save_directory), **kwargs)
        checksums.write(Path(save_directory))


def ranked_tokens(iou: Tensor) -> Tensor:
    """The multimask tokens 1.. of predicted IoUs [B, P, K], the best first: [B, P, K - 1]."""
    return iou[..., 1:].argsort(dim=-1, descending=True) + 1


def chosen_token(features: DecoderFeatures, prompts: Prompts, stability: tuple[float, float] | None = None) -> Tensor:
    """The mask token to answer with, [B, P, 1]: SAM 2's own rules.

    One foreground click alone is ambiguous (part or whole?): the best of the multimask tokens 1.. by predicted IoU.
    Anything more says what is meant: token 0, trained for that; with `stability` only where its mask is stable, see `families.Family`.
    """
    best = features.iou[:, :, 1:].argmax(-1, keepdim=True) + 1
    words = (prompts.labels >= BACKGROUND).sum(-1, keepdim=True)
    use_best = words <= 1
    # a graph that is being made knows no values
    if stability is not None and (torch.compiler.is_compiling() or not use_best.all()):
        margin, least = stability
        logits = features.weights[:, :, :1] @ features.pixels.flatten(-2)
        sure, perhaps = (logits > margin).sum(-1), (logits > -margin).sum(-1)  # (B, P, 1)
        # an empty mask counts as stable
        use_best = use_best | (sure < least * perhaps)
    return torch.where(use_best, best, torch.zeros_like(best))


def channels_last(model: RuacModel) -> RuacModel:
    """Reorder the weights in place for the memory format that convolutions on CPUs are fastest with."""
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return model


def compile_encoder(model: RuacModel) -> RuacModel:
    """torch.compile for the image encoder, in place; the first picture after it takes minutes.

    On an NVIDIA GPU with CUDA graphs, whose outputs the next picture overwrites and which one thread alone may use: `Predictor`
    copies them. Elsewhere with what the compiler finds for it. The parts keep their names, so that what is saved stays the same.
    """
    encoder = cast(torch.nn.Module, model.sam.vision_encoder)
    encoder.compile(dynamic=False, mode="reduce-overhead" if model.device.type == "cuda" else None)
    return model


def weights_sha256(model: RuacModel | OnnxModel) -> str:
    """Hash of the head's kind and state, the input side and all parameters by name: the same wherever the model was loaded from.

    An untrained head answers nothing and is made anew at every loading: its numbers do not count. Of an exported model,
    `OnnxModel.sha256`.
    """
    if not isinstance(model, RuacModel):
        return model.sha256
    tensors = {k: v for k, v in model.state_dict().items() if model.config.head_trained or not k.startswith("head.")}
    return _sha256(tensors, f"{model.config.head} {model.config.head_trained} {model.side}")


def decoder_sha256(model: RuacModel) -> str:
    """Hash of the mask decoder alone, the part that a head's numbers depend on most directly.

    Of the signs of its weights: they are the same in every precision, and training turns some of them.
    """
    return _sha256({name: torch.signbit(value) for name, value in model.sam.mask_decoder.state_dict().items()}, "")


def head_sha256(head: torch.nn.Module) -> str:
    """Hash of a head's parameters."""
    return _sha256(head.state_dict(), "")


def _sha256(tensors: dict[str, Tensor], start: str) -> str:
    digest = hashlib.sha256(start.encode())
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
