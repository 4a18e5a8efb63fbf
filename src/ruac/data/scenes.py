"""Training pictures: crops of real photographs and copy-paste scenes of several objects, every one a function of (seed, index).

Most photographs of the common sources show one large, salient object. A model trained on them picture by picture learns saliency and
ignores the click, so objects are cut out and pasted, small and large, several a picture, over crops of other photographs
(Ghiasi et al. 2021, "Simple copy-paste"), also many times the same (which of these cells?) and as shapes of pure texture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ruac.data.folder import IGNORE, FolderSet, Sample, object_ids, read_mask

Image = NDArray[np.uint8]
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # shares of red, green and blue in what the eye sees as brightness
Ids = NDArray[np.uint8]

MAX_OBJECTS = 40
MIN_PIXELS = 20  # visible pixels below which nobody could click on an object


@dataclass(frozen=True)
class SceneConfig:
    """How training pictures are made.

    paste: share of copy-paste scenes, the rest are crops; shapes: share of pasted objects that are random shapes filled with texture;
    clones: share of paste scenes that repeat one cut-out; smallest: side in pixels and largest: share of the picture's side of a
    pasted or zoomed object, drawn log-uniformly between; weights: how often each set is drawn for crops (others: 1).
    """

    paste: float = 0.5
    shapes: float = 0.35
    clones: float = 0.25
    smallest: float = 14.0
    largest: float = 0.86
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """image: [S, S, 3] uint8 RGB; ids: [S, S] uint8, 0 background, 1..254 objects, 255 not to be judged (padding, unlabelled)."""

    image: Image
    ids: Ids


class Pool:
    """All training pictures of several sets, decoded on first use and kept (they are small); read-only afterwards."""

    def __init__(self, sets: Sequence[FolderSet], weights: dict[str, float], held_out: bool = False):
        self.samples: list[list[Sample]] = [[s for s in part.samples if s.held_out == held_out] for part in sets]
        self.names = [part.name for part in sets]
        # a small set may have no picture in this part
        share = np.array([weights.get(name, 1.0) * bool(part) for name, part in zip(self.names, self.samples, strict=True)])
        if share.sum() <= 0:
            raise ValueError(f"nothing to draw from {', '.join(self.names)}: no pictures, or weights that are all zero")
        self.share = share / share.sum()
        # donors of cut-outs: by pictures, since large sets have the more varied objects
        sizes = np.array([len(s) for s in self.samples]) ** 0.5 * (share > 0)
        self.donor_share = sizes / sizes.sum()
        self.cache: dict[Path, tuple[Image, Ids]] = {}

    def draw(self, rng: np.random.Generator, donor: bool = False) -> tuple[Image, Ids]:
        part = self.samples[int(rng.choice(len(self.samples), p=self.donor_share if donor else self.share))]
        return self.read(part[int(rng.integers(len(part)))])

    def read(self, sample: Sample) -> tuple[Image, Ids]:
        """Raises ValueError for an unreadable picture or a mask of another size."""
        if sample.image not in self.cache:
            image = cv2.imread(str(sample.image), cv2.IMREAD_COLOR_RGB)
            if image is None:
                raise ValueError(f"{sample.image}: not a readable image")
            ids = read_mask(sample.mask)
            if ids.shape != image.shape[:2]:
                raise ValueError(f"{sample.mask}: {ids.shape} pixels, but its image has {image.shape[:2]}")
            self.cache[sample.image] = image.astype(np.uint8, copy=False), ids
        return self.cache[sample.image]


def compose(pool: Pool, config: SceneConfig, size: int, seed: Sequence[int]) -> Scene:
    """The training picture of this seed, size x size pixels."""
    rng = np.random.default_rng(seed)
    image, ids = _crop(pool, config, size, rng)
    if rng.random() < config.paste:
        image, ids = _paste_objects(pool, config, image, ids, rng)
    return Scene(recolour(image, rng), ids)


def letterbox(image: Image, ids: Ids, size: int) -> Scene:
    """A picture as the model sees it at inference: scaled, at the top left, the rest padding."""
    scale = size / max(ids.shape)
    matrix = np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5]])
    return Scene(*_warp(image, ids, matrix, size))


def _crop(pool: Pool, config: SceneConfig, size: int, rng: np.random.Generator) -> tuple[Image, Ids]:
    """A random window of a photograph, zoomed so that one of its objects gets a random size."""
    image, ids = pool.draw(rng)
    present = object_ids(ids)
    whole = size / max(ids.shape)
    if present and rng.random() < 0.8:
        rows, columns = np.nonzero(ids == rng.choice(present))
        at = rng.integers(len(rows))
        centre = np.array([columns[at], rows[at]], dtype=np.float64)
        wanted = _log_uniform(rng, config.smallest, config.largest * size) / (np.sqrt(len(rows)) + 1)
    else:
        centre = np.array(ids.shape[::-1]) * rng.uniform(0.2, 0.8, 2)
        wanted = whole * rng.uniform(0.8, 2.0)
    # mostly no smaller than fills the square, never smaller than the whole picture; small objects enlarged at most threefold
    least = whole if rng.random() < 0.3 else size / min(ids.shape)
    scale = float(np.clip(wanted, least, max(3.0, least)))
    centre = centre + rng.uniform(-0.3, 0.3, 2) * size / scale
    margin = np.minimum(size / scale, ids.shape[::-1]) / 2
    centre = np.clip(centre, margin, np.array(ids.shape[::-1]) - margin)
    target = np.array([size / 2, size / 2])
    return _warp(image, ids, _affine(rng, centre, target, scale, angle=rng.normal(0, 6)), size)


def _paste_objects(pool: Pool, config: SceneConfig, image: Image, ids: Ids, rng: np.random.Generator) -> tuple[Image, Ids]:
    """Several cut-outs over a picture; what they cover is gone, and what too little remains of is no object any more."""
    size = len(ids)
    image, ids = image.copy(), ids.copy()
    # renumber what the background has, so that pasted objects get free ids
    present = object_ids(ids)
    rng.shuffle(present)
    table = np.zeros(256, np.uint8)
    table[IGNORE] = IGNORE
    for new, old in enumerate(present[: MAX_OBJECTS // 2], start=1):
        table[old] = new
    ids = table[ids]
    clones = rng.random() < config.clones
    count = int(rng.integers(5, 16)) if clones else int(rng.integers(1, 7))
    donor = _cut_out(pool, config, size, rng)
    low, high = config.smallest, config.largest * size
    side = _log_uniform(rng, low, max(low, size / 5) if clones else high)
    first = min(len(present), MAX_OBJECTS // 2) + 1
    for new in range(first, first + count):
        if not clones:
            donor, side = _cut_out(pool, config, size, rng), _log_uniform(rng, low, high)
        jitter = rng.uniform(0.8, 1.25) if clones else 1.0
        _paste(image, ids, donor, side * jitter, new, rng)
    counts = np.bincount(ids.ravel(), minlength=256)
    keep = np.where(counts >= MIN_PIXELS, np.arange(256), IGNORE).astype(np.uint8)
    keep[0] = 0
    return image, keep[ids]


def _cut_out(pool: Pool, config: SceneConfig, size: int, rng: np.random.Generator) -> tuple[Image, Image]:
    """A donor: pixels [h, w, 3] and alpha [h, w] (0 or 255)."""
    image, ids = pool.draw(rng, donor=True)
    present = object_ids(ids)
    if present and rng.random() >= config.shapes:
        alpha = (ids == rng.choice(present)).astype(np.uint8) * 255
        x, y, w, h = cv2.boundingRect(alpha)
        return image[y : y + h, x : x + w], alpha[y : y + h, x : x + w]
    side = int(min(image.shape[:2]) * rng.uniform(0.15, 0.6)) + 8
    y, x = (int(rng.integers(max(1, n - side))) for n in image.shape[:2])
    texture = image[y : y + side, x : x + side]
    if rng.random() < 0.4:  # nearly flat, as in microscopy, X-ray and diagrams
        texture = cv2.GaussianBlur(texture, (0, 0), side / 8).astype(np.uint8, copy=False)
    return texture, random_shape(texture.shape[:2], rng)


def random_shape(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """A filled random outline, 255 inside: an ellipse, a polygon or a smooth blob."""
    h, w = shape
    alpha = np.zeros((h, w), np.uint8)
    kind = rng.integers(3)
    corners = int(rng.integers(3, 9)) if kind == 1 else 48
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) if kind == 1 else np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radius = np.ones(corners)
    if kind == 1:
        radius = rng.uniform(0.5, 1.0, corners)
    elif kind == 2:
        for wave in range(2, 7):
            radius = radius + rng.normal(0, 0.5 / wave) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
        radius = np.clip(radius, 0.15, None) / max(radius.max(), 0.15)
    axes = np.array([w, h]) / 2 * np.array([1.0, rng.uniform(0.3, 1.0)])
    points = np.stack([np.cos(angles) * radius * axes[0] + w / 2, np.sin(angles) * radius * axes[1] + h / 2], 1)
    cv2.fillPoly(alpha, [points.round().astype(np.int32)], 255)
    return alpha


def _paste(image: Image, ids: Ids, donor: tuple[Image, Image], side: float, new: int, rng: np.random.Generator) -> None:
    """Put a donor of about side² visible pixels onto the picture, in place, as object `new`."""
    pixels, alpha = donor
    area = float((alpha > 0).sum())
    if area == 0:
        return
    size = len(ids)
    scale = float(np.clip(side / np.sqrt(area), 0.02, 4.0))
    angle = rng.uniform(-180, 180) if rng.random() < 0.4 else rng.normal(0, 12)
    centre = np.array(alpha.shape[::-1]) / 2 - 0.5
    matrix = _affine(rng, centre, rng.uniform(0.02, 0.98, 2) * size, scale, angle)
    shift = rng.normal(0, 12, 3) if rng.random() < 0.5 else np.zeros(3)
    pixels = np.clip(pixels.astype(np.int16) + shift.astype(np.int16), 0, 255).astype(np.uint8)
    warped = _shrink_and_warp(pixels, matrix, size, cv2.INTER_LINEAR)
    soft = _shrink_and_warp(alpha, matrix, size, cv2.INTER_LINEAR)
    hard = soft >= 128
    if rng.random() < 0.5:
        soft = cv2.GaussianBlur(soft, (0, 0), rng.uniform(0.5, 1.2))
    x, y, w, h = cv2.boundingRect((soft > 0).astype(np.uint8))
    if not w or not h:
        return
    window = np.s_[y : y + h, x : x + w]
    opacity = (soft[window].astype(np.float32) / 255 * (rng.uniform(0.6, 1.0) if rng.random() < 0.2 else 1.0))[..., None]
    image[window] = (image[window] * (1 - opacity) + warped[window] * opacity).astype(np.uint8)
    ids[hard] = new


def _affine(
    rng: np.random.Generator, centre: NDArray[np.float64], target: NDArray[np.float64], scale: float, angle: float
) -> NDArray[np.float64]:
    """The 2x3 map that takes `centre` to `target` with this scale and angle in degrees, a random flip and a slight stretch."""
    a = np.deg2rad(angle)
    stretch = np.exp(rng.normal(0, 0.1, 2))
    flip = np.diag([-1.0 if rng.random() < 0.5 else 1.0, -1.0 if rng.random() < 0.1 else 1.0])
    linear = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.diag(stretch) @ flip
    return np.hstack([linear, (target - linear @ centre)[:, None]])


def _warp(image: Image, ids: Ids, matrix: NDArray[np.float64], size: int) -> tuple[Image, Ids]:
    """Image and ids under one map; outside the picture is grey and not to be judged."""
    warped = _shrink_and_warp(image, matrix, size, cv2.INTER_LINEAR, border=127)
    warped_ids = cv2.warpAffine(ids, matrix, (size, size), flags=cv2.INTER_NEAREST, borderValue=IGNORE)
    return warped, warped_ids.astype(np.uint8)


def _shrink_and_warp(image: Image, matrix: NDArray[np.float64], size: int, flags: int, border: int = 0) -> Image:
    """cv2.warpAffine, after a shrink by area when the map shrinks: bilinear sampling alone would alias."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.7:
        small = [max(1, round(n * scale)) for n in image.shape[1::-1]]
        ratio = np.array([small[0] / image.shape[1], small[1] / image.shape[0]])
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        linear = matrix[:, :2] / ratio
        # pixel centres: x = (x_small + 0.5) / ratio - 0.5
        matrix = np.hstack([linear, (matrix[:, 2] + matrix[:, :2] @ (0.5 / ratio - 0.5))[:, None]])
    return cv2.warpAffine(image, matrix, (size, size), flags=flags, borderValue=(border,) * 3).astype(np.uint8)


