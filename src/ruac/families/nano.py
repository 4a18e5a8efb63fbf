"""nano: a Segment Anything model of under five million parameters that runs in a blink on a laptop.

An EfficientNet-Lite0 encoder with a small feature pyramid, SAM 2's prompt encoder and mask decoder (transformers' own modules) at
width 128, and dense click maps. It is a `Sam2Model`, registered with transformers' AutoConfig and AutoModel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, Sam2Config, Sam2Model
from transformers.configuration_utils import SubConfigSpec
from transformers.models.sam2.modeling_sam2 import Sam2ImageSegmentationOutput, Sam2VisionEncoderOutput

from ruac.families import sam2
from ruac.families.dense_prompts import ChannelNorm, DensePrompts, draw
from ruac.families.efficientnet import TAP_CHANNELS, EfficientNetLite0
from ruac.families.inputs import pad_to_square
from ruac.features import DecoderFeatures, Frame, ImageFeatures, Prompts, box_points

STRIDES = (4, 8, 16)
# what the ImageNet weights were trained with
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0


@strict
class NanoVisionConfig(PreTrainedConfig):
    """image_size: side of the square input in pixels, a multiple of 32; fpn_hidden_size: width of the pyramid and the decoder."""

    model_type = "ruac_nano_vision"
    base_config_key = "vision_config"

    image_size: int = 512
    fpn_hidden_size: int = 128
    num_feature_levels: int = 3

    @property
    def backbone_feature_sizes(self) -> list[list[int]]:
        return [[self.image_size // stride] * 2 for stride in STRIDES]


@strict
class NanoConfig(Sam2Config):
    """A Sam2Config whose vision part is nano's; mixing_depths: residual blocks after the dense prompts, fine to coarse."""

    model_type = "ruac_nano"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {  # pyright: ignore[reportIncompatibleVariableOverride]
        **Sam2Config.sub_configs_defaults,
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="ruac_nano_vision"),
    }

    mixing_depths: list[int] | tuple[int, ...] = (1, 2, 3)

    @classmethod
    def of_size(cls, image_size: int = 512, width: int = 128) -> NanoConfig:
        """The standard nano at another input size or width."""
        return cls(
            vision_config={"model_type": "ruac_nano_vision", "image_size": image_size, "fpn_hidden_size": width},
            prompt_encoder_config={"hidden_size": width, "image_size": image_size, "patch_size": STRIDES[-1]},
            mask_decoder_config={"hidden_size": width, "mlp_dim": 4 * width, "iou_head_hidden_dim": width},
        )


class NanoVisionModel(PreTrainedModel):
    """Normalised images [B, 3, S, S] to a normalised pyramid at strides 4, 8, 16."""

    config: NanoVisionConfig
    config_class = NanoVisionConfig
    main_input_name = "pixel_values"

    def __init__(self, config: NanoVisionConfig):
        super().__init__(config)
        width = config.fpn_hidden_size
        self.backbone = EfficientNetLite0()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in TAP_CHANNELS)
        # depthwise: the fine levels are large and the decoder keeps only width / 8 and width / 4 channels of them
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in STRIDES)
        # features must not drown the positional encodings, whose size is about one
        self.norm = nn.ModuleList(ChannelNorm(width) for _ in STRIDES)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        _initialise(module)

    def forward(self, pixel_values: Tensor, **_: Any) -> Sam2VisionEncoderOutput:
        maps = [lateral(x) for lateral, x in zip(self.lateral, self.backbone(pixel_values), strict=True)]
        pyramid = [maps[-1]]
        for x in reversed(maps[:-1]):
            pyramid.insert(0, x + F.interpolate(pyramid[0], scale_factor=2.0, mode="nearest"))
        levels = [norm(s(x)) for norm, s, x in zip(self.norm, self.smooth, pyramid[:-1], strict=True)]
        # positions are added by the mask decoder alone
        return Sam2VisionEncoderOutput(
            last_hidden_state=levels[-1].permute(0, 2, 3, 1),
            fpn_hidden_states=tuple(levels),  # pyright: ignore[reportArgumentType]  annotated as one tensor there
            fpn_position_encoding=tuple(x.new_zeros(()).expand_as(x) for x in levels),  # pyright: ignore[reportArgumentType]
        )


