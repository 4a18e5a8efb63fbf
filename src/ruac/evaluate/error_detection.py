"""Does the uncertainty know where the errors are? Pixel metrics from a histogram that is filled object by object.

What is judged is the mask that was returned, and how likely a method thinks each of its labels to be wrong. Let s be the method's
logit where the mask has foreground, and minus the logit elsewhere: the expected error is σ(-s), below 1/2 where the method agrees
with the mask. Every uncertainty of the project that respects the mask falls with s. So two histograms of s, one of the right and one
of the wrong pixels, hold all that ranking metrics need, in constant memory, and add up over objects, images and machines. Pixels of
one bin count as equally uncertain.

Next to exact computation: expected errors are summed, not binned, so that only pixels within a bin, 1/128 logit wide, can be
mistaken for each other. On 200,000 smooth logits AUROC, both correlations and Brier are right to 1e-4, both calibration errors and
AURC to 5e-4, average precision, which feels ties most, to 2e-3; on logits that sit at the centres of bins all are right to rounding.
Logits beyond LOGIT_RANGE are not told apart: where many errors lie there, which no calibrated method has, rankings are worse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ruac.evaluate.correlation import centred_ranks, correlation

# of s from -LOGIT_RANGE, surely wrong, to LOGIT_RANGE, surely right
BINS = 4096
# what lies beyond shares the first or last bin: there the expected error is within 2e-7 of one or zero
LOGIT_RANGE = 16.0
CALIBRATION_BINS = 15
# a pixel's share of the log loss goes no further, in nats, as in torch's binary_cross_entropy: one certain error is not the end
MAX_LOSS = 100.0

RIGHT, WRONG = 0, 1
# what a pixel is, in bits: wrong, inside the band, ignored; so the parts from this one on do not count
IGNORED = 4


@dataclass(frozen=True)
class ErrorDetection:
    """Read-outs of an ErrorHistogram; NaN where one is not defined.

    pixels: how many were judged; error_rate: share of wrong pixels; auroc, aupr: detection of the wrong pixels by their
    uncertainty (average precision; NaN when none or all are wrong); spearman, pearson: correlation of the expected error with the
    error, 0 or 1, the former of ranks and corrected for ties; ece: expected calibration error of the confidence 1 - expected error
    in 15 equally wide bins of [1/2, 1], and 15 more of [0, 1/2] for labels that the method doubts; ece_adaptive: the same in 15 bins
    of equally many pixels, in order of confidence; brier: mean of (p - truth)²; nll: mean of -ln of the truth's probability, in nats,
    each at most MAX_LOSS; aurc: mean, over k = 1 .. pixels, of the error rate among the k most certain pixels, equally uncertain ones
    in random order; eaurc: aurc less that of the best order of as many right and wrong pixels, all right ones first.
    """

    pixels: int
    error_rate: float
    auroc: float
    aupr: float
    spearman: float
    pearson: float
    ece: float
    ece_adaptive: float
    brier: float
    nll: float
    aurc: float
    eaurc: float


@dataclass(frozen=True)
class ErrorHistogram:
    """counts: [2, BINS], right and wrong pixels by s, ends open; expected: [2, BINS], their expected errors, summed; nll: the sum of
    all pixels' log losses, in nats."""

    counts: NDArray[np.int64]
    expected: NDArray[np.float64]
    nll: float

    @staticmethod
    def empty() -> ErrorHistogram:
        return ErrorHistogram(np.zeros((2, BINS), np.int64), np.zeros((2, BINS)), 0.0)

    def __add__(self, other: ErrorHistogram) -> ErrorHistogram:
        return ErrorHistogram(self.counts + other.counts, self.expected + other.expected, self.nll + other.nll)

    def read(self) -> ErrorDetection:
        """Raises ValueError for an empty histogram."""
        right, wrong = self.counts.astype(np.float64)
        pixels, errors = int(self.counts.sum()), float(wrong.sum())
        if not pixels:
            raise ValueError("no pixel to judge: everything is labelled 'ignore'")
        mean = self.expected / np.maximum(self.counts, 1)
        is_wrong = np.array([[0.0], [1.0]])
        excess = wrong - self.expected.sum(0)
        aurc = _risk_coverage(right, wrong)
        best = _risk_coverage(np.array([0, pixels - errors]), np.array([errors, 0]))
        return ErrorDetection(
            pixels=pixels,
            error_rate=errors / pixels,
            auroc=_auroc(right, wrong),
            aupr=_average_precision(right, wrong),
            # bins run from uncertain to certain
            spearman=correlation(self.counts, -centred_ranks(right + wrong), is_wrong),
            pearson=correlation(self.counts, mean, is_wrong),
            ece=_calibration_error(excess, _confidence_cells()) / pixels,
            ece_adaptive=_calibration_error(excess, _mass_cells(right + wrong)) / pixels,
            brier=float((self.counts * (mean - is_wrong) ** 2).sum()) / pixels,
            nll=self.nll / pixels,
            aurc=aurc,
            eaurc=aurc - best,
        )


@dataclass(frozen=True)
class RegionHistograms:
    """image: all pixels; band: those within BAND of the object, truth or predicted, where errors are to be expected."""

    image: ErrorHistogram
    band: ErrorHistogram

    @staticmethod
    def empty() -> RegionHistograms:
        return RegionHistograms(ErrorHistogram.empty(), ErrorHistogram.empty())

    def __add__(self, other: RegionHistograms) -> RegionHistograms:
        return RegionHistograms(self.image + other.image, self.band + other.band)


