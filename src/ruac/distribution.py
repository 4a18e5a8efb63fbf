"""The distribution of a mask: mean and variance of every pixel's logit, and all that is read out of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.features import Frame

# Logits that are sampled at a time: 64 MB in float32; about six tensors of that size live at once.
SAMPLED_AT_ONCE = 2**24

# The logistic distribution as a mixture of normals around zero (Monahan and Stefanski, 1992): weight and standard deviation of each.
# Least largest error of σ and of its entropy together: 7e-7 in either.
LOGISTIC = (
    (0.03073436, 0.86347059),
    (0.21974157, 1.17445982),
    (0.38592533, 1.58175722),
    (0.27676340, 2.12801021),
    (0.08115788, 2.85395404),
    (0.00567746, 3.84515075),
)


@dataclass(frozen=True)
class MaskDistribution:
    """mean and variance: [..., H, W] of the logit that a pixel belongs to the mask; variance >= 0. gain: [..., 1, 1], what a head has
    multiplied the decoder's own logits by.

    Where moments are in half precision, what is read out of them is computed and given in float32.
    """

    mean: Tensor
    variance: Tensor
    gain: Tensor | float = 1.0

    @property
    def prompt(self) -> Tensor:
        """The decoder's own logits, [..., H, W]: what it takes as an earlier mask."""
        return self.mean / self.gain

    def map(self, change: Callable[[Tensor], Tensor]) -> MaskDistribution:
        """The same change of all tensors, such as an index or a device."""
        gain = change(self.gain) if isinstance(self.gain, Tensor) else self.gain
        return MaskDistribution(change(self.mean), change(self.variance), gain)

    def resize(self, frame: Frame, side: int) -> MaskDistribution:
        """Both moments at the image's own resolution, padding cut off: [..., height, width].

        side: of the network input. Read-outs belong after this step: interpolated entropies blur the zero crossing at the outline.
        """
        mean, variance = _to_original(torch.stack((self.mean, self.variance)), frame, side)
        return replace(self, mean=mean, variance=variance)

    def crop(self, frame: Frame, side: int) -> MaskDistribution:
        """Both moments as they are, on the decoder's grid, padding cut off."""
        return replace(self, mean=_inside(self.mean, frame, side), variance=_inside(self.variance, frame, side))

    def grown(self, size: tuple[int, int]) -> MaskDistribution:
        """Both moments [B, P, K, H, W] of a square picture, padding and all, at another size."""
        return replace(self, mean=grown(self.mean, size), variance=grown(self.variance, size))

    def probability(self) -> Tensor:
        """Probability of foreground, MacKay's approximation of E[σ(logit)], within 0.018 of it: σ(μ / √(1 + πv/8))."""
        return torch.sigmoid(self.scaled_mean())

    def scaled_mean(self) -> Tensor:
        """The logit of `probability`: μ / √(1 + πv/8)."""
        mean, variance = self._moments()
        return torch.add(1, variance, alpha=math.pi / 8).rsqrt_() * mean

    def entropy(self) -> Tensor:
        """Uncertainty: Bernoulli entropy of `probability` in bits, 0 (certain) to 1 (a coin toss)."""
        return bernoulli_entropy(self.scaled_mean())

    def expected_error(self) -> Tensor:
        """Probability that the pixel's label, probability > 1/2, is wrong: min(p, 1 - p)."""
        return torch.sigmoid(-self.scaled_mean().abs())

    def predictive_entropy(self) -> Tensor:
        """Entropy of E[σ(logit)] in bits for a normal logit, to 1e-6: what `aleatoric` and `epistemic` add up to.

        `entropy`, that of MacKay's probability, lies between 0.005 bits below and 0.08 above it.
        """
        mean, variance = self._moments()
        distance = mean.abs()
        doubt = torch.zeros_like(mean)  # E[σ(-|logit|)], in which the tail keeps its digits
        for weight, deviation in LOGISTIC:
            doubt += weight / 2 * torch.erfc(distance * torch.rsqrt(2 * (deviation**2 + variance)))
        return _entropy_of_shares(1 - doubt, doubt)

    def aleatoric(self) -> Tensor:
        """E[H(σ(logit))] in bits for a normal logit: the doubt that would stay if the logit were known.

        To 1e-6 for every mean and variance. Gauss-Hermite quadrature is not used because H(σ(x)) is a bump a few logits wide that
        slips between its nodes where the normal is wider: 8 nodes err by 1e-5 bits at v = 1, 0.03 at 10 and 0.2 at 100, 64 nodes
        by 0.01 at 100.
        """
        mean, variance = self._moments()
        total = torch.zeros_like(mean)
        # d/dx H(σ(x)) = -x σ'(x), so that σ' = Σ b N(x; 0, s²) makes H(σ(x)) = Σ b s² N(x; 0, s²) nats; a normal logit adds v to s²
        for weight, deviation in LOGISTIC:
            precision = torch.rsqrt(deviation**2 + variance)
            total += weight * deviation**2 * precision * torch.exp(-(mean * precision).square() / 2)
        return total / (math.sqrt(2 * math.pi) * math.log(2))

    def epistemic(self) -> Tensor:
        """Mutual information of label and logit in bits, >= 0: `predictive_entropy` less `aleatoric`.

        Taken from E[σ(logit)] and not from MacKay's probability, whose error of up to 0.08 bits would be counted in full. Zero or,
        by rounding, below 1e-6 where the variance is zero.
        """
        # Jensen's inequality, which the mixture keeps to within its error only
        return (self.predictive_entropy() - self.aleatoric()).clamp_min(0)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Logits drawn from the normal distribution with these moments, independent from pixel to pixel: [n, ..., H, W]."""
        mean, variance = self._moments()
        noise = torch.randn(n, *mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + variance.sqrt() * noise

    def monte_carlo(self, samples: int, generator: torch.Generator | None = None, chunk: int | None = None) -> MonteCarlo:
        """The read-outs by sampling; they tend to E[σ(logit)], `predictive_entropy`, `aleatoric` and `epistemic`.

        So do samples of a head's own factors where the deviation is small; where it is above about one, the logit, a product of
        skewed factors, is no longer as good as normal, and they see less epistemic doubt in it.

        chunk: samples drawn at a time, by default as many as `samples_at_once` allows.
        """
        return monte_carlo(lambda n: self.sample(n, generator), samples, chunk or samples_at_once(self.mean.numel()))

    def expected_iou(self, valid: Tensor | None = None) -> Tensor:
        """`expected_iou` of the distribution's own mask, mean > 0: [...]."""
        return expected_iou(self.scaled_mean(), self.mean > 0, valid)

    def _moments(self) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(self.mean.dtype, torch.float32)
        return self.mean.to(dtype), self.variance.to(dtype)


