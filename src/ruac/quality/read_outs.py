"""The calibrated expected IoU of a mask: a weighted sum of numbers read out of its distribution on the decoder's grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ruac.distribution import MaskDistribution
from ruac.regions import Mask, largest_region, outline

# expected_iou: in closed form, by the pixels' own probabilities; stability: `stability`; predicted_iou: the decoder's guess;
# outline: ln(1 + outline cells / cells of the mask), large for small and for ragged masks; wholeness: share of the largest part
FEATURES = ("expected_iou", "stability", "predicted_iou", "outline", "wholeness")
MARGIN = 1.0  # Segment Anything's own, in logits


@dataclass(frozen=True)
class Quality:
    """expected IoU = intercept + Σ weight · read-out, at least 0 and at most 1; weights: by the names of FEATURES."""

    intercept: float
    weights: Mapping[str, float]

    @staticmethod
    def of(stored: Mapping[str, float] | None) -> Quality | None:
        """From what `as_numbers` gave; None of None. Raises ValueError for anything else."""
        if stored is None:
            return None
        weights = {name: value for name, value in stored.items() if name != "intercept"}
        numbers = [stored.get("intercept"), *weights.values()]
        if set(weights) != set(FEATURES) or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise ValueError(
                f"quality in the model's configuration must be numbers for intercept, {', '.join(FEATURES)}, not {dict(stored)}; "
                "fit it anew with `ruac quality`"
            )
        return Quality(stored["intercept"], weights)

    def as_numbers(self) -> dict[str, float]:
        """For a model's configuration."""
        return {"intercept": self.intercept, **self.weights}

    def expected_iou(self, distribution: MaskDistribution, predicted_iou: Tensor) -> Tensor:
        """[M] of the masks mean > 0; arguments as for `read_outs`. 0 for an empty mask."""
        weights = torch.tensor([self.weights[name] for name in FEATURES], dtype=torch.float64)
        expected = (self.intercept + read_outs(distribution, predicted_iou) @ weights).clamp(0, 1)
        return torch.where((distribution.mean > 0).flatten(1).any(1).cpu(), expected, 0.0).float()


def read_outs(distribution: MaskDistribution, predicted_iou: Tensor) -> Tensor:
    """[M, FEATURES] in double precision, on the CPU.

    distribution: [M, h, w] on the decoder's grid, padding cut off; predicted_iou: [M] by the decoder.
    """
    masks = (distribution.mean > 0).cpu().numpy()
    columns = {
        "expected_iou": distribution.expected_iou(),
        "stability": stability(distribution.mean),
        "predicted_iou": predicted_iou.clamp(0, 1),
        "outline": torch.tensor([math.log1p(int(outline(mask).sum()) / max(1, int(mask.sum()))) for mask in masks]),
        "wholeness": torch.tensor([_wholeness(mask) for mask in masks]),
    }
    return torch.stack([columns[name].cpu().double() for name in FEATURES], 1)


def stability(logit: Tensor) -> Tensor:
    """Segment Anything's stability score of masks [..., h, w]: IoU of those where the logit is above MARGIN and above -MARGIN."""
    sure, perhaps = ((logit > margin).sum((-2, -1)) for margin in (MARGIN, -MARGIN))
    return sure / perhaps.clamp_min(1)


def _wholeness(mask: Mask) -> float:
    return float(np.count_nonzero(largest_region(mask)) / max(1, np.count_nonzero(mask)))