def histograms(logit: Tensor, mask: Tensor, truth: Tensor, valid: Tensor, band: Tensor) -> RegionHistograms:
    """The histograms of one object.

    logit: [height, width] of the probability of foreground (such as `MaskDistribution.scaled_mean`, at the image's own resolution);
    mask: boolean [height, width], what was returned and is judged; truth, valid, band: boolean [height, width]; pixels that are not
    valid do not count. Raises ValueError when a logit is NaN.
    """
    if logit.device.type == "mps":  # has no float64
        logit, mask, truth, valid, band = (pixels.cpu() for pixels in (logit, mask, truth, valid, band))
    check_numbers(logit)
    signed = in_favour(logit, mask)
    part = (mask != truth).byte() + 2 * band.byte() + IGNORED * (~valid).byte()
    cell = (bin_of(signed) + part.int() * BINS).flatten()

    def fill(weights: Tensor | None) -> NDArray:
        filled = torch.bincount(cell, weights, minlength=2 * IGNORED * BINS)[: IGNORED * BINS]
        # outside or inside the band, right or wrong, bin
        return filled.cpu().numpy().reshape(2, 2, BINS)

    counts = fill(None)
    expected = fill(torch.sigmoid(-signed).flatten().double())
    loss = F.softplus(-in_favour(logit, truth).clamp_min_(-MAX_LOSS)).double()
    losses = [float((loss * (valid & region)).sum()) for region in (~band, band)]
    inside = ErrorHistogram(counts[1], expected[1], losses[1])
    return RegionHistograms(image=ErrorHistogram(counts[0], expected[0], losses[0]) + inside, band=inside)


def in_favour(logit: Tensor, mask: Tensor) -> Tensor:
    """The logit, in float32 at least, of the probability that the mask's label is right: s."""
    logit = logit.to(torch.promote_types(logit.dtype, torch.float32))
    # several times as fast as torch.where
    return logit * (2 * mask.to(logit.dtype) - 1)


def bin_of(signed: Tensor) -> Tensor:
    """Which of BINS a logit lies in, int32."""
    half = BINS // 2
    return (signed * (half / LOGIT_RANGE)).floor_().clamp_(-half, half - 1).int() + half


def bin_centres() -> NDArray[np.float64]:
    """Logits at the centres of all bins."""
    return (np.arange(BINS, dtype=np.float64) + (1 - BINS) / 2) * (2 * LOGIT_RANGE / BINS)


def check_numbers(logit: Tensor) -> None:
    """Raises ValueError when a logit is NaN."""
    if logit.isnan().any():
        raise ValueError("the model's logits are not numbers (NaN): it cannot be evaluated")


def _auroc(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> float:
    """Chance that a wrong pixel is more uncertain than a right one, ties counted half. Bins run from uncertain to certain."""
    pairs = right.sum() * wrong.sum()
    more_certain = right.sum() - right.cumsum() + right / 2
    return float((wrong * more_certain).sum() / pairs) if pairs else math.nan


def _average_precision(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> float:
    if not wrong.sum() or not right.sum():
        return math.nan
    used = right + wrong > 0
    right, wrong = right[used], wrong[used]
    precision = wrong.cumsum() / (right + wrong).cumsum()
    return float((precision * wrong).sum() / wrong.sum())


def _calibration_error(excess: NDArray[np.float64], cells: NDArray[np.int64]) -> float:
    """Sum over all cells of |wrong pixels - expected ones|; excess: that difference, by bin; cells: which cell a bin belongs to."""
    return float(np.abs(np.bincount(cells, excess)).sum())


def _confidence_cells() -> NDArray[np.int64]:
    """Equally wide cells of confidence in [0, 1]; every bin is put where its centre belongs."""
    confidence = 1 / (1 + np.exp(-bin_centres()))
    return np.minimum((2 * CALIBRATION_BINS * confidence).astype(np.int64), 2 * CALIBRATION_BINS - 1)


def _mass_cells(pixels: NDArray[np.float64]) -> NDArray[np.int64]:
    """CALIBRATION_BINS cells of equally many pixels, as nearly as whole bins allow: a bin goes where the middle one of its pixels
    belongs. So equal confidences stay together, a crowded bin may make its cell larger and others empty; each weighs what it holds."""
    middle = (pixels.cumsum() - pixels / 2) / pixels.sum()
    return np.minimum((CALIBRATION_BINS * middle).astype(np.int64), CALIBRATION_BINS - 1)


def _risk_coverage(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> float:
    """After j of the n pixels of a bin with k errors, before which N pixels with E errors came, the risk is (E + j k/n) / (N + j)
    on average over their order; summed over j that is k + (E - N k/n) (H[N + n] - H[N]), H being the harmonic numbers."""
    used = np.flatnonzero(right + wrong)[::-1]  # certain first
    n, k = (right + wrong)[used], wrong[used]
    before, errors = n.cumsum() - n, k.cumsum() - k
    harmonic = torch.special.digamma(torch.from_numpy(np.stack([before, before + n]) + 1)).numpy()
    total = k + (errors - before * k / n) * (harmonic[1] - harmonic[0])
    return float(total.sum() / n.sum())
