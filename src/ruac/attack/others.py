"""Attacks to compare with: chance under the same budgets, and what others have made robust with (method, section 3).

Whatever is drawn comes from the generator given, and is the same on every device that a generator of the CPU serves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ruac.attack.batch import AttackedBatch, LabelledBatch, repainted, untouched
from ruac.attack.deformation import object_fields
from ruac.attack.style import MIN_STD, moved_statistics, region_statistics, restyle, statistics_of
from ruac.attack.warp import deform
from ruac.features import ImageFeatures


class NoAttack:
    """The clean batch."""

    def __call__(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        return untouched(batch)


@dataclass(frozen=True)
class RandomNoise:
    """Uniform noise; rms: in grey levels, one number or [B]."""

    generator: Generator
    rms: float | Tensor = 8.0

    def __call__(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        return add_noise(batch, self.rms, self.generator)


@dataclass(frozen=True)
class RandomStyle:
    """Statistics drawn uniformly from all that a `StyleAttacker` may propose."""

    generator: Generator
    epsilon: float = 0.3

    def __call__(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        old = statistics_of(batch)
        # the region is the first axis, so that objects that fill the batch up do not change the draws of the others
        moves = 2 * _uniform((old.shape[1], len(old), 3, 3), self.generator, old).transpose(0, 1) - 1
        return restyle(batch, old, moved_statistics(old, *moves.unbind(2), epsilon=self.epsilon))


@dataclass(frozen=True)
class RandomDeformation:
    """Smooth random fields within the bounds of a `DeformationAttacker`; smoothness: cells of the features between two draws."""

    generator: Generator
    epsilon: float = 0.15
    smoothness: int = 4

    def __call__(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        size, masks = features.levels[-1].shape[-2:], batch.objects
        knots = [math.ceil(n / self.smoothness) + 1 for n in size]
        drawn = _uniform((masks.shape[1], len(masks), 2, *knots), self.generator, masks).transpose(0, 1) - 0.5
        drawn = F.interpolate(drawn.flatten(0, 1), size=size, mode="bilinear", align_corners=True)
        return deform(untouched(batch), object_fields(drawn.reshape(*masks.shape[:2], 2, *size), masks, self.epsilon))


@dataclass(frozen=True)
class MixStyle:
    """Statistics of whole images mixed with those of others in the batch (Zhou et al. 2021), weights from Beta(α, α).

    The original mixes statistics of shallow features; on pixels it is a change of colour, comparable to the other attacks.
    """

    generator: Generator
    alpha: float = 0.1

    def __call__(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        old = image_statistics(batch)
        order = torch.randperm(len(old), generator=self.generator, device=self.generator.device).to(old.device)
        weight = _beta((len(old), 1, 1), self.alpha, self.generator, old)
        return _restyle_images(batch, old, torch.lerp(old[order], old, weight))


@dataclass(frozen=True)
class UncertainStyle:
    """Statistics drawn from a normal around an image's own, as wide as they vary over the batch (DSU, Li et al. 2022).

    On pixels, where the original has features. A single image does not vary.
    """

    generator: Generator

    def __call__(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        old = image_statistics(batch)
        spread = old.var(0, correction=0, keepdim=True).sqrt()
        return _restyle_images(batch, old, old + _normal(old.shape, self.generator, old) * spread)


@dataclass(frozen=True)
class StyleGeneration:
    """Whole images with the statistics of no image at all: means within ±mean, deviations from low to high, in normalised units."""

    generator: Generator
    mean: float = 1.0
    low: float = 0.5
    high: float = 1.5

    def __call__(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        old = image_statistics(batch)
        mean, std = _uniform(old.shape, self.generator, old).chunk(2, -1)
        new = torch.cat([self.mean * (2 * mean - 1), self.low + (self.high - self.low) * std], -1)
        return _restyle_images(batch, old, new)


def add_noise(batch: LabelledBatch, rms: float | Tensor, generator: Generator) -> AttackedBatch:
    """Uniform noise of exactly this rms over the pixels that count; rms: in grey levels up to 70, one number or [B].

    Where it would leave 0..255 its sign is turned, which keeps its size: cutting it off would make bright pictures noisier.
    """
    noise = 2 * _uniform(batch.images.shape, generator, batch.images) - 1
    size = (noise.square() * batch.counted).sum((1, 2, 3)) / (3 * batch.counted.sum((1, 2, 3))).clamp_min(1)
    wanted = torch.as_tensor(rms, device=noise.device, dtype=noise.dtype).expand(len(noise))
    noise = noise * (wanted / size.sqrt().clamp_min(1e-3))[:, None, None, None]
    there = batch.images + noise
    return repainted(batch, torch.where((there < 0) | (there > 255), batch.images - noise, there))


def image_statistics(batch: LabelledBatch) -> Tensor:
    """`region_statistics` of the pixels that count, [B, 1, 6]. No gradient."""
    with torch.no_grad():
        return region_statistics(batch.images, batch.counted)


def _restyle_images(batch: LabelledBatch, old: Tensor, new: Tensor) -> AttackedBatch:
    """All regions alike from the statistics of the image to new ones, [B, 1, 6]."""
    mean, std = new.chunk(2, -1)
    new = torch.cat([mean, std.clamp_min(MIN_STD)], -1)
    shape = (-1, 1 + batch.masks.shape[1], -1)
    return restyle(batch, old.expand(shape), new.expand(shape))


def _uniform(shape: tuple[int, ...], generator: Generator, like: Tensor) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device).to(like)


def _normal(shape: tuple[int, ...], generator: Generator, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device).to(like)


def _beta(shape: tuple[int, ...], alpha: float, generator: Generator, like: Tensor) -> Tensor:
    """Draws from Beta(α, α) by Jöhnk's rejection; torch's own takes no generator."""
    # for α = 0.1 one candidate in 70 is rejected; eight at a time fail once in 1e14 draws. Powers as large need double precision
    x, y = (1 - torch.rand((2, 8, *shape), generator=generator, device=generator.device, dtype=torch.float64)).pow(1 / alpha)
    first = (x + y <= 1).int().argmax(0, keepdim=True)
    return (x / (x + y)).gather(0, first)[0].to(like)
