"""A calibration applied to a prediction: its inner and outer mask, and its probabilities at the fitted temperature."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy.special import expit
from torch import Tensor

from ruac.calibrate.file import Calibration, find
from ruac.calibrate.risk import Level
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
    calibration, level = guarantee.calibration, guarantee.level
    score = scores(prediction)
    inner, outer = ((score >= limit.logit).numpy() for limit in (level.inner, level.outer))
    share = f"{100 * level.alpha:g} %"
    words = (
        f"On average over pictures like the {calibration.images} of the calibration, prompted by {calibration.policy.words}, the "
        f"outer mask misses at most {share} of an object, and the wrong pixels of the inner mask are at most {share} of the "
        "object's size."
    )
    if not asked_alike:
        words = f"None: the guarantee is for {calibration.policy.words}, and this prompt is another. {words}"
    promise = {
        "holds": asked_alike,
        "alpha": level.alpha,
        "words": words,
        "images": calibration.images,
        "data": calibration.fingerprint,
        "outer": {"least_probability": float(expit(level.outer.logit / calibration.temperature)), "area": int(outer.sum())},
        "inner": {"least_probability": float(expit(level.inner.logit / calibration.temperature)), "area": int(inner.sum())},
        "temperature": calibration.temperature,
    }
    if not asked_alike:
        return Bounds(inner, outer, promise, "inner: no guarantee", "outer: no guarantee")
    return Bounds(inner, outer, promise, f"inner: at most {share} wrong on average", f"outer: misses at most {share} on average")
