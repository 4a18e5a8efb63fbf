"""From a prediction to what is kept of it."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ruac.calibrate.bounds import Bounds
from ruac.data.labels import encode
from ruac.everything import Window
from ruac.label.part import Around, Label
from ruac.label.thumbnail import draw
from ruac.predictor import Prediction, Predictor
from ruac.regions import Mask, band_around, bounding_box

DIGITS = 6  # of what is written


def measure(
    image: NDArray[np.uint8], prediction: Prediction, window: Window, category: int, bounds: Bounds | None = None
) -> Label:
    """The best mask of a prediction that was made in a window of the picture; image: that window, RGB; bounds: of the prediction."""
    mask, uncertainty = prediction.masks[0], prediction.uncertainty[0]
    click = Predictor.next_click(prediction)
    # where masks were chosen by it, so that none is kept for one number and listed with another
    low = replace(prediction, low_resolution=True)
    whole = window.place(mask)
    rows, columns = bounding_box(whole)
    near = uncertainty[band_around(mask, mask)] if mask.any() else uncertainty
    return Label(
        category=category,
        counts=_counts(whole),
        bbox=(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start),
        area=int(np.count_nonzero(mask)),
        # some models guess more than 1
        score=round(float(np.clip(prediction.score, 0, 1)), DIGITS),
        expected_iou=round(float(low.expected_iou[0]), DIGITS),
        mean_uncertainty=round(float(near.mean(dtype=np.float64)), DIGITS),
        object_score=None if prediction.object_score is None else round(prediction.object_score, DIGITS),
        next_click=(click.x + window.left, click.y + window.top, click.label),
        around=bounds
        and Around(_counts(window.place(bounds.inner)), _counts(window.place(bounds.outer)), bounds.promise["holds"]),
        thumbnail=base64.b64encode(draw(image, mask, uncertainty, (click.x, click.y), bounds)).decode("ascii"),
    )


def _counts(mask: Mask) -> str:
    return encode(mask)["counts"].decode("ascii")
