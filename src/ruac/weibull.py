"""Moments and samples of the Weibull distribution, the noise of both factors of a mask logit."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_factor(concentration: Tensor) -> Tensor:
    """E[X] / scale = Γ(1 + 1/κ) for concentration κ > 0."""
    return torch.exp(torch.lgamma(1 + 1 / concentration))


def squared_variation(concentration: Tensor) -> Tensor:
    """Squared coefficient of variation, Var[X] / E[X]² = Γ(1 + 2/κ) / Γ(1 + 1/κ)² - 1, for concentration κ > 0."""
    return torch.expm1(torch.lgamma(1 + 2 / concentration) - 2 * torch.lgamma(1 + 1 / concentration))


def sample_with_mean(mean: Tensor, concentration: Tensor, uniform: Tensor) -> Tensor:
    """Weibull samples of a given mean: the scale is mean / Γ(1 + 1/κ), so κ changes the spread alone.

    mean >= 0, concentration > 0 and uniform in [0, 1) broadcast; differentiable in mean and concentration.
    """
    exponential = -torch.log1p(-uniform)
    # zero has no logarithm; the smallest normal number is as good a draw as zero
    power = torch.exp(torch.log(exponential.clamp_min(torch.finfo(exponential.dtype).tiny)) / concentration)
    return mean / mean_factor(concentration) * power
