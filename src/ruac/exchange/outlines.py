"""Polygons of masks that give the masks back: they run along the edges of the pixels, from corner to corner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import Delaunay

from ruac.regions import Mask, bounding_box

Ring = NDArray[np.float64]  # [N, 2] (x, y) in pixels, 0 being the left or upper edge of the first one; the last joins the first

# Which pixels around a corner of the pixel grid belong to the mask: upper left 1, upper right 2, lower left 4, lower right 8.
# Towards which side (x, y) of the corner the mask lies, for all neighbourhoods in which the outline turns:
INWARD = {1: (-1, -1), 2: (1, -1), 4: (-1, 1), 8: (1, 1), 14: (1, 1), 13: (-1, 1), 11: (1, -1), 7: (-1, -1)}
# Where two pixels touch at their corners the outline turns twice: first with the edge on the left, then with the one on the right.
LEFT = {9: (-1, -1), 6: (-1, 1)}
RIGHT = {9: (1, 1), 6: (1, -1)}
RISING = 6  # the mask is upper right and lower left


@dataclass(frozen=True, eq=False)
class Part:
    """A piece of a mask, connected by edges of pixels; outer and holes: clockwise as seen."""

    outer: Ring
    holes: tuple[Ring, ...]


def parts_of(mask: Mask, inset: float = 0.0, tolerance: float = 0.0) -> list[Part]:
    """The pieces of a mask; none of an empty one.

    inset: pixels, below 1/2, that the outlines stay inside the mask, for tools that round coordinates down and fill what is on the
    outline, too. tolerance: pixels that a simplified outline may be off; 0 keeps every corner, and with it the very mask.
    """
    rows, columns = bounding_box(mask)
    box = mask[rows, columns]
    if not box.size:
        return []
    corners = _corners(box)
    points = corners.points + inset * corners.inward + (columns.start, rows.start)
    _, pieces = cv2.connectedComponents(box.astype(np.uint8), connectivity=4)
    outer: dict[int, Ring] = {}  # by the number of the piece
    holes: dict[int, list[Ring]] = {}
    for ring in _rings(corners):
        first = ring[0]  # the upper left corner
        x, y = corners.points[first] + (corners.inward[first] - 1) // 2
        piece = int(pieces[y, x])
        line = _simplified(points[ring], tolerance)
        if corners.inward[first, 0] > 0:
            outer[piece] = points[ring] if line is None else line
        elif line is not None:
            holes.setdefault(piece, []).append(line)
    return [Part(line, tuple(holes.get(piece, ()))) for piece, line in outer.items()]


def one_line_of(mask: Mask, inset: float = 0.0, tolerance: float = 0.0) -> Ring:
    """The whole mask as one closed line, for formats in which an object is one polygon; [0, 2] of an empty mask.

    From piece to piece and to every hole it goes the shortest way and the same way back, so that nothing lies between: filled by
    the even-odd rule it is the mask.
    """
    rings = [ring for part in parts_of(mask, inset, tolerance) for ring in (part.outer, *part.holes)]
    if len(rings) < 2:
        return rings[0] if rings else np.empty((0, 2))
    return np.concatenate(rings)[_tour([len(ring) for ring in rings], _bridges(rings))]


@dataclass(frozen=True, eq=False)
class _Corners:
    """Where outlines turn, by rows, then columns: points: [N, 2] (x, y); inward: [N, 2] of -1 or 1; below: [N] the number of the
    corner at the other end of the vertical edge. That of the horizontal one differs in the last bit."""

    points: NDArray[np.int64]
    inward: NDArray[np.int64]
    below: NDArray[np.int64]


def _corners(mask: Mask) -> _Corners:
    padded = np.pad(mask.astype(np.uint8), 1)
    around = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, :-1] + 8 * padded[1:, 1:]
    turns = np.zeros(16, np.int64)
    turns[list(INWARD)], turns[list(LEFT)] = 1, 2
    y, x = np.nonzero(turns[around])
    kind = around[y, x].astype(np.int64)
    # a corner where it turns twice is there twice
    each = np.repeat(np.arange(len(kind)), turns[kind])
    second = np.concatenate([[False], each[1:] == each[:-1]])
    y, x, kind = y[each], x[each], kind[each]
    table = np.zeros((2, 16, 2), np.int64)
    for turn, inward in enumerate((INWARD | LEFT, INWARD | RIGHT)):
        table[turn, list(inward)] = list(inward.values())
    # in every column of the grid the corners are the ends of edges, two by two, as they are in every row
    order = np.lexsort((second ^ (kind == RISING), y, x))
    below = np.empty_like(order)
    below[order[0::2]], below[order[1::2]] = order[1::2], order[0::2]
    return _Corners(np.stack([x, y], 1), table[second.astype(np.int64), kind], below)


def _rings(corners: _Corners) -> list[list[int]]:
    """The numbers of the corners of each ring, from its upper left one to the right. A loop over corners, not over pixels."""
    below, seen = corners.below.tolist(), bytearray(len(corners.below))
    rings = []
    for start in range(0, len(below), 2):
        if seen[start]:
            continue
        ring, corner = [], start
        while not seen[corner]:
            seen[corner] = seen[corner ^ 1] = True
            ring += [corner, corner ^ 1]
            corner = below[corner ^ 1]
        rings.append(ring)
    return rings


def _simplified(ring: Ring, tolerance: float) -> Ring | None:
    """None when nothing would be left."""
    if not tolerance:
        return ring
    # near the origin, where 32 bits are precise
    line = cv2.approxPolyDP((ring - ring[0]).astype(np.float32), tolerance, True)[:, 0]
    return line.astype(np.float64) + ring[0] if len(line) >= 3 else None


def _bridges(rings: list[Ring]) -> dict[int, list[int]]:
    """The shortest connections that make all rings one, as a tree: from points to points, both ways, numbered through all rings."""
    points = np.concatenate(rings)
    ring_of = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    # where rings touch a point is there twice
    places, first, place_of = np.unique(points, axis=0, return_index=True, return_inverse=True)
    mesh = Delaunay(places)
    triangles = mesh.simplices
    sides = np.concatenate([triangles[:, :2], triangles[:, 1:], triangles[:, ::2], mesh.coplanar[:, ::2]])
    pairs = np.concatenate([first[sides], np.stack([np.arange(len(points)), first[place_of.ravel()]], 1)])
    pairs = np.take_along_axis(pairs, ring_of[pairs].argsort(1), 1)
    pairs = pairs[ring_of[pairs[:, 0]] != ring_of[pairs[:, 1]]]
    # to a sparse matrix a length of zero is no connection
    lengths = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1) + 1e-9
    order = np.argsort(lengths, kind="stable")
    key = ring_of[pairs[order, 0]] * len(rings) + ring_of[pairs[order, 1]]
    keys, shortest = np.unique(key, return_index=True)
    chosen = order[shortest]
    shape = len(rings), len(rings)
    tree = minimum_spanning_tree(coo_array((lengths[chosen], np.divmod(keys, len(rings))), shape)).tocoo()
    bridges: dict[int, list[int]] = defaultdict(list)
    for number in np.searchsorted(keys, tree.row.astype(np.int64) * len(rings) + tree.col):
        here, there = pairs[chosen[number]].tolist()
        bridges[here].append(there)
        bridges[there].append(here)
    return bridges


def _tour(lengths: list[int], bridges: dict[int, list[int]]) -> list[int]:
    """The numbers of the points along one closed line round the first ring and, over every bridge and back, round all others."""
    ends = np.cumsum(lengths)
    ring_of = np.repeat(np.arange(len(lengths)), lengths)

    def round_from(point: int) -> Iterator[int]:
        end = int(ends[ring_of[point]])
        yield from range(point + 1, end)
        yield from range(end - lengths[ring_of[point]], point + 1)

    line: list[int] = []
    waiting: list[tuple[Iterator[int], int]] = []
    point, way = 0, round_from(0)
    while True:
        line.append(point)
        if bridges.get(point):
            other = bridges[point].pop()
            bridges[other].remove(point)
            waiting.append((way, point))
            point, way = other, round_from(other)
            continue
        following = next(way, None)
        if following is not None:
            point = following
        elif waiting:
            way, point = waiting.pop()
        else:
            return line[:-1]
