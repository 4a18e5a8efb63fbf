"""How good is a mask? Region overlap and outline, per object, on boolean arrays; pixels labelled "ignore" never count.

Nothing predicted where nothing is there is right: all measures are 1 then, and 0 when only one of the two masks is empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ruac.regions import Mask, bounding_box, grow, outline

# DAVIS-2016: outlines may lie this far apart, as a share of the image diagonal
TOLERANCE = 0.008


@dataclass(frozen=True)
class MaskQuality:
    """Each in [0, 1], 1 is best. iou: J of the DAVIS benchmark; boundary_f: its F."""

    iou: float
    dice: float
    boundary_f: float

    @property
    def j_and_f(self) -> float:
        return (self.iou + self.boundary_f) / 2


def mask_quality(predicted: Mask, truth: Mask, valid: Mask | None = None) -> MaskQuality:
    """All measures of a predicted mask [height, width]; valid: the pixels that count, None for all.

    Raises ValueError when the shapes differ.
    """
    if not predicted.shape == truth.shape == (truth.shape if valid is None else valid.shape):
        raise ValueError(f"masks of different sizes: {predicted.shape}, {truth.shape}, {None if valid is None else valid.shape}")
    if valid is not None:
        predicted, truth = predicted & valid, truth & valid
    tolerance = math.ceil(TOLERANCE * math.hypot(*truth.shape))
    # all that counts lies inside the box around both masks, or one pixel outside it
    box = bounding_box(predicted | truth, margin=2)
    predicted, truth = predicted[box], truth[box]
    overlap, sizes = np.count_nonzero(predicted & truth), np.count_nonzero(predicted) + np.count_nonzero(truth)
    return MaskQuality(
        iou=float(overlap / (sizes - overlap)) if sizes else 1.0,
        dice=float(2 * overlap / sizes) if sizes else 1.0,
        boundary_f=_boundary_f(predicted, truth, tolerance),
    )


def iou(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """Intersection over union."""
    return mask_quality(predicted, truth, valid).iou


def dice(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """Twice the intersection over the sum of both sizes: the F1 score of the pixels."""
    return mask_quality(predicted, truth, valid).dice


def boundary_f(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """F1 score of the outline (Perazzi et al. 2016, DAVIS).

    A boundary pixel is found when the other outline has one within ceil(TOLERANCE * image diagonal) pixels. Ignored pixels are
    background in both masks, so the outline of an object runs along them.
    """
    return mask_quality(predicted, truth, valid).boundary_f


def j_and_f(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """Mean of `iou` and `boundary_f`."""
    return mask_quality(predicted, truth, valid).j_and_f


def _boundary_f(predicted: Mask, truth: Mask, tolerance: int) -> float:
    found, wanted = outline(predicted), outline(truth)
    n_found, n_wanted = np.count_nonzero(found), np.count_nonzero(wanted)
    if not n_found or not n_wanted:
        return float(n_found == n_wanted)
    precision = np.count_nonzero(found & grow(wanted, tolerance)) / n_found
    recall = np.count_nonzero(wanted & grow(found, tolerance)) / n_wanted
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0
