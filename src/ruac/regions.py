"""Geometry of masks: boolean arrays [height, width]."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# the band around an object, as a share of the image diagonal, in which errors are to be expected
BAND = 0.02
# up to this many pixels a dilation is faster than a distance transform, whose time does not depend on the reach
FAST_REACH = 16


def bounding_box(mask: Mask, margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around the mask, `margin` pixels larger inside the image; empty for an empty mask."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return slice(0, 0), slice(0, 0)
    return slice(max(0, y - margin), y + height + margin), slice(max(0, x - margin), x + width + margin)


def outline(mask: Mask) -> Mask:
    """Boundary pixels: those that differ from their right, lower or lower right neighbour, as the DAVIS benchmark has it."""
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def grow(mask: Mask, radius: float) -> Mask:
    """All pixels within `radius` pixels of the mask (Euclidean, between pixel centres)."""
    if not mask.any():
        return np.zeros_like(mask)
    reach = math.floor(radius)
    box = bounding_box(mask, margin=reach)
    grown = np.zeros_like(mask)
    if reach <= FAST_REACH:
        offsets = np.arange(-reach, reach + 1)
        disk = offsets[:, None] ** 2 + offsets**2 <= radius**2
        grown[box] = cv2.dilate(mask[box].view(np.uint8), disk.astype(np.uint8))
    else:
        distance = cv2.distanceTransform((~mask[box]).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # the distances are rounded square roots of whole numbers
        grown[box] = distance <= radius + 1e-4
    return grown


def band_around(predicted: Mask, truth: Mask) -> Mask:
    """The pixels within BAND times the diagonal of the predicted or the true object; the object itself among them."""
    return grow(predicted | truth, BAND * math.hypot(*truth.shape))


def largest_region(mask: Mask) -> Mask:
    """The largest 8-connected component; empty for an empty mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return np.zeros_like(mask)
    return labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())


def heaviest_region(mask: Mask, weight: NDArray[np.floating]) -> Mask:
    """The 8-connected component with the largest sum of weight [height, width]; empty for an empty mask."""
    labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
    sums = np.bincount(labels.ravel(), (weight * mask).ravel())
    if len(sums) < 2:
        return np.zeros_like(mask)
    return labels == 1 + int(sums[1:].argmax())


def fewest(weight: NDArray[np.floating], share: float) -> Mask:
    """The fewest pixels that hold this share of all weight, >= 0, [height, width]; of equal ones all."""
    descending = np.sort(weight, axis=None)[::-1]
    held = descending.cumsum(dtype=np.float64)
    return weight >= descending[min(int(np.searchsorted(held, share * held[-1])), len(held) - 1)]


def region_around(mask: Mask, x: int, y: int) -> Mask:
    """The 8-connected component that a pixel lies in, or the pixel alone where it is not in the mask."""
    labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
    region = (labels == labels[y, x]) & mask
    region[y, x] = True
    return region


def depth(mask: Mask) -> NDArray[np.float32]:
    """[height, width], how far each pixel of the mask is from the nearest one outside; the image border counts as outside."""
    padded = np.pad(mask.astype(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1].astype(np.float32, copy=False)


def interior_point(mask: Mask) -> tuple[int, int]:
    """(x, y) of the pixel farthest from the outside; the image border counts as outside. The first in reading order on ties."""
    y, x = np.unravel_index(int(depth(mask).argmax()), mask.shape)
    return int(x), int(y)
