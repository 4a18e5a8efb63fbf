"""Fitting the temperatures of the plain decoder's logits, on labelled images that no result is reported on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ruac.data.folder import FolderSet
from ruac.evaluate.baselines import temperature
from ruac.evaluate.error_detection import LOGIT_RANGE, RIGHT, WRONG
from ruac.evaluate.protocol import Protocol, evaluate_image, read
from ruac.model import RuacModel

RANGE = (0.05, 100.0)  # of temperatures
STEPS = 60  # halvings: far below the rounding of the logits
# the histograms reach LOGIT_RANGE, logits farther; those that are counted are first divided by this
SHRINK = 4.0


def fit_temperature(model: RuacModel, sets: Sequence[FolderSet], protocol: Protocol) -> dict[int, float]:
    """The temperature with the least negative log-likelihood of the labels, for every number of prompts up to the last.

    All pixels that are not labelled "ignore" count, those of an image together as much as those of another, as in the tables. The
    annotator clicks as in an evaluation, so a perfect mask keeps what was said about it before. Raises ValueError when there is no
    object to click on, or when a file cannot be read.
    """
    protocol = replace(protocol, clicks=tuple(range(1, protocol.clicks[-1] + 1)), noc=None)
    shares = dict.fromkeys(protocol.clicks, np.zeros(()))
    for part in sets:
        for sample in part.samples:
            result = evaluate_image(model, read(sample), protocol, {"counted": temperature({1: SHRINK})})
            for clicks, judged in result.after.items() if result.objects else ():
                counts = judged.detection["counted"].image.counts
                shares[clicks] = shares[clicks] + counts / counts.sum()
    if not all(share.any() for share in shares.values()):
        raise ValueError(f"no object to fit a temperature on in {', '.join(part.name for part in sets) or 'no set at all'}")
    return {clicks: best_temperature(share, SHRINK * LOGIT_RANGE) for clicks, share in shares.items()}


def best_temperature(counts: NDArray, reach: float) -> float:
    """The temperature, within RANGE, at which the labels are likeliest.

    counts: [2, bins], weights of the right and of the wrong pixels by signed logit (positive: sure of what the mask says), in even
    bins from -reach to reach.
    """
    bins = counts.shape[1]
    logit = ((np.arange(bins) + 0.5) / bins * 2 - 1) * reach

    def slope(inverse: float) -> float:
        """Derivative of the negative log-likelihood by 1/T, in which it is convex."""
        doubt = 0.5 - 0.5 * np.tanh(inverse * logit / 2)  # σ(-logit / T)
        return float((logit * (counts[WRONG] * (1 - doubt) - counts[RIGHT] * doubt)).sum())

    low, high = (math.log(t) for t in RANGE)
    for _ in range(STEPS):
        middle = (low + high) / 2
        # too sure: the temperature must rise
        low, high = (middle, high) if slope(math.exp(-middle)) > 0 else (low, middle)
    return math.exp((low + high) / 2)
