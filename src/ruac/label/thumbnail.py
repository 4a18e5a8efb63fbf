"""A small picture of one mask for the review page: its outline on the photograph, between those of the masks that a calibration puts
around it, and beside it where it may be wrong."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ruac.calibrate.bounds import Bounds
from ruac.overlay import BLUE, COLOUR_MAP, DARK, INNER, OPACITY, OUTER, WHITE, draw_contours
from ruac.regions import Mask, bounding_box

SIDE = 216  # pixels of the longer side of each of the two
UNIT = SIDE / 100  # of line widths and dashes
GAP = 6
MARGIN = 0.35  # of the object's longer side, shown around it
LEAST_SIDE = 64  # pixels of the photograph
QUALITY = 60
PAPER = (128, 128, 128)  # between the two, on light and dark pages

Picture = NDArray[np.uint8]


def draw(
    image: Picture, mask: Mask, uncertainty: NDArray[np.float32], click: tuple[int, int], bounds: Bounds | None = None
) -> bytes:
    """A JPEG file of some 15 kB; as WebP it would be a tenth smaller and take twenty times as long.

    image: RGB [height, width, 3]; uncertainty: bits [height, width]; click: (x, y) that would help next; bounds: drawn as thin lines,
    the outer one dashed.
    """
    view = view_of(mask)
    inside, photo, doubt = mask[view], image[view], uncertainty[view]
    scale = SIDE / max(inside.shape)
    size = max(1, round(inside.shape[1] * scale)), max(1, round(inside.shape[0] * scale))
    small = _shrink(inside, size)
    left = _resize(photo, size)
    right = _blend(left, _resize(doubt, size).clip(0, 1))
    for panel in (left, right):
        _draw_outline(panel, small)
    if bounds is not None:
        # over the mask's outline, which is the wider one
        draw_contours(left, _shrink(bounds.outer[view], size), OUTER, UNIT, dashed=True)
        draw_contours(left, _shrink(bounds.inner[view], size), INNER, UNIT, dashed=False)
    rows, columns = view
    at = round((click[0] - columns.start + 0.5) * scale), round((click[1] - rows.start + 0.5) * scale)
    cv2.circle(left, at, 6, WHITE, -1, cv2.LINE_AA)
    cv2.circle(left, at, 4, BLUE, -1, cv2.LINE_AA)
    if size[0] > 2 * size[1]:  # wide ones one above the other
        gap = np.full((GAP, size[0], 3), PAPER, np.uint8)
        both = np.vstack([left, gap, right])
    else:
        gap = np.full((size[1], GAP, 3), PAPER, np.uint8)
        both = np.hstack([left, gap, right])
    done, content = cv2.imencode(".jpg", both[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise ValueError(f"cannot encode {both.shape} as JPEG")
    return content.tobytes()


def view_of(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns around the object, made square as far as the picture goes; all of it for an empty mask."""
    rows, columns = bounding_box(mask)
    longer = max(rows.stop - rows.start, columns.stop - columns.start)
    if not longer:
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    length = max(LEAST_SIDE, round(longer * (1 + 2 * MARGIN)))
    return _around(rows, length, mask.shape[0]), _around(columns, length, mask.shape[1])


def _around(part: slice, length: int, end: int) -> slice:
    """`length` pixels with the part in their middle, moved and then cut to lie within 0..end."""
    start = min(max(0, (part.start + part.stop - length) // 2), max(0, end - length))
    return slice(start, min(end, start + length))


def _resize(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """To (width, height): averaged where it shrinks, smooth where it grows."""
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA if size[0] < values.shape[1] else cv2.INTER_LINEAR)


def _shrink(mask: Mask, size: tuple[int, int]) -> Mask:
    return _resize(mask.astype(np.float32), size) > 0.5


def _blend(photo: Picture, uncertainty: NDArray[np.float32]) -> Picture:
    """Colour over grey, the denser the less certain."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    colours = cv2.applyColorMap((uncertainty * 255).round().astype(np.uint8), COLOUR_MAP)[..., ::-1]
    alpha = (OPACITY * np.sqrt(uncertainty))[..., None]
    return np.rint(grey * 0.8 * (1 - alpha) + colours * alpha).astype(np.uint8)


def _draw_outline(picture: Picture, inside: Mask) -> None:
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for colour, thickness in ((DARK, 3), (WHITE, 1)):
        cv2.drawContours(picture, contours, -1, colour, thickness, cv2.LINE_AA)