@dataclass(frozen=True)
class MonteCarlo:
    """What samples of the logits say: maps [..., H, W], all but the first in bits.

    probability: mean of σ(logit); entropy: of that mean; aleatoric: mean entropy of σ(logit); mutual_information: entropy less
    aleatoric, >= 0. Of S samples, the mutual information is on average about 1/S too low, so 5 % for 20.
    """

    probability: Tensor
    entropy: Tensor
    aleatoric: Tensor
    mutual_information: Tensor


def monte_carlo(draw: Callable[[int], Tensor], samples: int, chunk: int) -> MonteCarlo:
    """Read-outs of `samples` draws, in memory for `chunk` of them.

    draw: gives n samples of the logits, [n, ..., H, W], in one batched operation; called with n <= chunk. Raises ValueError unless
    samples and chunk are at least 1.
    """
    if samples < 1 or chunk < 1:
        raise ValueError(f"nothing to draw: {samples} samples, {chunk} at a time")
    total = torch.zeros(())
    for done in range(0, samples, chunk):
        logits = draw(min(chunk, samples - done))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        shares = (torch.sigmoid(logits).sum(0), torch.sigmoid(-logits).sum(0), bernoulli_entropy(logits).sum(0))
        total = total + torch.stack(shares)
    foreground, background, aleatoric = total / samples
    entropy = _entropy_of_shares(foreground, background)
    return MonteCarlo(foreground, entropy, aleatoric, (entropy - aleatoric).clamp_min(0))


def samples_at_once(elements: int) -> int:
    """How many samples of tensors with this many elements in all fit SAMPLED_AT_ONCE; 1 at least."""
    return max(1, SAMPLED_AT_ONCE // max(1, elements))


def bernoulli_entropy(logit: Tensor) -> Tensor:
    """Entropy in bits of a Bernoulli variable with this logit; precise far out where 1 - p rounds to one."""
    # in place, because fresh memory costs as much as the arithmetic
    below = logit.abs().neg_()
    # H = log(1 + e^-|x|) + |x| (1 - σ(|x|)), in nats
    return F.softplus(below).addcmul_(below, torch.sigmoid(below), value=-1).div_(math.log(2))


def expected_iou(logit: Tensor, mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """Expected intersection over expected union of given masks with truths drawn pixel by pixel: [...].

    logit: [..., H, W] of the probability of foreground; mask: boolean, alike; valid: true or 1 where a pixel counts, None for all. 0
    for an empty mask, also where no pixel counts: a prompt names an object, so a mask of nothing is never right and must never win the
    choice among masks.
    """
    probability = torch.sigmoid(logit.to(torch.promote_types(logit.dtype, torch.float32)))
    counted = torch.ones_like(probability) if valid is None else valid.to(probability.dtype)
    inside = counted * mask
    intersection = (probability * inside).sum((-2, -1))
    union = inside.sum((-2, -1)) + (probability * (counted - inside)).sum((-2, -1))
    return intersection / union.clamp_min(torch.finfo(union.dtype).tiny)


def _entropy_of_shares(foreground: Tensor, background: Tensor) -> Tensor:
    """`bernoulli_entropy` for probabilities p and 1 - p: each given, because 1 - p has no digits left where p rounds to one."""
    tiny = torch.finfo(foreground.dtype).tiny
    return bernoulli_entropy(foreground.clamp_min(tiny).log() - background.clamp_min(tiny).log())


def grown(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [B, P, K, H, W] at another size, bilinearly."""
    return F.interpolate(maps.flatten(0, 1), size=size, mode="bilinear").unflatten(0, maps.shape[:2])


def _to_original(maps: Tensor, frame: Frame, side: int) -> Tensor:
    inside = _inside(maps, frame, side)
    flat = inside.reshape(1, -1, *inside.shape[-2:])
    return F.interpolate(flat, size=frame.original, mode="bilinear", align_corners=False).reshape(
        *maps.shape[:-2], *frame.original
    )


def _inside(maps: Tensor, frame: Frame, side: int) -> Tensor:
    return maps[..., : maps.shape[-2] * frame.inside[0] // side, : maps.shape[-1] * frame.inside[1] // side]
