"""The calibrated expected IoU of a mask: a straight line through what its logits say of it on the decoder's grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from ruac.distribution import MaskDistribution

# in logits: the standard deviation of the offset that all pixels of a mask share, and its quantiles, all equally likely
SHIFT, SHIFTS = 2.0, 9
OFFSETS = tuple(NormalDist(0, SHIFT).inv_cdf((i + 0.5) / SHIFTS) for i in range(SHIFTS))


@dataclass(frozen=True)
class Quality:
    """expected IoU = intercept + slope · `shifted_iou`, at least 0 and at most 1."""

    intercept: float
    slope: float

    @staticmethod
    def of(stored: Mapping[str, float] | None) -> Quality | None:
        """From what `as_numbers` gave; None of None. Raises ValueError for anything else."""
        if stored is None:
            return None
        known = isinstance(stored, Mapping) and set(stored) == {"intercept", "slope"}
        if not known or not all(isinstance(n, int | float) and math.isfinite(n) for n in stored.values()):
            raise ValueError(
                f"quality in the model's configuration must be two numbers, intercept and slope, not {stored!r}; "
                "fit it anew with `ruac quality`"
            )
        return Quality(stored["intercept"], stored["slope"])

    def as_numbers(self) -> dict[str, float]:
        """For a model's configuration."""
        return {"intercept": self.intercept, "slope": self.slope}

    def expected_iou(self, distribution: MaskDistribution) -> Tensor:
        """[M] of the masks mean > 0 of a distribution [M, h, w] on the decoder's grid, padding cut off. 0 for an empty mask."""
        expected = (self.intercept + self.slope * shifted_iou(distribution)).clamp(0, 1)
        return torch.where((distribution.mean > 0).flatten(1).any(1), expected, 0.0)


def shifted_iou(distribution: MaskDistribution) -> Tensor:
    """IoU of the mask with those that it would be if all its logits were off together, averaged over OFFSETS: [...] of [..., h, w].

    A mask is rarely wrong in single pixels here and there: its outline runs elsewhere, or a part is missing, and then neighbours are
    wrong together. `MaskDistribution.expected_iou` takes pixels for independent and cannot say so. Segment Anything's stability score
    is the same idea with a single offset. The logits are those of the probability, which a head's variance has made smaller. 0 for
    an empty mask.
    """
    offsets = torch.tensor((0.0, *OFFSETS), device=distribution.mean.device)
    above = (distribution.scaled_mean().unsqueeze(-3) > offsets[:, None, None]).sum((-2, -1))  # [..., 1 + SHIFTS]
    own, shifted = above[..., :1], above[..., 1:]
    return (torch.minimum(own, shifted) / torch.maximum(own, shifted).clamp_min(1)).mean(-1)
