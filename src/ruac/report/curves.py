"""Reliability and risk-coverage curves out of the histograms of sets, every set counting the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ruac.evaluate.error_detection import CALIBRATION_BINS, RIGHT, WRONG, ErrorHistogram

Numbers = NDArray[np.float64]
# as wide as the bins of the expected calibration error, which has so many for labels that are likelier right, and as many again
RELIABILITY_BINS = 2 * CALIBRATION_BINS
LEAST_SHARE = 1e-4  # of the pixels: bins with less say nothing that would be the same in other images
COVERAGES = 200
SET_ASIDE = 12  # before that, all useful methods are near zero


@dataclass(frozen=True)
class Mixture:
    """Shares of pixels, not counts: [2, BINS], right and wrong by certainty; expected: their expected errors, likewise."""

    shares: Numbers
    expected: Numbers


@dataclass(frozen=True)
class Reliability:
    """By bin of the expected error, those with enough pixels: its mean, the true error rate, and the share of pixels."""

    expected: Numbers
    observed: Numbers
    share: Numbers


@dataclass(frozen=True)
class RiskCoverage:
    """risk: error rate among the most certain pixels; coverage: which share of the pixels those are, ascending to 1, from where
    SET_ASIDE times as many are set aside as there are wrong ones; best: the risk when all right pixels come first."""

    coverage: Numbers
    risk: Numbers
    best: Numbers


def mix(histograms: Sequence[ErrorHistogram]) -> Mixture | None:
    """The mean of the sets' distributions; None when no set has a pixel."""
    used = [h for h in histograms if h.counts.sum()]
    if not used:
        return None
    shares = np.mean([h.counts / h.counts.sum() for h in used], 0)
    expected = np.mean([h.expected / h.counts.sum() for h in used], 0)
    return Mixture(shares, expected)


def reliability(mixture: Mixture) -> Reliability:
    """Bins of the histogram go where their mean expected error belongs."""
    share, expected = mixture.shares.sum(0), mixture.expected.sum(0)
    used = share > 0
    share, expected, wrong = share[used], expected[used], mixture.shares[WRONG][used]
    cell = np.minimum((expected / share * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    total, promised, observed = (
        np.bincount(cell, values, RELIABILITY_BINS).astype(np.float64) for values in (share, expected, wrong)
    )
    enough = total >= LEAST_SHARE
    return Reliability(promised[enough] / total[enough], observed[enough] / total[enough], total[enough])


def risk_coverage(mixture: Mixture) -> RiskCoverage:
    """At COVERAGES shares of the pixels; where a bin is kept in part, its errors are kept in proportion."""
    # bins run from uncertain to certain
    right, wrong = mixture.shares[RIGHT][::-1], mixture.shares[WRONG][::-1]
    kept = np.concatenate([[0.0], (right + wrong).cumsum()])
    errors = np.concatenate([[0.0], wrong.cumsum()])
    coverage = np.linspace(max(1 / COVERAGES, 1 - SET_ASIDE * wrong.sum()), 1, COVERAGES)
    best = np.maximum(0.0, coverage - right.sum()) / coverage
    return RiskCoverage(coverage, np.interp(coverage, kept, errors) / coverage, best)
