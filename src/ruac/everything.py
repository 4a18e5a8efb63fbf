"""Everything in a picture: a grid of clicks, of whose masks those stay that are expected to be right, each object once.

What Segment Anything's automatic mask generator does, but for two things: a mask is kept for its expected IoU, which comes from the
probabilities of its pixels, not for the IoU that the decoder guesses; and of two masks of the same object the one with the higher
expected IoU stays, where "the same" is judged on probabilities, so that a doubtful rim counts as little as it is sure.

Memory: beside the predictor's own, one byte per cell of the low-resolution grid for each candidate inside its box, so at most
3 · clicks · grid² bytes: 13 MB for 256 clicks of the embedded model, 200 MB for 1024 clicks of a SAM with 256 cells a side. Of the
masks that stay, the two low-resolution moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ruac.predictor import OBJECTS_AT_ONCE, Prediction, Predictor, Prompt
from ruac.regions import Mask, bounding_box

LEAST_CELLS = 4  # of the low-resolution grid: what is smaller is noise
MOST_COVERED = 0.95  # of the picture: what is larger is the picture itself
FAINT = 8  # of 255: probabilities below it count as none, so that boxes stay tight
INSIDE = 0.9  # share of the smaller of two masks that lies in the other when it is a part of it
CROP_OVERLAP = 1 / 3  # of a crop's side
LARGEST_GRID, MOST_CROPS = 128, 3


@dataclass(frozen=True)
class Search:
    """How to look for objects.

    grid: clicks along the longer side of the picture, and of every crop; crops: 0, or how often the picture is cut up for a closer
    look, into 4 crops the first time, 16 the second, each encoded as a picture of its own; least: expected IoU below which a mask
    is dropped; overlap: IoU of two masks above which they are the same object; parts: whether an object that lies within another
    may stay.

    Raises ValueError for numbers that make no sense.
    """

    grid: int = 16
    crops: int = 0
    least: float = 0.7
    overlap: float = 0.7
    parts: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.grid <= LARGEST_GRID:
            raise ValueError(f"the grid has 1 to {LARGEST_GRID} clicks a side, not {self.grid}")
        if not 0 <= self.crops <= MOST_CROPS:
            raise ValueError(f"crops are taken 0 to {MOST_CROPS} times, not {self.crops}")
        for name, value in (("least", self.least), ("overlap", self.overlap)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is an IoU, 0 to 1, not {value}")


@dataclass(frozen=True)
class Window:
    """A part of a picture: its first row and column, its size, and the picture's (height, width)."""

    top: int
    left: int
    height: int
    width: int
    picture: tuple[int, int]

    @staticmethod
    def whole(picture: tuple[int, int]) -> Window:
        """All of a picture of (height, width) pixels."""
        return Window(0, 0, *picture, picture)

    def cut(self, values: NDArray) -> NDArray:
        """The window of the picture's [height, width, ...]."""
        return values[self.top : self.top + self.height, self.left : self.left + self.width]

    def place(self, mask: Mask) -> Mask:
        """A mask of the window as one of the picture."""
        whole = np.zeros(self.picture, np.bool_)
        self.cut(whole)[:] = mask
        return whole


@dataclass(frozen=True, eq=False)
class Segment:
    """An object that was found. prediction: its one mask, in the window that it was found in; click: (x, y) in the picture."""

    prediction: Prediction
    window: Window
    click: tuple[int, int]

    @cached_property
    def mask(self) -> Mask:
        """[height, width] of the picture."""
        return self.window.place(self.prediction.masks[0])


@dataclass(frozen=True, eq=False)
class Footprint:
    """Where a mask is, by probability. top, left: of its box on some grid; soft: uint8 [rows, columns] of the box, 255 for sure."""

    top: int
    left: int
    soft: NDArray[np.uint8]

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """First row and column, and those after the last."""
        return self.top, self.left, self.top + self.soft.shape[0], self.left + self.soft.shape[1]

    @cached_property
    def mass(self) -> int:
        """Sum of `soft`."""
        return int(self.soft.sum(dtype=np.int64))

    @staticmethod
    def of(probability: NDArray[np.float32], top: int = 0, left: int = 0) -> Footprint:
        """Of [h, w] that begins at a row and a column of the grid."""
        soft = (probability * 255).round().astype(np.uint8)
        soft[soft < FAINT] = 0
        rows, columns = bounding_box(soft > 0)
        return Footprint(top + rows.start, left + columns.start, soft[rows, columns].copy())


