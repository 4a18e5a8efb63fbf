"""The picture for eyes: the photograph, its mask in outline, the uncertainty in colour, the prompts, and a legend in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

LONG_SIDE = (800, 1600)  # pixels; smaller photographs are enlarged to the first and larger ones reduced to the second
LEGEND_WIDTH = 82  # units, at least; a unit is a hundredth of the long side, and all that is drawn scales with it
COLOUR_MAP = cv2.COLORMAP_INFERNO  # perceptually uniform, and readable with every kind of colour blindness
OPACITY = 0.9  # of the colour of a coin toss
OUTSIDE = 0.55  # brightness left to what is not in the mask
# blue and orange stay apart for colour-blind eyes; the signs say the same once more
BLUE, ORANGE, WHITE, DARK = (31, 119, 255), (230, 97, 0), (255, 255, 255), (20, 20, 20)
PAPER, INK, FAINT = (23, 24, 28), (242, 242, 242), (176, 180, 189)
# neither is a colour of the map; the outer line is dashed, too
INNER, OUTER = (94, 235, 140), (90, 205, 255)
DASH = 1.4  # units
SIGNS = {"+": BLUE, "-": ORANGE, "?": DARK}


@dataclass(frozen=True)
class Marks:
    """What is drawn over the picture, in original pixels. points: (x, y, label); box: (x0, y0, x1, y1); next_click: (x, y)."""

    points: Sequence[tuple[float, float, int]] = ()
    box: tuple[float, float, float, float] | None = None
    next_click: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Around:
    """Two masks [height, width] drawn as thin lines, the outer one dashed, and what the legend says of each."""

    inner: NDArray[np.bool_]
    outer: NDArray[np.bool_]
    inner_words: str
    outer_words: str


@dataclass(frozen=True)
class Text:
    """Words at (x, y) canvas pixels; anchor: Pillow's, "lm" is the middle of the left end, "mm" the middle."""

    at: tuple[float, float]
    words: str
    size: float
    colour: Colour = INK
    anchor: str = "lm"

    @property
    def font(self) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return ImageFont.load_default(self.size)

    @property
    def width(self) -> float:
        return self.font.getbbox(self.words, anchor="lm")[2]


def draw_overlay(
    image: Picture,
    mask: NDArray[np.bool_],
    uncertainty: NDArray[np.float32],
    marks: Marks,
    caption: str = "",
    around: Around | None = None,
) -> Picture:
    """RGB: the photograph [height, width, 3] under its mask and uncertainty (bits), both [height, width]; a legend below."""
    height, width = mask.shape
    low, high = LONG_SIDE
    scale = min(max(1.0, low / max(mask.shape)), high / max(mask.shape))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    unit = max(size) / 100
    inside = _enlarge(mask, size)
    picture = _blend(_resize(image, size), inside, _resize(uncertainty, size).clip(0, 1))
    if around is not None:
        draw_contours(picture, _enlarge(around.outer, size), OUTER, unit, dashed=True)
        draw_contours(picture, _enlarge(around.inner, size), INNER, unit, dashed=False)
    _draw_outline(picture, inside, unit)
    texts = _draw_marks(picture, marks, (size[0] / width, size[1] / height), unit)
    legend, more = _legend(marks, caption, around, max(size[0], round(LEGEND_WIDTH * unit)), size[1], unit)
    spare = legend.shape[1] - size[0]
    frame = np.full((size[1], spare, 3), PAPER, np.uint8)
    return _typeset(np.vstack([np.hstack([picture, frame]), legend]), [*texts, *more])


