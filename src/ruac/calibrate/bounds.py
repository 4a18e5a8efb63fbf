"""A calibration applied to a prediction: its inner and outer mask, and its probabilities at the fitted temperature."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from ruac.calibrate.file import Calibration, find
from ruac.calibrate.policy import Box, Point
from ruac.calibrate.risk import Level
from ruac.calibrate.shift import Traits
from ruac.predictor import Prediction
from ruac.regions import Mask


@dataclass(frozen=True)
class Guarantee:
    """A calibration and the one of its levels that is used."""

    calibration: Calibration
    level: Level

    @staticmethod
    def of(model: str, model_sha256: str, named: Path | None, alpha: float | None) -> Guarantee | None:
        """The calibration that is named, else that in the model's folder, else None; alpha: the first of its levels if None.

        Raises FileNotFoundError and ValueError as `find`, ValueError for an alpha that it does not have.
        """
        calibration = find(model, named, model_sha256)
        if calibration is not None:
            return Guarantee(calibration, calibration.level(alpha))
        if alpha is not None:
            raise ValueError(f"--alpha {alpha:g}: there is no calibration to take it from; name one with --calibration")
        return None

    @property
    def name(self) -> str:
        """Another one where one of the two masks, or what is promised of it, may be another."""
        calibration = self.calibration
        told = [calibration.fingerprint, calibration.images, asdict(calibration.policy), asdict(self.level)]
        return f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]} at alpha {self.level.alpha:g}"

    @property
    def share(self) -> str:
        """alpha in words."""
        return f"{100 * self.level.alpha:g} %"

    @property
    def words(self) -> str:
        """What is promised."""
        calibration = self.calibration
        return (
            f"On average over pictures like the {calibration.images} of the calibration, prompted by {calibration.policy.words}, the "
            f"outer mask misses at most {self.share} of an object, and the wrong pixels of the inner mask are at most {self.share} of "
            "the object's size."
        )

    def describe(self) -> dict[str, Any]:
        """For result files. least_probability: of a mask's pixels, at that temperature."""
        calibration, level = self.calibration, self.level
        least = [float(expit(limit.logit / calibration.temperature)) for limit in (level.outer, level.inner)]
        return {
            "alpha": level.alpha,
            "words": self.words,
            "images": calibration.images,
            "data": calibration.fingerprint,
            "outer": {"least_probability": least[0]},
            "inner": {"least_probability": least[1]},
            "temperature": calibration.temperature,
        }

    def asked_alike(self, points: Sequence[Point], box: Box | None) -> bool:
        """Whether such a prompt is of the calibration's kind."""
        return self.calibration.policy.fits(points, box)

    def traits_of(self, image: NDArray[np.uint8], prediction: Prediction, points: Sequence[Point], box: Box | None) -> Traits:
        """Of a picture, to be compared with those of the calibration; prediction: of the object that was asked for so.

        Without the doubt where the prompt is of another kind: that changes the doubt in pictures of the same kind, too.
        """
        return Traits.of(image, prediction if self.asked_alike(points, box) else None)


@dataclass(frozen=True, eq=False)
class Bounds:
    """inner, outer: [height, width], the mask between them; promise: what holds for them, for the result file; inner_words,
    outer_words: for the picture's legend."""

    inner: Mask
    outer: Mask
    promise: dict[str, Any]
    inner_words: str
    outer_words: str


def scores(prediction: Prediction) -> Tensor:
    """Logit of the best mask's probability at the image's own resolution, [height, width]; above zero in the mask."""
    best = prediction.distribution.map(lambda values: values[:1])
    return best.resize(prediction.frame, prediction.side).scaled_mean()[0]


def tempered(prediction: Prediction, temperature: float) -> Prediction:
    """The same masks, every logit of their probability divided by the temperature; an earlier mask for a next prompt stays as it is.

    That is what dividing the mean and leaving the variance does to μ / √(1 + πv/8).
    """
    moments = prediction.distribution
    divided = replace(moments, mean=moments.mean / temperature, gain=moments.gain / temperature)
    return replace(prediction, distribution=divided)


def bounds(prediction: Prediction, guarantee: Guarantee, asked_alike: bool) -> Bounds:
    """prediction: as the model gave it, not tempered; asked_alike: whether its prompt is of the calibration's kind."""
    score = scores(prediction)
    inner, outer = ((score >= limit.logit).numpy() for limit in (guarantee.level.inner, guarantee.level.outer))
    promise = {"holds": asked_alike, **guarantee.describe()}
    promise["outer"]["area"], promise["inner"]["area"] = int(outer.sum()), int(inner.sum())
    if asked_alike:
        share = guarantee.share
        words = f"inner: at most {share} wrong on average", f"outer: misses at most {share} on average"
    else:
        policy = guarantee.calibration.policy
        promise["words"] = f"None: the guarantee is for {policy.words}, and this prompt is another. {guarantee.words}"
        words = "inner: no guarantee", "outer: no guarantee"
    return Bounds(inner, outer, promise, *words)
