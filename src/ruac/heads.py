"""Uncertainty heads: DecoderFeatures in, MaskDistribution out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.distribution import MaskDistribution
from ruac.features import DecoderFeatures
from ruac.weibull import squared_variation

# Weibull concentrations outside this range are either a point mass or have moments that float32 cannot hold.
CONCENTRATION_RANGE = (0.3, 50.0)
START_CONCENTRATION = 2.0
HIDDEN = 16  # channels between the two layers of the pixel concentration


class PlainHead(nn.Module):
    """The decoder's own logits, with no variance: what SAM itself does."""

    def forward(self, features: DecoderFeatures) -> MaskDistribution:
        mean = _product(features.weights, features.pixels)
        return MaskDistribution(mean, torch.zeros_like(mean))


class ExactHead(nn.Module):
    """The Bayesian mask decoder that starts with the decoder's own masks (RUAC, form B).

    Both factors of the logit h · x are split into non-negative parts, z = [x⁺, x⁻], w_fg = [h⁺, h⁻], w_bg = [h⁻, h⁺], and every part
    is Weibull with that mean. Then E[z · (w_fg - w_bg)] = h · x exactly, and the variance has a closed form. The residual maps
    x + Ax and h + Bm start at zero. The concentration of a pixel may depend on its neighbours.
    """

    def __init__(self, channels: int, token_width: int):
        super().__init__()
        self.pixel_residual = nn.Conv2d(channels, channels, 1, bias=False)
        self.weight_residual = nn.Linear(token_width, channels, bias=False)
        last = nn.Conv2d(HIDDEN, 1, 1)
        self.pixel_concentration = nn.Sequential(nn.Conv2d(channels, HIDDEN, 3, padding=1), nn.GELU(), last)
        self.weight_concentration = nn.Linear(token_width, channels)
        for layer in (self.pixel_residual, self.weight_residual, last, self.weight_concentration):
            nn.init.zeros_(layer.weight)
        for bias in (last.bias, self.weight_concentration.bias):
            nn.init.constant_(bias, START_CONCENTRATION)  # pyright: ignore[reportArgumentType]  they have one

    def forward(self, features: DecoderFeatures) -> MaskDistribution:
        pixels, weights = self.factors(features)
        cv2_pixel, cv2_weight = (squared_variation(k) for k in self.concentrations(features))
        return MaskDistribution(
            _product(weights, pixels),
            product_variance(pixels, weights, cv2_pixel, cv2_weight),
        )

    def factors(self, features: DecoderFeatures) -> tuple[Tensor, Tensor]:
        """Means of the two factors, signed: pixels [B, P, C, H, W] and weights [B, P, K, C]."""
        flat = features.pixels.flatten(0, 1)
        pixels = (flat + self.pixel_residual(flat)).unflatten(0, features.pixels.shape[:2])
        return pixels, features.weights + self.weight_residual(features.tokens)

    def concentrations(self, features: DecoderFeatures) -> tuple[Tensor, Tensor]:
        """Weibull concentrations of the two factors: [B, P, 1, H, W] and [B, P, K, C]."""
        pixel = self.pixel_concentration(features.pixels.flatten(0, 1)).unflatten(0, features.pixels.shape[:2])
        weight = self.weight_concentration(features.tokens)
        return F.softplus(pixel).clamp(*CONCENTRATION_RANGE), F.softplus(weight).clamp(*CONCENTRATION_RANGE)


def product_variance(pixels: Tensor, weights: Tensor, cv2_pixel: Tensor, cv2_weight: Tensor) -> Tensor:
    """Variance of the logit when both factors of the hypernetwork product are Weibull.

    pixels: [B, P, C, H, W] signed pixel features, weights: [B, P, K, C] signed mask weights;
    cv2_pixel: [B, P, 1, H, W], cv2_weight: [B, P, K, C] squared coefficients of variation.
    Returns [B, P, K, H, W], >= 0, in squared logits.
    """
    x2, w2 = pixels.square(), weights.square()
    # (1 + a)(1 + b) - 1 = a (1 + b) + b: written without the difference of two nearly equal sums
    spread = _product(w2 * (1 + cv2_weight), x2)
    return cv2_pixel * spread + _product(w2 * cv2_weight, x2)


def _product(weights: Tensor, pixels: Tensor) -> Tensor:
    """[B, P, K, C] · [B, P, C, H, W] -> [B, P, K, H, W]"""
    return (weights @ pixels.flatten(-2)).unflatten(-1, pixels.shape[-2:])


def make_head(name: str, channels: int, token_width: int) -> nn.Module:
    """A head by its name in a model's configuration, for a decoder with these widths. Raises ValueError for an unknown name."""
    if name == "exact":
        return ExactHead(channels, token_width)
    if name == "plain":
        return PlainHead()
    raise ValueError(f"no head '{name}': choose 'exact' or 'plain'")
