"""Conformal risk control (Angelopoulos et al., ICLR 2024) of two masks around a predicted one, in memory that does not grow.

A pixel's score is the logit of its probability, `MaskDistribution.scaled_mean`. At a threshold t the mask is {score >= t}, and it
loses, each loss between 0 and 1,

- as outer mask: the share of the object's pixels that it misses, which rises with t;
- as inner mask: its wrong pixels as a share of the object's size, at most 1, which falls as t rises. (The share of the mask's own
  pixels that are wrong, one minus its precision, is not monotone in t, so no bound on it would hold.)

The loss of an image is the mean over its prompted objects: images are exchangeable, objects of one image are not. With n images
of a calibration set and the mean loss R(t) over them, a threshold with

    n / (n + 1) R(t) + 1 / (n + 1) <= alpha

loses at most alpha on the next image, in expectation over calibration set and image, if they are exchangeable. Both losses are
step functions of t on a fixed grid and come from one histogram of scores an object, so that nothing is kept of the pixels.
Scores do not depend on the temperature, so fitting that on the same images takes nothing from the guarantee.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ruac.evaluate.error_detection import check_numbers

REACH = 32.0  # the grid of thresholds goes from -REACH to REACH logits
CELLS = 4096
PER_LOGIT = CELLS / (2 * REACH)  # a power of two, so that comparing cells and comparing scores is exactly the same
HALF = CELLS // 2  # the index of threshold zero, where the predicted mask ends

BACKGROUND, OBJECT = 0, 1


@dataclass(frozen=True, eq=False)
class Losses:
    """Sums over images, at each of CELLS + 1 thresholds. missed: of the outer mask, rising from 0 to the number of images;
    wrong: of the inner mask, falling to 0; area: pixels of the masks at that threshold per pixel of the image's objects,
    falling to 0."""

    images: int
    missed: NDArray[np.float64]
    wrong: NDArray[np.float64]
    area: NDArray[np.float64]

    @staticmethod
    def none() -> Losses:
        return Losses(0, *np.zeros((3, CELLS + 1)))

    @staticmethod
    def of_image(objects: Sequence[NDArray[np.int64]]) -> Losses:
        """objects: `count` of every prompted object of one image, one at least, each with a pixel."""
        below = np.zeros((len(objects), 2, CELLS + 1))
        below[..., 1:] = np.cumsum(objects, axis=-1)
        above = below[..., -1:] - below
        size = below[:, OBJECT, -1:]  # (P, 1)
        missed = (below[:, OBJECT] / size).mean(0)
        wrong = (np.minimum(above[:, BACKGROUND], size) / size).mean(0)
        return Losses(1, missed, wrong, above.sum((0, 1)) / size.sum())

    def __add__(self, other: Losses) -> Losses:
        return Losses(self.images + other.images, self.missed + other.missed, self.wrong + other.wrong, self.area + other.area)


@dataclass(frozen=True)
class Limit:
    """A threshold on the score, in logits: -inf is all of the picture, inf an empty mask. risk: mean loss on the calibration
    set; size: mean area of the mask there, 1 being the object's."""

    logit: float
    risk: float
    size: float


@dataclass(frozen=True)
class Level:
    """Two thresholds whose expected losses are each at most alpha."""

    alpha: float
    outer: Limit
    inner: Limit


def count(scores: Tensor, truth: Tensor, valid: Tensor) -> NDArray[np.int64]:
    """Pixels of the background and of the object by the cell of their score: [2, CELLS].

    scores: [height, width] logits; truth, valid: boolean, alike; pixels that are not valid do not count. Raises ValueError when
    a score is NaN.
    """
    check_numbers(scores)
    cells = (scores.float() * PER_LOGIT).floor_().clamp_(-HALF, HALF - 1).int() + HALF
    counted = (cells + CELLS * truth.int())[valid]
    return torch.bincount(counted, minlength=2 * CELLS).cpu().numpy().reshape(2, CELLS)


def choose(losses: Losses, alpha: float) -> Level:
    """The smallest outer and the largest inner mask that keep the promise, neither on the other side of the predicted mask.

    The last only makes losses smaller, and then inner mask, mask and outer mask lie within each other. Raises ValueError when so
    few images cannot promise so little.
    """
    check_alpha(alpha, losses.images)
    n = losses.images

    def kept(total: NDArray[np.float64]) -> int:
        """At how many thresholds; they are the first or the last ones, for the losses are monotone."""
        return int(((total + 1) / (n + 1) <= alpha).sum())

    def limit(index: int, total: NDArray[np.float64]) -> Limit:
        return Limit(logit_of(index), float(total[index]) / n, float(losses.area[index]) / n)

    outer = min(kept(losses.missed) - 1, HALF)
    # a score of exactly zero is not in the mask
    inner = max(CELLS + 1 - kept(losses.wrong), HALF + 1)
    return Level(alpha, limit(outer, losses.missed), limit(inner, losses.wrong))


def check_alpha(alpha: float, images: int) -> None:
    """Raises ValueError for one that is no share, or that takes more images."""
    if not 0 < alpha < 1:
        raise ValueError(f"--alpha {alpha:g}: a share between 0 and 1 is needed, such as 0.1")
    if images == 0 or 1 / (images + 1) > alpha:
        needed = math.ceil(1 / alpha - 1 - 1e-9)
        least = f", the least for {images} is {math.ceil(1e4 / (images + 1)) / 1e4:g}" if images else ""
        raise ValueError(f"--alpha {alpha:g}: takes {needed} labelled images with an object, there are {images}{least}")


def logit_of(index: int) -> float:
    """The threshold of this index; beyond the grid lie all pixels and none."""
    if index <= 0:
        return -math.inf
    return math.inf if index >= CELLS else (index - HALF) / PER_LOGIT