def recolour(image: Image, rng: np.random.Generator) -> Image:
    """Random brightness, contrast, gamma, colour, grey, negative, blur, noise and JPEG: what cameras and sensors do."""
    x = image.astype(np.float32)
    if rng.random() < 0.8:
        x = (x - 127) * rng.uniform(0.6, 1.4) + 127 + rng.uniform(-30, 30)
    if rng.random() < 0.5:
        x = x * rng.uniform(0.75, 1.25, 3).astype(np.float32)
    if rng.random() < 0.3:
        grey = x @ GREY
        x = grey[..., None] + (x - grey[..., None]) * rng.choice([0.0, 0.0, 0.5, 1.6])
    if rng.random() < 0.1:
        x = x[..., rng.permutation(3)]
    if rng.random() < 0.08:
        x = 255 - x
    if rng.random() < 0.15:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.5))
    if rng.random() < 0.25:
        x = x + rng.normal(0, rng.uniform(2, 30), x.shape).astype(np.float32)
    result = np.clip(x, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        result = cv2.LUT(result, _gamma_table(rng.uniform(0.6, 1.6)))
    if rng.random() < 0.15:
        _, data = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))])
        result = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(result, dtype=np.uint8)


def _gamma_table(gamma: float) -> Image:
    return (255 * (np.arange(256) / 255) ** gamma).round().astype(np.uint8)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
