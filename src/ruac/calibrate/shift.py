"""Are new pictures like those of the calibration? If not, its guarantee does not hold for them.

Of every picture two short lists of numbers are kept: how it looks and how doubtful its masks are. Two samples of such lists are
compared by their energy distance (Székely and Rizzo), with a permutation test: if the pictures are exchangeable, a warning
comes with a probability of at most LEVEL, whatever their distribution. Each number is replaced by its rank among both samples,
so that neither its unit nor an outlier matters; that treats both samples alike, as the test needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ruac.predictor import Prediction

LEVEL = 0.01  # how often pictures of the same kind may cause a warning; shared by the aspects
PERMUTATIONS = 1999
FEW = 5  # pictures below which nothing can be said
MOST = 500  # pictures of either sample that are compared, drawn at random, for time and memory grow with their square

LOOK_SIDE = 256  # pixels of the long side, from which on sharpness depends on the scene and not on the camera's resolution
SCALES = 4  # of contrast, each half the resolution of the one before
DOUBTFUL = 0.25  # expected error of a doubtful pixel

ASPECTS = {"look": "how they look", "doubt": "how doubtful their masks are"}


@dataclass(frozen=True)
class Traits:
    """One picture: its numbers by the names of ASPECTS; doubt is empty where no mask can be compared."""

    look: tuple[float, ...]
    doubt: tuple[float, ...]

    @staticmethod
    def of(image: NDArray[np.uint8], prediction: Prediction | None) -> Traits:
        """image: RGB [height, width, 3]; prediction: of one object, drawn at random where there are more, for a mean over many
        varies less than one alone; None where there is none."""
        found = look(image), () if prediction is None else doubt(prediction)
        # what arithmetic alone may change must not count: ranks magnify it
        return Traits(*(tuple(float(f"{v:.5g}") for v in values) for values in found))


@dataclass(frozen=True)
class Shift:
    """p: by aspect that could be compared, the probability of so large a difference between samples of the same kind."""

    p: Mapping[str, float]

    @property
    def aspects(self) -> tuple[str, ...]:
        """In which the pictures differ; empty where they do not."""
        return tuple(name for name, p in self.p.items() if p <= LEVEL / len(self.p))

    @property
    def words(self) -> str:
        """What a warning says of pictures that differ."""
        what = " and in ".join(ASPECTS[name] for name in self.aspects)
        p = min(1.0, len(self.p) * min(self.p.values()))  # of all aspects together, as the level is
        return f"these pictures differ from those of the calibration in {what} (energy distance, p = {p:.2g}, level {LEVEL:g})"


def compare(reference: Sequence[Traits], new: Sequence[Traits], seed: int = 0) -> Shift | None:
    """Each aspect by the pictures that have it; None when they are too few to tell anything. seed: of the permutations."""
    rng = np.random.default_rng(seed)
    p: dict[str, float] = {}
    for name in ASPECTS:
        before, after = ([values for traits in sample if (values := getattr(traits, name))] for sample in (reference, new))
        if min(len(before), len(after)) >= FEW:
            p[name] = energy_p_value(np.array(_some(before, rng)), np.array(_some(after, rng)), rng)
    return Shift(p) if p else None


def energy_p_value(a: NDArray[np.float64], b: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Of the energy distance between two samples [n, d] and [m, d] by ranks; at least 1 / (PERMUTATIONS + 1)."""
    from scipy.stats import rankdata  # half a second that those who only predict need not wait for

    pooled = np.concatenate([a, b])
    ranks = np.asarray(rankdata(pooled, axis=0)) / len(pooled)
    distance = cdist(ranks, ranks)
    weight = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))])
    drawn = np.stack([weight, *(rng.permutation(weight) for _ in range(PERMUTATIONS))])
    # 2 E|x - y| - E|x - x'| - E|y - y'| is minus the quadratic form of these weights
    energy = -((drawn @ distance) * drawn).sum(1)
    # rounding must not turn a tie into a difference
    return float((energy >= energy[0] - 1e-12).mean())


def look(image: NDArray[np.uint8]) -> tuple[float, ...]:
    """Of an RGB picture: mean and deviation of lightness and of both colour axes (CIELAB), skewness of lightness, and contrast
    at SCALES scales, the mean difference between neighbouring pixels."""
    scale = LOOK_SIDE / max(image.shape[:2])
    size = [max(1, round(n * scale)) for n in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float64)
    mean, deviation = lab.mean((0, 1)), lab.std((0, 1))
    lightness = lab[..., 0]
    skewness = float(((lightness - mean[0]) ** 3).mean()) / max(float(deviation[0]), 1e-6) ** 3
    contrast = []
    for _ in range(SCALES):
        contrast.append(sum(float(np.abs(np.diff(lightness, axis=axis)).mean()) for axis in (0, 1) if lightness.shape[axis] > 1))
        lightness = cv2.resize(lightness, [max(1, n // 2) for n in lightness.shape[::-1]], interpolation=cv2.INTER_AREA)
    return (*mean.tolist(), *deviation.tolist(), skewness, *contrast)


def doubt(prediction: Prediction) -> tuple[float, ...]:
    """Of the best mask, on the decoder's grid: mean uncertainty, doubtful pixels per pixel of the mask, predicted and expected
    IoU."""
    low = prediction.distribution.map(lambda values: values[:1]).crop(prediction.frame, prediction.side)
    doubtful = (low.expected_error() > DOUBTFUL).sum() / (low.mean > 0).sum().clamp_min(1)
    read = torch.stack([low.entropy().mean(), doubtful, low.expected_iou()[0]]).tolist()
    return read[0], read[1], prediction.score, read[2]


def _some(sample: Sequence[tuple[float, ...]], rng: np.random.Generator) -> list[tuple[float, ...]]:
    if len(sample) <= MOST:
        return list(sample)
    return [sample[i] for i in sorted(rng.choice(len(sample), MOST, replace=False))]