def generate(predictor: Predictor, image: NDArray[np.uint8], search: Search | None = None) -> list[Segment]:
    """The objects of an RGB picture [height, width, 3], those with the highest expected IoU first. Changes the predictor's image."""
    search = search or Search()
    windows = list(crops(image.shape[:2], search.crops))
    segments = [segment for window in windows for segment in _look(predictor, image, window, search)]
    if len(windows) > 1:
        cells = predictor.model.grid * 2**search.crops
        low = [replace(segment.prediction, low_resolution=True) for segment in segments]
        prints = [_on_canvas(answer, segment.window, cells) for answer, segment in zip(low, segments, strict=True)]
        segments = [segments[i] for i in suppress(prints, [float(answer.expected_iou[0]) for answer in low], search)]
    return segments


def crops(picture: tuple[int, ...], times: int) -> Iterator[Window]:
    """All of a picture (height, width), then 4 overlapping crops of it, then 16, and so on `times` times."""
    height, width = picture
    for layer in range(times + 1):
        count = 2**layer
        # count crops of this length, a third shared with the neighbour, fill a side
        rows, columns = (max(1, -int(-side // (count - (count - 1) * CROP_OVERLAP))) for side in (height, width))
        for top in np.linspace(0, height - rows, count).round().astype(int):
            for left in np.linspace(0, width - columns, count).round().astype(int):
                yield Window(int(top), int(left), rows, columns, (height, width))


def clicks(size: tuple[int, int], grid: int) -> NDArray[np.int64]:
    """[N, 2] (x, y) at the centres of square cells, `grid` of them along the longer side of (height, width)."""
    cell = max(size) / grid
    height, width = size
    rows, columns = (max(1, round(side / cell)) for side in size)
    xs, ys = ((np.arange(n) + 0.5) * side / n for n, side in ((columns, width), (rows, height)))
    return np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2).astype(np.int64)


def suppress(prints: Sequence[Footprint], quality: Sequence[float], search: Search) -> list[int]:
    """Indices of the masks that stay, best quality first: each is no longer there once a better one of the same object is.

    Two masks are the same object when their soft IoU, Σ min(p, q) / Σ max(p, q), is above `search.overlap`; without `search.parts`
    also when one lies in the other. On ties the first stays.
    """
    boxes = np.array([f.box for f in prints], np.int64).reshape(-1, 4)
    mass = np.array([f.mass for f in prints], np.float64)
    left = np.ones(len(prints), np.bool_)
    kept = []
    for i in np.argsort(-np.asarray(quality, np.float64), kind="stable"):
        if not left[i]:
            continue
        kept.append(int(i))
        left[i] = False
        rest = np.flatnonzero(left)
        # no mask shares more with another than their boxes do, nor more than the smaller one is
        most = np.minimum(255.0 * _shared_area(boxes[i], boxes[rest]), np.minimum(mass[i], mass[rest]))
        for j in rest[_same(most, mass[i], mass[rest], search)]:
            left[j] = not _same(_shared(prints[i], prints[j]), mass[i], mass[j], search)
    return kept


def _same(shared: Any, one: Any, other: Any, search: Search) -> NDArray[np.bool_]:
    """Whether masks of these masses that share that much are the same object; also for an upper bound of what they share. Numbers,
    or arrays of them."""
    same = np.asarray(shared > search.overlap * (one + other - shared))
    return same if search.parts else same | (shared > INSIDE * np.minimum(one, other))


def _shared_area(box: NDArray[np.int64], boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cells of the box in each of the boxes [N, 4]."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    return sides.clip(0).prod(-1)


def _shared(a: Footprint, b: Footprint) -> int:
    """Σ min(p, q)"""
    top, left = max(a.box[0], b.box[0]), max(a.box[1], b.box[1])
    bottom, right = min(a.box[2], b.box[2]), min(a.box[3], b.box[3])
    if top >= bottom or left >= right:
        return 0
    parts = (f.soft[top - f.top : bottom - f.top, left - f.left : right - f.left] for f in (a, b))
    return int(np.minimum(*parts).sum(dtype=np.int64))


@dataclass(frozen=True, eq=False)
class _Candidate:
    """One mask of one click. score: predicted IoU."""

    click: int
    score: float
    expected_iou: float
    footprint: Footprint


def _look(predictor: Predictor, image: NDArray[np.uint8], window: Window, search: Search) -> list[Segment]:
    """The objects of one window, best first."""
    predictor.set_image(window.cut(image))
    points = clicks((window.height, window.width), search.grid)
    prompts = [Prompt([point]) for point in points.tolist()]
    candidates: list[_Candidate] = []
    for start in range(0, len(prompts), OBJECTS_AT_ONCE):
        answers = predictor.predict_many(prompts[start : start + OBJECTS_AT_ONCE], multimask_output=True, low_resolution=True)
        for number, answer in enumerate(answers, start):
            candidates += _candidates(answer, number, window, search)
    kept = [candidates[i] for i in suppress([c.footprint for c in candidates], [c.expected_iou for c in candidates], search)]
    # asked again, which is cheaper than the memory for the moments of all candidates
    answers = predictor.predict_many([prompts[c.click] for c in kept], multimask_output=True) if kept else []
    places = (points + np.array([window.left, window.top])).tolist()
    return [
        Segment(_one_mask(answer, candidate), window, tuple(places[candidate.click]))
        for answer, candidate in zip(answers, kept, strict=True)
    ]


def _candidates(answer: Prediction, click: int, window: Window, search: Search) -> Iterator[_Candidate]:
    """The masks of one click that are worth keeping."""
    for i in np.flatnonzero(answer.expected_iou >= search.least):
        mask = answer.masks[i]
        cells = np.count_nonzero(mask)
        if cells < LEAST_CELLS or _cut_off(mask, window):
            continue
        if cells * window.height * window.width > MOST_COVERED * mask.size * window.picture[0] * window.picture[1]:
            continue
        yield _Candidate(click, float(answer.iou[i]), float(answer.expected_iou[i]), Footprint.of(answer.probability[i]))


def _cut_off(mask: Mask, window: Window) -> bool:
    """Whether the mask [h, w] goes on beyond a side of its window at which the picture does not end."""
    height, width = window.picture
    return bool(
        (window.top > 0 and mask[0].any())
        or (window.left > 0 and mask[:, 0].any())
        or (window.top + window.height < height and mask[-1].any())
        or (window.left + window.width < width and mask[:, -1].any())
    )


def _one_mask(answer: Prediction, candidate: _Candidate) -> Prediction:
    """Of the masks of a click the one that was chosen among them before: decoded in other company, they may be ranked otherwise."""
    low = replace(answer, low_resolution=True)
    far = np.abs(low.iou - candidate.score) + np.abs(low.expected_iou - candidate.expected_iou)
    i = int(far.argmin())
    # a copy: a view would keep the moments of the others
    moments = answer.distribution.map(lambda values: values[i : i + 1].clone())
    return replace(answer, distribution=moments, iou=answer.iou[i : i + 1])


def _on_canvas(answer: Prediction, window: Window, cells: int) -> Footprint:
    """Of a low-resolution prediction, on a grid of the whole picture with `cells` along its longer side."""
    scale = cells / max(window.picture)
    top, left = round(window.top * scale), round(window.left * scale)
    size = max(1, round(window.width * scale)), max(1, round(window.height * scale))
    return Footprint.of(cv2.resize(answer.probability[0], size, interpolation=cv2.INTER_LINEAR), top, left)