class NanoModel(Sam2Model):
    """encode once, decode for every click; `forward` is both, with the arguments and outputs of `Sam2Model`."""

    config_class = NanoConfig

    def __init__(self, config: NanoConfig):
        super().__init__(config)
        vision = cast(NanoVisionConfig, config.vision_config)
        width = vision.fpn_hidden_size
        self.dense_prompts = DensePrompts((width // 8, width // 4, width), config.mixing_depths)
        self.side: int = vision.image_size
        self.channels: int = width // 8
        self.token_width: int = width
        self.stability = None  # its token 0 answers every second click, stable or not: so it was trained
        self.post_init()
        # transformers draws the two encodings apart: a click and the place it points at would have nothing in common
        self.shared_image_embedding.positional_embedding.copy_(self.prompt_encoder.shared_embedding.positional_embedding)

    def _init_weights(self, module: nn.Module) -> None:
        _initialise(module)

    @property
    def grid(self) -> int:
        """Side of the low-resolution logits."""
        return self.side // STRIDES[0]

    def prepare(self, image: Tensor) -> tuple[Tensor, Frame]:
        return pad_to_square(image, self.side, STRIDES[0], grey=int(PIXEL_MEAN))

    def encode(self, pixels: Tensor, frames: tuple[Frame, ...]) -> ImageFeatures:
        normalised = (pixels.to(self.dtype) - PIXEL_MEAN) / PIXEL_SCALE
        normalised = normalised.contiguous(memory_format=torch.channels_last)
        fine, middle, coarse = self.vision_encoder(normalised).fpn_hidden_states
        coarse = coarse + self.no_memory_embedding.reshape(1, -1, 1, 1)
        levels = (self.mask_decoder.conv_s0(fine), self.mask_decoder.conv_s1(middle), coarse)
        return ImageFeatures(levels, frames, self.get_image_wide_positional_embeddings())

    def decode(self, features: ImageFeatures, prompts: Prompts) -> DecoderFeatures:
        maps = draw(prompts, self.grid, STRIDES[0]).to(features.levels[0].dtype)
        levels = self.dense_prompts(features.expand(prompts.points.shape[1]), maps)
        return sam2.decode(self, levels, features.position, prompts)

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        input_points: Tensor | None = None,
        input_labels: Tensor | None = None,
        input_boxes: Tensor | None = None,
        input_masks: Tensor | None = None,
        multimask_output: bool = True,
        **_: Any,
    ) -> Sam2ImageSegmentationOutput:
        """As `Sam2Model.forward`, but for pixel_values in 0..255, padded as `prepare` does."""
        images = len(pixel_values)
        given = input_points if input_points is not None else input_boxes
        objects = 1 if given is None else given.shape[1]
        prompts = Prompts.none(images, objects, pixel_values.device)
        if input_points is not None:
            labels = torch.ones_like(input_points[..., 0]).long() if input_labels is None else input_labels
            prompts = prompts.with_points(input_points, labels)
        if input_boxes is not None:
            prompts = prompts.with_points(*box_points(input_boxes))
        if input_masks is not None:
            prompts = replace(prompts, mask_logits=input_masks)
        features = self.decode(self.encode(pixel_values, ()), prompts)
        masks = (features.weights @ features.pixels.flatten(-2)).unflatten(-1, features.pixels.shape[-2:])
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        return Sam2ImageSegmentationOutput(
            iou_scores=features.iou[:, :, chosen],
            pred_masks=masks[:, :, chosen],
            object_score_logits=cast(Tensor, features.object_logit)[..., None],
        )


def _initialise(module: nn.Module) -> None:
    """torch's own initialisation: transformers' N(0, 0.02) lets signals die in layers as narrow as these."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.LayerNorm | nn.Embedding):
        module.reset_parameters()


AutoConfig.register("ruac_nano_vision", NanoVisionConfig)
AutoConfig.register("ruac_nano", NanoConfig)
AutoModel.register(NanoVisionConfig, NanoVisionModel)
AutoModel.register(NanoConfig, NanoModel)
