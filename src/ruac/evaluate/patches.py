"""Are doubtful patches the wrong ones? Patch accuracy versus patch uncertainty (Mukhoti & Gal 2018, arXiv 1811.12709).

An image is cut into squares of PATCH pixels; one is accurate where more than half of its pixels are right, and uncertain where their
mean uncertainty exceeds a threshold. The uncertainty is the entropy, in bits, of the expected error of the returned mask; labels that
the method itself thinks wrong count as a full bit, because a label that is surely wrong has an entropy of zero and is no certain one.
The thresholds are fixed numbers of bits, the same for all images and models: thresholds that follow the range of an image's or a
model's own uncertainty make them incomparable. A method that is certain everywhere scores the share of accurate patches, so PAvPU
compares methods on equal masks only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ruac.distribution import bernoulli_entropy
from ruac.evaluate.error_detection import LOGIT_RANGE, check_numbers, in_favour

# side of a patch in pixels; at the right and lower border patches may be cut off
PATCH = 4
# in bits: 0.05, 0.10 ... 0.95
THRESHOLDS = tuple(i / 20 for i in range(1, 20))


@dataclass(frozen=True)
class PatchScores:
    """Read-outs of PatchCounts. Arrays are [THRESHOLDS], NaN where not defined.

    patches: how many were judged; accurate_if_certain: p(accurate | certain); uncertain_if_inaccurate: p(uncertain | inaccurate);
    pavpu_at: share of patches that are accurate and certain or inaccurate and uncertain; pavpu: its mean over the thresholds.
    """

    patches: int
    accurate_if_certain: NDArray[np.float64]
    uncertain_if_inaccurate: NDArray[np.float64]
    pavpu_at: NDArray[np.float64]
    pavpu: float


@dataclass(frozen=True)
class PatchCounts:
    """counts: [THRESHOLDS, 4], patches that are accurate and certain, accurate and uncertain, inaccurate and certain, inaccurate and
    uncertain."""

    counts: NDArray[np.int64]

    @staticmethod
    def empty() -> PatchCounts:
        return PatchCounts(np.zeros((len(THRESHOLDS), 4), np.int64))

    def __add__(self, other: PatchCounts) -> PatchCounts:
        return PatchCounts(self.counts + other.counts)

    def read(self) -> PatchScores:
        """Raises ValueError when there is no patch."""
        accurate_certain, _, inaccurate_certain, inaccurate_uncertain = self.counts.T.astype(np.float64)
        patches = int(self.counts[0].sum())
        if not patches:
            raise ValueError("no patch to judge: everything is labelled 'ignore'")
        pavpu_at = (accurate_certain + inaccurate_uncertain) / patches
        return PatchScores(
            patches,
            accurate_if_certain=_share(accurate_certain, inaccurate_certain),
            uncertain_if_inaccurate=_share(inaccurate_uncertain, inaccurate_certain),
            pavpu_at=pavpu_at,
            pavpu=float(pavpu_at.mean()),
        )


def patch_counts(logit: Tensor, mask: Tensor, truth: Tensor, valid: Tensor) -> PatchCounts:
    """The patches of one object, or of several: all tensors are [..., height, width].

    logit: of the probability of foreground; mask: boolean, what was returned and is judged; truth, valid: boolean. Only valid pixels
    count, and patches that have one. For the patches of a region give what is valid inside it. Raises ValueError when a logit is NaN.
    """
    check_numbers(logit)
    # below zero the label is likelier wrong than right; beyond the range the entropy is below 3e-6 bits, that of infinity NaN
    uncertainty = bernoulli_entropy(in_favour(logit, mask).clamp_(0, LOGIT_RANGE))
    pixels, right = _patch_sums(valid.expand(logit.shape)), _patch_sums(valid & (mask == truth))
    mean = _patch_sums(uncertainty * valid) / pixels.clamp_min(1)
    # how many thresholds a patch exceeds
    exceeded = torch.bucketize(mean, torch.tensor(THRESHOLDS, device=mean.device, dtype=mean.dtype))
    levels = len(THRESHOLDS) + 1
    cell = (exceeded + levels * (2 * right <= pixels))[pixels > 0]
    accurate, inaccurate = torch.bincount(cell, minlength=2 * levels).cpu().numpy().reshape(2, levels)
    return PatchCounts(np.stack([*_by_threshold(accurate), *_by_threshold(inaccurate)], 1))


def _patch_sums(values: Tensor) -> Tensor:
    """[pictures, rows, columns] of patches from [..., height, width]."""
    values = values.reshape(-1, *values.shape[-2:])
    if not values.is_floating_point():
        values = values.float()
    return F.avg_pool2d(values, PATCH, ceil_mode=True, divisor_override=1)


def _by_threshold(exceeding: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Certain and uncertain patches at every threshold; exceeding: patches by how many thresholds they exceed."""
    certain = exceeding.cumsum()[:-1]
    return certain, exceeding.sum() - certain


def _share(part: NDArray[np.float64], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, part + rest, out=np.full(part.shape, np.nan), where=part + rest > 0)
