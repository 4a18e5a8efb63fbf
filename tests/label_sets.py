"""Masks of every kind, and label sets of them, for tests of the formats."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ruac.data.labels import decode, encode
from ruac.exchange.labelset import LabelledObject, LabelSet, Picture

# holes, several pieces, pieces and holes that touch at corners, single pixels, the borders, nothing, everything
MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda size: arrays(np.bool_, size))
FACTS = {"score": 0.9, "expected_iou": 0.75, "mean_uncertainty": 0.125, "object_score": 0.5}


def thing(mask: np.ndarray, label: str = "cat", **facts: Any) -> LabelledObject:
    return LabelledObject.of_mask(label, encode(mask), facts)


def set_of(*masks: np.ndarray, name: str = "a.png", label: str = "cat", **facts: Any) -> LabelSet:
    """One picture with these objects."""
    return LabelSet((Picture(name, masks[0].shape, tuple(thing(mask, label, **facts) for mask in masks)),), (label,))


def masks_of(labels: LabelSet) -> list[np.ndarray]:
    return [decode(one.mask) for picture in labels.pictures for one in picture.objects]


def cell(size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A round object with a hole, and a small one beside it."""
    mask = np.zeros(size, np.uint8)
    cv2.circle(mask, (35, 30), 25, 1, -1)
    cv2.circle(mask, (40, 28), 8, 0, -1)
    cv2.circle(mask, (72, 50), 5, 1, -1)
    return mask.astype(bool)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()
