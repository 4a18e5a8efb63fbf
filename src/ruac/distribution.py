"""The distribution of a mask: mean and variance of every pixel's logit, and all that is read out of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.features import Frame


@dataclass(frozen=True)
class MaskDistribution:
    """mean and variance: [..., H, W] of the logit that a pixel belongs to the mask; variance >= 0."""

    mean: Tensor
    variance: Tensor

    def resize(self, frame: Frame, side: int) -> MaskDistribution:
        """Both moments at the image's own resolution, padding cut off: [..., height, width].

        side: of the network input. Read-outs belong after this step: interpolated entropies blur the zero crossing at the outline.
        """
        return MaskDistribution(_to_original(self.mean, frame, side), _to_original(self.variance, frame, side))

    def probability(self) -> Tensor:
        """Probability of foreground, MacKay's approximation of E[σ(logit)]: σ(μ / √(1 + πv/8))."""
        return torch.sigmoid(self.scaled_mean())

    def scaled_mean(self) -> Tensor:
        """The logit of `probability`: μ / √(1 + πv/8)."""
        return self.mean * torch.rsqrt(1 + math.pi / 8 * self.variance)

    def entropy(self) -> Tensor:
        """Uncertainty: Bernoulli entropy of `probability` in bits, 0 (certain) to 1 (a coin toss)."""
        return bernoulli_entropy(self.scaled_mean())

    def expected_error(self) -> Tensor:
        """Probability that the pixel's label, probability > 1/2, is wrong: min(p, 1 - p)."""
        return torch.sigmoid(-self.scaled_mean().abs())


def bernoulli_entropy(logit: Tensor) -> Tensor:
    """Entropy in bits of a Bernoulli variable with this logit; precise far out where 1 - p rounds to one."""
    size = logit.abs()
    # H = log(1 + e^-|x|) + |x| (1 - σ(|x|)), in nats
    return (F.softplus(-size) + size * torch.sigmoid(-size)) / math.log(2)


def _to_original(maps: Tensor, frame: Frame, side: int) -> Tensor:
    rows, columns = (maps.shape[-2] * frame.inside[0] // side, maps.shape[-1] * frame.inside[1] // side)
    inside = maps[..., :rows, :columns]
    flat = inside.reshape(1, -1, rows, columns)
    return F.interpolate(flat, size=frame.original, mode="bilinear", align_corners=False).reshape(
        *maps.shape[:-2], *frame.original
    )
