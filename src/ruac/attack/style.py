"""Attack by appearance: every object, and the background, gets the colour statistics that hurt most.

All statistics are in normalised units, (image / 255 - MEAN) / STD with the mean and deviation of ImageNet, in which one unit is about
58 grey levels. A pixel lies within ±2.7 there, so that cutting off at 0 and 255 is stricter than the paper's ±3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.attack.batch import AttackedBatch, LabelledBatch, Slope, repainted
from ruac.attack.graph import StyleGraph, neighbours
from ruac.attack.layers import PACE, painted, pooled, region_sums, regions, uphill, visible
from ruac.attack.reversal import reverse_gradient
from ruac.families.inputs import IMAGENET_MEAN as MEAN
from ruac.families.inputs import IMAGENET_SPREAD as STD
from ruac.features import ImageFeatures

MIN_PIXELS = 100  # a smaller region has the statistics of the whole image
MIN_STD = 0.1
MEAN_RANGE, STD_RANGE = 0.2, 0.5  # the widest ranges of both factors


def region_statistics(images: Tensor, weights: Tensor, counted: Tensor | None = None) -> Tensor:
    """Mean and standard deviation of the three channels in every region, in normalised units: [B, R, 6], the deviations >= MIN_STD.

    images: [B, 3, S, S] in 0..255; weights: [B, R, S, S] shares of the regions; counted: [B, 1, S, S], 1 for pixels to be looked at.
    """
    counted = torch.ones_like(images[:, :1]) if counted is None else counted
    counted = torch.where(counted.sum((2, 3), keepdim=True) < MIN_PIXELS, 1.0, counted)
    # far from zero the squares of the mean and of the values are nearly equal numbers
    centre = (images * counted).sum((2, 3), keepdim=True) / counted.sum((2, 3), keepdim=True)
    maps = images - centre
    moments = region_sums(torch.cat([maps, maps.square(), counted], 1), torch.cat([counted, weights * counted], 1))
    small = moments[..., 6:] < MIN_PIXELS
    moments = torch.where(small, moments[:, :1], moments)
    mean, square = (moments[..., :6] / moments[..., 6:]).chunk(2, -1)
    scale = _units(images)
    variance = (square - mean.square()) / scale[1].square()
    mean = (mean + centre.flatten(1)[:, None] - scale[0]) / scale[1]
    return torch.cat([mean, variance.clamp_min(MIN_STD**2).sqrt()], -1)[:, 1:]


def recolour(images: Tensor, masks: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Adaptive instance normalisation of each region, from its old statistics to new ones, both [B, R, 6].

    images: [B, 3, S, S] in 0..255; masks: [B, P, S, S]; a pixel changes as the region on top does. Values may leave 0..255.
    """
    (old_mean, old_std), (new_mean, new_std) = old.chunk(2, -1), new.chunk(2, -1)
    gain = new_std / old_std
    centre, unit = _units(images)
    shift = unit * (new_mean - gain * old_mean) + (1 - gain) * centre
    # as a change, so that the same statistics leave every bit in its place
    factor, offset = painted(torch.cat([gain - 1, shift], -1), visible(masks)).chunk(2, 1)
    return images + factor * images + offset


def moved_statistics(old: Tensor, mean_scale: Tensor, mean_shift: Tensor, std_scale: Tensor, epsilon: float) -> Tensor:
    """Statistics within the budget around the old ones [B, R, 6]; the three moves, [B, R, 3] in [-1, 1], say how far of it is used."""
    mean, std = old.chunk(2, -1)
    mean = mean * (1 + min(MEAN_RANGE, 200 * epsilon) * mean_scale) + epsilon * mean_shift
    std = std * (1 + min(STD_RANGE, 500 * epsilon) * std_scale)
    return torch.cat([mean, std.clamp_min(MIN_STD)], -1)


def statistics_of(batch: LabelledBatch) -> Tensor:
    """`region_statistics` of the background and the objects of a batch, [B, R, 6]. No gradient."""
    with torch.no_grad():
        return region_statistics(batch.images, regions(batch.objects), batch.counted)


def restyle(batch: LabelledBatch, old: Tensor, new: Tensor) -> AttackedBatch:
    """The batch with its regions recoloured, [B, R, 6] both; objects that are not there keep the old statistics."""
    there = F.pad(batch.present, (1, 0), value=True)[..., None]
    new = torch.where(there, new, old)
    shift, scale = (new - old)[..., :3], (new / old)[..., 3:]
    return repainted(batch, recolour(batch.images, batch.objects, old, new), torch.cat([shift, scale], -1).detach())


def style_slope(images: Tensor, masks: Tensor, old: Tensor, slope: Slope) -> Tensor:
    """How fast the loss rises with the statistics of every region, [B, R, 6], at the old ones. Arguments as in `recolour`."""
    mean, std = old.chunk(2, -1)
    centre, unit = _units(images)
    # a pixel is centre + unit * (mean + std * z) with its own z
    of_mean, of_value = region_sums(torch.cat([slope.images, slope.images * images], 1), visible(masks)).chunk(2, -1)
    of_std = (of_value - (centre + unit * mean) * of_mean) / std
    return torch.cat([unit * of_mean, of_std], -1)


class StyleAttacker(nn.Module):
    """Proposes statistics for every region from those it has and the features under it; neighbours agree through a graph.

    Where the slope of the loss is known, it learns how far to follow it.
    """

    HIDDEN = 128

    def __init__(self, channels: int, epsilon: float = 0.3):
        """channels: D of the coarsest features; epsilon: the largest shift of a mean beyond its scaling, in normalised units."""
        super().__init__()
        self.epsilon = epsilon
        last = nn.Linear(self.HIDDEN, 6)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        self.propose = nn.Sequential(nn.Linear(6 + channels, self.HIDDEN), nn.LayerNorm(self.HIDDEN), nn.ReLU(), last)
        self.follow = nn.Parameter(torch.zeros(6))
        self.graph = StyleGraph(channels)

    def forward(self, batch: LabelledBatch, features: ImageFeatures, old: Tensor) -> Tensor:
        """Old statistics [B, R, 6] to proposed ones, whose gradient is reversed."""
        masks = batch.objects
        looks = pooled(features.levels[-1].detach().float(), regions(masks))  # (B, R, D)
        styles = self.propose(torch.cat([old, looks], -1))
        if batch.slope is not None:
            styles = styles + PACE * self.follow * uphill(style_slope(batch.images, masks, old, batch.slope), (1, 2))
        # reversed while still unbounded: behind the graph, which cannot push them out of the budget there
        styles = reverse_gradient(self.graph(styles, looks, neighbours(masks, looks, batch.present)).float())
        mean, std = styles.chunk(2, -1)
        return moved_statistics(old, (mean / 2).tanh(), mean.tanh(), (std / 2).tanh(), self.epsilon)


def _units(like: Tensor) -> tuple[Tensor, Tensor]:
    """Zero and one of the normalised units, in grey levels, [3] each."""
    return 255 * like.new_tensor(MEAN), 255 * like.new_tensor(STD)