def _resize(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """To (width, height): averaged where it shrinks, smooth where it grows."""
    shrinks = size[0] < values.shape[1]
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _enlarge(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return _resize(mask.astype(np.uint8) * 255, size) > 127


def _blend(photo: Picture, inside: NDArray[np.bool_], uncertainty: NDArray[np.float32]) -> Picture:
    """The outside darkened, so that the object stands out; colour over it, the denser the less certain."""
    base = photo * np.where(inside, np.float32(1), np.float32(OUTSIDE))[..., None]
    alpha = (OPACITY * uncertainty)[..., None]
    colours = cv2.applyColorMap((uncertainty * 255).round().astype(np.uint8), COLOUR_MAP)[..., ::-1]
    return np.rint(base * (1 - alpha) + colours * alpha).astype(np.uint8)


def _draw_outline(picture: Picture, inside: NDArray[np.bool_], unit: float) -> None:
    """White on dark: seen on every background."""
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for colour, thickness in ((DARK, 0.45), (WHITE, 0.2)):
        cv2.drawContours(picture, contours, -1, colour, max(1, round(thickness * unit)), cv2.LINE_AA)


def draw_contours(picture: Picture, inside: NDArray[np.bool_], colour: Colour, unit: float, dashed: bool) -> None:
    """The outlines of a mask of the picture's size, as thin lines; unit: in pixels."""
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        _draw_path(picture, np.concatenate([contour, contour[:1]]), colour, unit, dashed)


def _draw_path(picture: Picture, path: NDArray[Any], colour: Colour, unit: float, dashed: bool) -> None:
    """A thin line through points [N, 1, 2], a pixel apart; dashes and gaps are of equal length."""
    step = max(2, round(DASH * unit)) if dashed else len(path)
    pieces = [path[start : start + step + 1] for start in range(0, len(path), 2 * step)]
    cv2.polylines(picture, pieces, False, colour, max(1, round(0.2 * unit)), cv2.LINE_AA)


def _draw_marks(picture: Picture, marks: Marks, scale: tuple[float, float], unit: float) -> list[Text]:
    """scale: drawn pixels per original pixel, right and down. Returns the words still to be set."""
    texts: list[Text] = []
    if marks.box is not None:
        x0, y0, x1, y1 = marks.box
        _draw_box(picture, (x0 * scale[0], y0 * scale[1]), (x1 * scale[0], y1 * scale[1]), unit)
    signs = [] if marks.next_click is None else [(*marks.next_click, "?")]
    signs += [(x, y, "+" if label else "-") for x, y, label in marks.points]
    for x, y, sign in signs:
        # pixel centres are at whole numbers
        texts += _draw_sign(picture, ((x + 0.5) * scale[0], (y + 0.5) * scale[1]), sign, unit)
    return texts


def _draw_sign(picture: Picture, at: tuple[float, float], sign: str, unit: float) -> list[Text]:
    """A disk with a plus, a minus or a question mark."""
    x, y = (round(v) for v in at)
    cv2.circle(picture, (x, y), round(1.5 * unit), WHITE, -1, cv2.LINE_AA)
    cv2.circle(picture, (x, y), round(1.2 * unit), SIGNS[sign], -1, cv2.LINE_AA)
    if sign == "?":
        return [Text((x, y), "?", 1.9 * unit, WHITE, "mm")]
    arm, half = round(0.68 * unit), max(1, round(0.15 * unit))
    cv2.rectangle(picture, (x - arm, y - half), (x + arm, y + half), WHITE, -1)
    if sign == "+":
        cv2.rectangle(picture, (x - half, y - arm), (x + half, y + arm), WHITE, -1)
    return []


def _draw_box(picture: Picture, start: tuple[float, float], end: tuple[float, float], unit: float) -> None:
    corners = [(round(x), round(y)) for x, y in (start, end)]
    for colour, thickness in ((WHITE, 0.6), (BLUE, 0.3)):
        cv2.rectangle(picture, corners[0], corners[1], colour, max(1, round(thickness * unit)), cv2.LINE_AA)


def _legend(marks: Marks, caption: str, around: Around | None, width: int, top: int, unit: float) -> tuple[Picture, list[Text]]:
    """The strip below the picture, `width` wide, and its words; top: where on the canvas it begins."""
    size, pad, row = 2.1 * unit, 2 * unit, 4.2 * unit
    kinds = {label for *_, label in marks.points}
    keys = [("outline", "mask")]
    keys += [("+", "object")] if 1 in kinds else []
    keys += [("-", "background")] if 0 in kinds else []
    keys += [("box", "box")] if marks.box is not None else []
    keys += [("?", "best next click")] if marks.next_click is not None else []
    rows = 2 + (around is not None) + bool(caption)
    strip = np.full((round(rows * row + pad), width, 3), PAPER, np.uint8)
    texts: list[Text] = []

    def write(x: float, line: int, words: str, colour: Colour = INK) -> float:
        """Sets words in a line of the strip; returns where they end."""
        text = Text((x, top + pad / 2 + (line + 0.5) * row), words, size, colour)
        texts.append(text)
        return x + text.width

    x, y = pad, round(pad / 2 + row / 2)
    x = write(x, 0, "sure") + pad / 2
    ramp = np.linspace(0, 1, round(24 * unit), dtype=np.float32)[None]
    grey = np.full((1, ramp.shape[1], 3), 128, np.uint8)
    bar = _blend(grey, np.ones(ramp.shape, np.bool_), ramp).repeat(round(1.6 * unit), 0)
    _paste(strip, bar, round(x), y - len(bar) // 2)
    write(x + bar.shape[1] + pad / 2, 0, "coin toss (1 bit)")
    x, y = pad, round(pad / 2 + 1.5 * row)
    for kind, words in keys:
        if kind == "outline":
            for colour, thickness in ((DARK, 0.9), (WHITE, 0.3)):
                ends = (round(x), y), (round(x + 3 * unit), y)
                cv2.line(strip, *ends, colour, max(1, round(thickness * unit)), cv2.LINE_AA)
        elif kind == "box":
            _draw_box(strip, (x, y - unit), (x + 3 * unit, y + unit), unit)
        else:
            texts += [
                Text((text.at[0], text.at[1] + top), text.words, text.size, text.colour, text.anchor)
                for text in _draw_sign(strip, (x + 1.5 * unit, y), kind, unit)
            ]
        x = write(x + 3.8 * unit, 1, words) + 1.5 * pad
    if around is not None:
        x, y = pad, round(pad / 2 + 2.5 * row)
        for colour, dashed, words in ((OUTER, True, around.outer_words), (INNER, False, around.inner_words)):
            columns = np.arange(round(x), round(x + 3 * unit), dtype=np.int32)
            _draw_path(strip, np.stack([columns, np.full_like(columns, y)], -1)[:, None], colour, unit, dashed)
            x = write(x + 3.8 * unit, 2, words) + 1.5 * pad
    if caption:
        write(pad, rows - 1, caption, FAINT)
    return strip, texts


def _paste(canvas: Picture, part: Picture, x: int, y: int) -> None:
    canvas[y : y + part.shape[0], x : x + part.shape[1]] = part


def _typeset(canvas: Picture, texts: Sequence[Text]) -> Picture:
    page = Image.fromarray(canvas)
    draw = ImageDraw.Draw(page)
    for text in texts:
        draw.text(text.at, text.words, fill=text.colour, font=text.font, anchor=text.anchor)
    return np.asarray(page)
