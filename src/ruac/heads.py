"""Uncertainty heads: DecoderFeatures in, MaskDistribution out.

Both Bayesian heads make a logit of two random factors, E[logit] = E[pixel] · E[weight], whose parts are Weibull variables. The
variance of their product is known in closed form; `sample` draws the factors instead, for whoever wants to see that it is right.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.distribution import MaskDistribution
from ruac.features import DecoderFeatures
from ruac.weibull import concentration_of, sample_with_mean, squared_variation

# Weibull concentrations outside this range are either a point mass or have moments that float32 cannot hold.
CONCENTRATION_RANGE = (0.3, 50.0)
VARIATION_RANGE = tuple(math.expm1(math.lgamma(1 + 2 / k) - 2 * math.lgamma(1 + 1 / k)) for k in reversed(CONCENTRATION_RANGE))
LARGEST_EXPONENT = 10.0  # a logit divided by e^10 is nothing, and e^20 still a number
SMALL_LOGIT = 0.3  # logits of this size are as good as zero when neighbours are compared


class Head(nn.Module, ABC):
    """What every head can do. Its numbers stay in full precision when a model is made half as precise."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """What `to`, `half` and `cuda` go through."""

        def changed(value: Tensor) -> Tensor:
            new = fn(value)
            return value.to(new.device) if torch.finfo(new.dtype).bits < torch.finfo(torch.float32).bits else new

        return super()._apply(changed, recurse)

    @abstractmethod
    def forward(self, features: DecoderFeatures) -> MaskDistribution:
        """Mean and variance of the logits, [B, P, K, H, W]."""

    @abstractmethod
    def sample(self, features: DecoderFeatures, samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Logits [samples, B, P, K, H, W], drawn in one batched operation: memory grows with samples * B * P * K * C * H * W."""


class PlainHead(Head):
    """The decoder's own logits, with no variance: what SAM itself does."""

    def forward(self, features: DecoderFeatures) -> MaskDistribution:
        mean = _product(features.weights, features.pixels)
        return MaskDistribution(mean, torch.zeros_like(mean))

    def sample(self, features: DecoderFeatures, samples: int, generator: torch.Generator | None = None) -> Tensor:
        mean = _product(features.weights, features.pixels)
        return mean.expand(samples, *mean.shape)


