"""Dense click maps: where the clicks, the box and the earlier mask are, drawn as pictures and mixed into the image features.

Sparse click tokens alone leave a small model unable to tell one place from another; interactive segmentation has long drawn its
clicks as disks (RITM, Sofiiuk et al. 2022; FocalClick, Chen et al. 2022). The encoder does not see them: an image is still
encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.features import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND, Prompts

# Standard deviations of the Gaussian disks, in pixels of the network input: the spot, its part, its neighbourhood.
SIGMAS = (4.0, 16.0, 64.0)
CHANNELS = 2 * len(SIGMAS) + 2


def draw(prompts: Prompts, grid: int, stride: int) -> Tensor:
    """Pictures of the prompts on a grid x grid raster of cells of `stride` input pixels: [B * P, CHANNELS, grid, grid].

    Channels: disks of foreground clicks and of background clicks for each of SIGMAS, the filled box, the earlier mask in [-1, 1].
    """
    points, labels = prompts.points.flatten(0, 1), prompts.labels.flatten(0, 1)  # (M, N, 2), (M, N)
    centres = torch.arange(grid, device=points.device, dtype=points.dtype) * stride + (stride - 1) / 2
    channels = []
    for sigma in SIGMAS:
        offsets = (points[..., None] - centres) / sigma  # (M, N, 2, grid)
        # the tails would be denormal numbers, on which processors are slow
        x, y = F.threshold(torch.exp(-offsets.square() / 2), 1e-6, 0.0).unbind(2)  # (M, N, grid)
        for label in (FOREGROUND, BACKGROUND):
            weight = (labels == label).to(points.dtype)[..., None, None]
            disks = (y * weight[..., 0])[..., :, None] * x[..., None, :]
            channels.append(disks.amax(1) if disks.shape[1] else disks.new_zeros(len(disks), grid, grid))
    channels.append(_filled_boxes(points, labels, centres))
    if prompts.mask_logits is None:
        channels.append(torch.zeros_like(channels[0]))
    else:
        channels.append(torch.tanh(prompts.mask_logits.flatten(0, 1).to(points.dtype) / 2))
    return torch.stack(channels, 1)


def _filled_boxes(points: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """1 inside each object's box, 0 outside and where there is no box: [M, grid, grid]."""
    low = torch.where((labels == BOX_TOP_LEFT)[..., None], points, -torch.inf)
    high = torch.where((labels == BOX_BOTTOM_RIGHT)[..., None], points, torch.inf)
    if points.shape[1] == 0:
        return points.new_zeros(len(points), len(centres), len(centres))
    low, high = low.amax(1), high.amin(1)  # (M, 2); infinite where there is no box
    inside = (centres >= low[..., None]) & (centres <= high[..., None]) & low.isfinite()[..., None]  # (M, 2, grid)
    return (inside[:, 1, :, None] & inside[:, 0, None, :]).to(points.dtype)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a feature map [M, C, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MixingBlock(nn.Module):
    """A residual block that lets places talk: large depthwise convolution, then a pointwise MLP (ConvNeXt, Liu et al. 2022)."""

    def __init__(self, channels: int, kernel: int = 7):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels),
            ChannelNorm(channels),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.GELU(),
            nn.Conv2d(2 * channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class DensePrompts(nn.Module):
    """Adds the drawn prompts to the three feature levels of an object and spreads them: coarse first, then down to fine."""

    def __init__(self, widths: tuple[int, int, int], depths: Sequence[int]):
        super().__init__()
        fine, middle, coarse = widths
        self.stem = nn.Sequential(nn.Conv2d(CHANNELS, fine, 3, padding=1), nn.GELU())
        self.to_middle = nn.Sequential(nn.Conv2d(fine, middle, 3, 2, 1), nn.GELU())
        self.to_coarse = nn.Sequential(nn.Conv2d(middle, coarse, 3, 2, 1), nn.GELU())
        self.add = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)
        self.down = nn.ModuleList([nn.Conv2d(middle, fine, 1), nn.Conv2d(coarse, middle, 1)])
        self.mix = nn.ModuleList(
            nn.Sequential(*(MixingBlock(width) for _ in range(depth))) for width, depth in zip(widths, depths, strict=True)
        )

    def forward(self, levels: tuple[Tensor, ...], maps: Tensor) -> tuple[Tensor, ...]:
        """levels: [M, width_i, H_i, W_i] at strides 4, 8, 16; maps: [M, CHANNELS, H_0, W_0]. Returns levels of the same shapes."""
        fine = self.stem(maps)
        middle = self.to_middle(fine)
        coarse = self.to_coarse(middle)
        drawn = (fine, middle, coarse)
        fine, middle, coarse = (level + add(d) for level, add, d in zip(levels, self.add, drawn, strict=True))
        coarse = self.mix[2](coarse)
        middle = self.mix[1](middle + F.interpolate(self.down[1](coarse), scale_factor=2.0, mode="nearest"))
        fine = self.mix[0](fine + F.interpolate(self.down[0](middle), scale_factor=2.0, mode="nearest"))
        return fine, middle, coarse
