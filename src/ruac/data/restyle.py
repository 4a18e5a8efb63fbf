"""Photographs as other cameras, sensors and painters would show them: errors on these are like errors in domains never seen."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ruac.data.scenes import GREY, Image, recolour

EXTREME_GAMMAS = (0.3, 0.4, 2.5, 3.5)


def restyle(image: Image, rng: np.random.Generator) -> Image:
    """One strong change of appearance, and half of the time `recolour` on top of it."""
    kind = rng.choice(["statistics", "grey", "blur", "noise", "gamma", "channels"], p=[0.25, 0.2, 0.15, 0.15, 0.1, 0.15])
    x = image.astype(np.float32)
    if kind == "statistics":
        x = (x - x.mean((0, 1))) / (x.std((0, 1)) + 1) * rng.uniform(15, 75, 3) + rng.uniform(50, 205, 3)
    elif kind == "grey":
        grey = x @ GREY
        grey = 255 - grey if rng.random() < 0.5 else grey
        x = np.repeat((grey[..., None] - 127) * rng.uniform(0.3, 1.6) + 127, 3, 2)
    elif kind == "blur":
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(1, 4))
    elif kind == "noise":
        x = x + rng.normal(0, rng.uniform(10, 50), x.shape)
    elif kind == "gamma":
        x = 255 * (x / 255) ** rng.choice(EXTREME_GAMMAS)
    else:
        x = x[..., rng.permutation(3)] * rng.uniform(0.4, 1.6, 3)
    result: NDArray[np.uint8] = np.clip(x, 0, 255).astype(np.uint8)
    return recolour(result, rng) if rng.random() < 0.5 else result
