"""Areas as annotation files have them, polygons and run lengths, made into pycocotools' run lengths and never trusted.

pycocotools is C code that believes what it is told: numbers are checked before it sees them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from ruac.data.labels import Rle, Size, decode, encode

FARTHEST = 10  # sides of the picture that a polygon may reach beyond it
MAX_OUTLINE = 5_000_000  # pixels along a polygon, which is what its rasterisation takes in memory
DEEPEST = 4  # lists around the lists of points
Parts = Literal["union", "parity"]
# a compressed number ends with a character without the sixth bit: none runs over the end of the string or beyond 35 bits
COMPRESSED = re.compile(r"(?:[P-o]{0,6}[0-O])+")


def from_segmentation(segmentation: Any, size: Size) -> tuple[Rle | None, int]:
    """COCO's "segmentation", polygons or either kind of run lengths; and how many polygons of it are none.

    Raises ValueError when it is something else or does not fit a picture of that size.
    """
    if isinstance(segmentation, dict):
        return from_counts(segmentation, size), 0
    return from_polygons(polygons_of(segmentation), size)


def from_counts(value: dict[str, Any], size: Size) -> Rle:
    """Run lengths as a list of numbers or compressed. Raises ValueError when they are broken or of another size."""
    counts, own = value.get("counts"), value.get("size")
    if not isinstance(own, list | tuple) or tuple(own) != size:
        raise ValueError(f"run lengths of size {str(own)[:40]}, height and width of the picture are {list(size)}")
    if isinstance(counts, list):
        if not all(type(n) is int and n >= 0 for n in counts) or sum(counts) != size[0] * size[1]:
            raise ValueError(f"run lengths that do not add up to {size[0] * size[1]} pixels")
        flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return encode(flat.reshape(size, order="F"))
    text = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
    if not isinstance(text, str) or not COMPRESSED.fullmatch(text):
        raise ValueError("broken run lengths")
    rle = {"size": list(size), "counts": text.encode("ascii")}
    # decoding checks that they stay inside the picture
    return encode(decode(rle))


def from_polygons(polygons: Sequence[Sequence[float]], size: Size, parts: Parts = "union") -> tuple[Rle | None, int]:
    """One object of one or several polygons x0, y0, x1, y1 ..., and how many have fewer than three points and were skipped.

    parts: what several polygons mean, "union", or "parity" (a polygon in another one is a hole). None when no polygon is left.
    """
    areas = [polygon for polygon in polygons if len(polygon) >= 6]
    skipped = len(polygons) - len(areas)
    if not areas:
        return None, skipped
    for polygon in areas:
        _check_polygon(polygon, size)
    numbers: Any = [list(map(float, polygon)) for polygon in areas]
    rles = coco_mask.frPyObjects(numbers, *size)
    if parts == "union" or len(rles) == 1:
        return coco_mask.merge(rles), skipped
    return encode(np.logical_xor.reduce([decode(rle) for rle in rles])), skipped


def polygons_of(value: Any, depth: int = DEEPEST) -> list[list[float]]:
    """The polygons x0, y0, x1, y1 ... in whatever form: flat, a list of [x, y], lists of either, or VIA's all_points_x and _y.

    Raises ValueError for anything else, lists within more than `depth` lists too.
    """
    if isinstance(value, dict):
        xs, ys = value.get("all_points_x", []), value.get("all_points_y", [])
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise ValueError("a polygon with more x than y coordinates, or the other way round")
        return [[n for point in zip(xs, ys, strict=True) for n in point]]
    if not isinstance(value, list):
        raise ValueError(f"neither polygons nor run lengths: {str(value)[:40]}")
    if not value:
        return [[]]
    if not isinstance(value[0], list):
        return [value]
    if all(isinstance(point, list) and len(point) == 2 and not isinstance(point[0], list) for point in value):
        return [[n for point in value for n in point]]
    if not depth:
        raise ValueError(f"polygons in more than {DEEPEST} lists, one in the other")
    return [polygon for part in value for polygon in polygons_of(part, depth - 1)]


def _check_polygon(polygon: Sequence[float], size: Size) -> None:
    if len(polygon) % 2:
        raise ValueError(f"a polygon of {len(polygon)} numbers, which are no pairs of x and y")
    try:
        points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("a polygon with coordinates that are no numbers") from None
    limit = np.array([size[1], size[0]]) * FARTHEST
    if not np.isfinite(points).all() or (np.abs(points) > limit).any():
        raise ValueError(f"a polygon far outside the picture of {size[1]} x {size[0]} pixels")
    if np.abs(points - np.roll(points, 1, 0)).max(1).sum() > MAX_OUTLINE:
        raise ValueError(f"a polygon with an outline of more than {MAX_OUTLINE} pixels")
