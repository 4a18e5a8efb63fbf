"""The Weibull distribution, the noise of both factors of a mask logit: moments, samples, divergence from a Gamma prior.

Half-precision arguments are computed in float32 and the result is cast back: bfloat16 has steps of 1/128 above 1, so that it
would round 1 + 1/κ to 1 for the larger κ, and lgamma is not to be had in it on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Gamma, Weibull
from torch.distributions.kl import register_kl

EULER = 0.5772156649015329

# A scale below this counts as this in the divergence from a Gamma prior: ln 0 has no value, and the gradient of -α ln λ, which is
# -α/λ, would let the few features that happen to lie next to zero drown all others.
SCALE_FLOOR = 1e-3


def mean_factor(concentration: Tensor) -> Tensor:
    """E[X] / scale = Γ(1 + 1/κ) for concentration κ > 0."""
    return _log_mean_factor(_wide(concentration)).exp().to(concentration.dtype)


def squared_variation(concentration: Tensor) -> Tensor:
    """Squared coefficient of variation, Var[X] / E[X]² = Γ(1 + 2/κ) / Γ(1 + 1/κ)² - 1, for concentration κ > 0."""
    wide = _wide(concentration)
    return torch.expm1(torch.lgamma(1 + 2 / wide) - 2 * _log_mean_factor(wide)).to(concentration.dtype)


def sample_with_mean(mean: Tensor, concentration: Tensor, uniform: Tensor) -> Tensor:
    """Weibull samples of a given mean: the scale is mean / Γ(1 + 1/κ), so κ changes the spread alone.

    mean >= 0, concentration > 0 and uniform in [0, 1) broadcast; differentiable in mean and concentration. In the dtype of the
    mean. Draw `uniform` in float32 even where the other two are not: the 256 numbers of bfloat16 lose the tail, and with it 1 % of
    the mean for κ = 1 and 17 % for κ = 0.3.
    """
    # half-precision generators may round up to 1, which is an infinite sample
    below_one = uniform.clamp_max(1 - torch.finfo(uniform.dtype).eps / 2)
    exponential = -torch.log1p(-_wide(below_one))
    # zero has no logarithm; the smallest normal number is as good a draw as zero
    logarithm = exponential.clamp_min(torch.finfo(exponential.dtype).tiny).log()
    wide = _wide(concentration)
    return (_wide(mean) * torch.exp(logarithm / wide - _log_mean_factor(wide))).to(mean.dtype)


def kl_to_gamma(mean: Tensor, concentration: Tensor, shape: Tensor | float, rate: Tensor | float) -> Tensor:
    """KL(Weibull(λ, κ) ‖ Gamma(shape α, rate β)) in nats, with the scale λ = mean / Γ(1 + 1/κ), at least SCALE_FLOOR.

    mean >= 0, concentration > 0, shape and rate broadcast; in the dtype of the mean. Differentiable in all of them: where λ is
    floored, as for the half of the split parts that are zero, the gradient in the mean is zero, and elsewhere at most
    max(β, 1.13 α / SCALE_FLOOR).
    """
    wide = _wide(concentration)
    scale = (_wide(mean) * torch.exp(-_log_mean_factor(wide))).clamp_min(SCALE_FLOOR)
    return _kl_to_gamma(scale, wide, shape, rate).to(mean.dtype)


@register_kl(Weibull, Gamma)
def _kl_of_distributions(p: Weibull, q: Gamma) -> Tensor:
    """`torch.distributions.kl_divergence`: the scale as it is, without a floor."""
    return _kl_to_gamma(p.scale, p.concentration, q.concentration, q.rate)


def _kl_to_gamma(scale: Tensor, concentration: Tensor, shape: Tensor | float, rate: Tensor | float) -> Tensor:
    """γα/κ - α ln λ + ln κ + βλΓ(1 + 1/κ) - γ - 1 - α ln β + ln Γ(α)"""
    wide_scale, wide = _wide(scale), _wide(concentration)
    alpha, beta = (torch.as_tensor(number, dtype=wide_scale.dtype) for number in (shape, rate))
    relative = beta * wide_scale
    cross_entropy = relative * torch.exp(_log_mean_factor(wide)) - alpha * relative.log() + torch.lgamma(alpha)
    return (cross_entropy + wide.log() + EULER * (alpha / wide - 1) - 1).to(scale.dtype)


def _log_mean_factor(concentration: Tensor) -> Tensor:
    return torch.lgamma(1 + 1 / concentration)


def _wide(values: Tensor) -> Tensor:
    """float32 for half precision, all else as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def concentration_of(variation: Tensor) -> Tensor:
    """The concentration with this squared coefficient of variation, the inverse of `squared_variation`, within [0.1, 1000].

    By bisection: to all digits that the variation has in its own dtype. Differentiable once, where it is within these bounds.
    """
    wanted = _wide(variation).log()
    known = wanted.detach()
    low, high = torch.full_like(known, math.log(0.1)), torch.full_like(known, math.log(1000.0))
    for _ in range(40):
        middle = (low + high) / 2
        too_wide = squared_variation(middle.exp()).log() > known  # the variation falls as the concentration grows
        low, high = torch.where(too_wide, middle, low), torch.where(too_wide, high, middle)
    found = ((low + high) / 2).exp()
    if wanted.requires_grad:
        # the slope of an inverse: 1 / (d ln cv² / dκ), with cv² = e^L - 1 and dL/dκ = 2 (ψ(1 + 1/κ) - ψ(1 + 2/κ)) / κ²
        slope = 2 * (torch.digamma(1 + 1 / found) - torch.digamma(1 + 2 / found)) / found.square() * (1 + 1 / known.exp())
        found = found + (wanted - known) / slope
    return found.to(variation.dtype)