class ExactHead(Head):
    """The Bayesian mask decoder that starts with the decoder's own masks (RUAC, form B).

    Both factors of the logit h · x are split into non-negative parts, z = [x⁺, x⁻], w_fg = [h⁺, h⁻], w_bg = [h⁻, h⁺], and every part
    is Weibull with that mean. Then E[z · (w_fg - w_bg)] = h · x exactly, and the variance has a closed form. All weights of a mask
    share one concentration: what channels of their own could learn, the pixel's says better.

    In place of residual maps of x and h, which would repeat the decoder's own last layers, there is one gain a mask, from its token:
    all its logits grow or shrink together. Variance can only take confidence away; a decoder that is not sure enough needs this to
    be right on average. No mask changes, and what goes back to the decoder with a correction is what came from it.

    What is learnt is the logarithm of the logit's standard deviation: from the pixel's surroundings, seen in its features, and from
    its being surer than its neighbours, since the decoder's last transposed convolutions leave a checkerboard. The mask token says
    how much either matters: much more for the ambiguous mask of one click than for one that many clicks have settled. The factors
    follow from it, and only who samples has to know them: the pixel's concentration is the one that gives this variance, if any
    within CONCENTRATION_RANGE does, else the nearest, and the draws' distance from their mean is scaled to make up for the rest.
    So the answer of a click needs no second product for Σ x²h². What the weights alone contribute says how the samples of a mask
    hang together, not how far they go.
    """

    CELL, HIDDEN = 4, 16  # side of a coarse cell in pixels of the grid, width of the layer that looks at the cells
    # of the influences at the start: the weights' concentration is 15; deviations are small, and hardly any comes from the
    # surroundings, because a little of both helps in nearly every domain and much of it harms in some
    LOGARITHMS = (0.0, math.log(0.0066), -1.0, -2.25, 0.0)
    PACE = 0.3  # of what the token says, which has hundreds of inputs where the rest has few

    def __init__(self, channels: int, token_width: int):
        super().__init__()
        last = nn.Linear(self.HIDDEN, 1)
        self.surroundings = nn.Sequential(nn.Linear(channels, self.HIDDEN), nn.GELU(), last)
        self.roughness = nn.Parameter(torch.tensor(0.5))
        # on the gain, the noise of the weights, all deviations, those by the surroundings, those by the roughness
        self.influence = nn.Linear(token_width, len(self.LOGARITHMS))
        for layer in (self.influence, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]  it has one
        self.influence.bias.data += torch.tensor(self.LOGARITHMS) / self.PACE

    def forward(self, features: DecoderFeatures) -> MaskDistribution:
        gain, _, *influences = self._influences(features)
        mean = _product(gain * features.weights, features.pixels)
        return MaskDistribution(mean, self._variance(features, mean, *influences), gain[..., None])

    def weights(self, features: DecoderFeatures) -> tuple[Tensor, Tensor]:
        """Mean of the mask weights, signed, [B, P, K, C], and their squared variation, [B, P, K, 1]."""
        gain, noise, *_ = self._influences(features)
        return gain * features.weights, noise

    def sample(self, features: DecoderFeatures, samples: int, generator: torch.Generator | None = None) -> Tensor:
        """See `Head`. A pixel whose features are zero, or too small to be squared, cannot vary, whatever its variance."""
        pixels, distribution = features.pixels, self(features)
        weights, cv2_weight = self.weights(features)
        # the variance of the product is linear in the squared variation of the pixel
        w2, x2 = weights.square(), pixels.square()
        of_weights, of_both = _product(w2 * cv2_weight, x2), _product(w2 * (1 + cv2_weight), x2)
        tiny = torch.finfo(x2.dtype).tiny
        cv2_pixel = ((distribution.variance - of_weights) / of_both.clamp_min(tiny)).clamp(*VARIATION_RANGE)
        # of two parts with means x⁺ and x⁻ one is zero for sure: a draw for |x| is a draw for both
        k_pixel, k_weight = concentration_of(cv2_pixel).unsqueeze(2), concentration_of(cv2_weight)
        pixel = _draw(pixels.abs().unsqueeze(3), k_pixel, samples, generator)  # (n, B, P, C, K, H, W)
        logits = torch.zeros(())
        # the weights that meet x⁺ are other draws than those that meet x⁻
        for part, sign in (((pixels > 0), 1), ((pixels < 0), -1)):
            weight = weights.sign() * _draw(weights.abs(), k_weight, samples, generator)  # (n, B, P, K, C)
            logits = logits + sign * torch.einsum("nbpkc,nbpckhw->nbpkhw", weight, pixel * part.unsqueeze(3))
        drawn = (of_weights + cv2_pixel * of_both).clamp_min(tiny)  # the variance of these, the wanted one within the range
        return distribution.mean + distribution.variance.sqrt() * drawn.rsqrt() * (logits - distribution.mean)

    @torch.no_grad()
    def hedge(self, deviations: float, surroundings: float) -> None:
        """Keep only a share of all standard deviations, and of what the surroundings change in their logarithm, in place.

        A head that has learnt from few domains is right more often than not in others; where it is wrong, less of it is less harm.
        """
        shares = torch.tensor([1.0, 1.0, deviations, surroundings, 1.0])
        self.influence.bias.add_(shares.log() / self.PACE)

    def _influences(self, features: DecoderFeatures) -> list[Tensor]:
        """What the tokens say, [B, P, K, 1] each: gain, squared variation of the weights, and what `_variance` takes."""
        said = self.PACE * self.influence(features.tokens)
        gain, noise, base, surroundings, roughness = said.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT).split(1, -1)
        lowest, highest = map(math.log, VARIATION_RANGE)
        return [gain.exp(), noise.clamp(lowest, highest).exp(), base, surroundings.exp(), roughness.exp()]

    def _variance(
        self, features: DecoderFeatures, mean: Tensor, base: Tensor, of_surroundings: Tensor, of_roughness: Tensor
    ) -> Tensor:
        """Of the logits, [B, P, K, H, W]."""
        batch, grid = mean.shape[:2], mean.shape[-2:]
        # one pixel stands for its cell: reading all costs more than all the rest
        middle = slice(self.CELL // 2 - 1, None, self.CELL)
        around = self.surroundings(features.pixels[..., middle, middle].movedim(2, -1)).movedim(-1, 2)  # (B, P, 1, H / 4, W / 4)
        base, of_surroundings, of_roughness = (2 * said[..., None] for said in (base, of_surroundings, of_roughness))
        of_roughness = self.roughness * of_roughness
        size = mean.abs() + SMALL_LOGIT
        near = F.avg_pool2d(size.flatten(0, 1), self.CELL).unflatten(0, batch)  # (B, P, K, H / 4, W / 4)
        # the logarithm of the variance; what is smooth is done on the coarse grid
        coarse = torch.addcmul(base, of_surroundings, around) - of_roughness * near.log()
        coarse = F.interpolate(coarse.flatten(0, 1), size=grid, mode="bilinear").unflatten(0, batch)
        return torch.exp(torch.addcmul(coarse, of_roughness, size.log()).clamp_max(2 * LARGEST_EXPONENT))


class PaperHead(Head):
    """The Bayesian mask decoder as published (RUAC, form A): ReLU factors of their own, in place of the hypernetworks.

    z = ReLU(linear x) per pixel, w_fg and w_bg = ReLU(linear m) per mask token; logit = z · (w_fg - w_bg), all parts Weibull.
    """

    def __init__(self, channels: int, token_width: int):
        super().__init__()
        self.pixel_mean = nn.Conv2d(channels, channels, 1)
        self.pixel_concentration = nn.Conv2d(channels, 1, 1)
        self.weight_mean = nn.Linear(token_width, 2 * channels)
        self.weight_concentration = nn.Linear(token_width, channels)

    def forward(self, features: DecoderFeatures) -> MaskDistribution:
        pixels, k_pixel, (foreground, background), k_weight = self.factors(features)
        cv2_pixel, cv2_weight = squared_variation(k_pixel), squared_variation(k_weight)
        weights = foreground - background
        # E[Δw²] - E[Δw]² is the variance of both parts; of both factors' second moments the product of the means is taken off
        noise = (foreground.square() + background.square()) * cv2_weight
        x2 = pixels.square()
        variance = cv2_pixel * _product(weights.square() + noise, x2) + _product(noise, x2)
        return MaskDistribution(_product(weights, pixels), variance)

    def sample(self, features: DecoderFeatures, samples: int, generator: torch.Generator | None = None) -> Tensor:
        pixels, k_pixel, parts, k_weight = self.factors(features)
        foreground, background = (_draw(part, k_weight, samples, generator) for part in parts)
        return _product(foreground - background, _draw(pixels, k_pixel, samples, generator))

    def factors(self, features: DecoderFeatures) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
        """Means and concentrations: of pixels [B, P, C, H, W] and [B, P, 1, H, W], of both weights and [B, P, K, C]."""
        flat, batch = features.pixels.flatten(0, 1), features.pixels.shape[:2]
        pixels = F.relu(self.pixel_mean(flat)).unflatten(0, batch)
        k_pixel = F.softplus(self.pixel_concentration(flat)).unflatten(0, batch)
        foreground, background = F.relu(self.weight_mean(features.tokens)).chunk(2, -1)
        k_weight = F.softplus(self.weight_concentration(features.tokens))
        return (
            pixels,
            k_pixel.clamp(*CONCENTRATION_RANGE),
            (foreground, background),
            k_weight.clamp(*CONCENTRATION_RANGE),
        )


HEADS = {"exact": ExactHead, "paper": PaperHead, "plain": PlainHead}


def make_head(name: str, channels: int, token_width: int) -> Head:
    """A head by its name in a model's configuration, for a decoder with these widths. Raises ValueError for an unknown name."""
    if name not in HEADS:
        raise ValueError(f"no head '{name}': choose one of {', '.join(HEADS)}")
    return PlainHead() if name == "plain" else HEADS[name](channels, token_width)


def _product(weights: Tensor, pixels: Tensor) -> Tensor:
    """[..., K, C] · [..., C, H, W] -> [..., K, H, W]"""
    return (weights @ pixels.flatten(-2)).unflatten(-1, pixels.shape[-2:])


def _draw(mean: Tensor, concentration: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """[samples, ...] Weibull draws with these means."""
    shape = torch.broadcast_shapes(mean.shape, concentration.shape)
    # half precision has too few numbers below one for the tail
    dtype = torch.promote_types(mean.dtype, torch.float32)
    uniform = torch.rand(samples, *shape, generator=generator, device=mean.device, dtype=dtype)
    return sample_with_mean(mean, concentration, uniform)
