"""A simulated annotator: where would a person click, given the object and what has been found of it so far?"""

from __future__ import annotations

import numpy as np

from ruac.features import BACKGROUND, FOREGROUND
from ruac.regions import Mask, interior_point, largest_region


def first_click(mask: Mask, rng: np.random.Generator | None = None) -> tuple[int, int]:
    """(x, y) of a click on the object: its most interior pixel or, with an rng, one drawn among all its pixels.

    Raises ValueError for an empty mask.
    """
    if not mask.any():
        raise ValueError("cannot click on an empty mask")
    if rng is None:
        return interior_point(largest_region(mask))
    rows, columns = np.nonzero(mask)
    i = rng.integers(len(rows))
    return int(columns[i]), int(rows[i])


def next_click(
    predicted: Mask, truth: Mask, valid: Mask | None = None, rng: np.random.Generator | None = None
) -> tuple[int, int, int] | None:
    """(x, y, label) of the correction at the centre of the largest error region, or, with an rng, anywhere inside it.

    valid: pixels that count (not padding, not labelled "ignore"). None when there is no error left.
    """
    best: tuple[int, Mask, int] | None = None
    for label, wrong in ((FOREGROUND, truth & ~predicted), (BACKGROUND, predicted & ~truth)):
        region = largest_region(wrong if valid is None else wrong & valid)
        size = int(region.sum())
        if size and (best is None or size > best[0]):
            best = size, region, label
    if best is None:
        return None
    _, region, label = best
    x, y = interior_point(region) if rng is None else first_click(region, rng)
    return x, y, label


def jittered_box(mask: Mask, rng: np.random.Generator | None = None, jitter: float = 0.1) -> tuple[float, float, float, float]:
    """Bounding box (x0, y0, x1, y1) in pixels, each side moved by up to `jitter` of the box's own size when an rng is given.

    Raises ValueError for an empty mask.
    """
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        raise ValueError("cannot draw a box around an empty mask")
    box = np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=np.float64)
    if rng is not None:
        size = np.array([box[2] - box[0], box[3] - box[1]] * 2) + 1
        height, width = mask.shape
        box = (box + rng.uniform(-jitter, jitter, 4) * size).clip(0, [width - 1, height - 1] * 2)
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])
