"""A contact sheet: are the masks where the objects are? Seen at a glance, by eyes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ruac.data.folder import IGNORE, object_ids

Picture = NDArray[np.uint8]
Tile = tuple[str, Picture, NDArray[np.uint8]]  # name, RGB [height, width, 3], ids [height, width]

COLUMNS, SIDE, GAP, CAPTION = 6, 300, 10, 22
PAPER, INK, DARK = (23, 24, 28), (242, 242, 242), (20, 20, 20)
# told apart by colour-blind eyes, too (Okabe and Ito)
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))
GREY = (128, 128, 128)  # over what is to be ignored


def contact_sheet(tiles: Sequence[Tile]) -> Picture:
    """RGB: the pictures in small, the outlines of their objects in colour, ignored pixels under grey, their names below."""
    columns = min(COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    page = Image.new("RGB", (columns * (SIDE + GAP) + GAP, rows * (SIDE + CAPTION + GAP) + GAP), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for number, (name, image, ids) in enumerate(tiles):
        x, y = GAP + number % columns * (SIDE + GAP), GAP + number // columns * (SIDE + CAPTION + GAP)
        small = _small(image, ids)
        page.paste(Image.fromarray(small), (x + (SIDE - small.shape[1]) // 2, y + (SIDE - small.shape[0]) // 2))
        caption = f"{name}: {len(object_ids(ids))}"
        while font.getlength(caption) > SIDE:
            caption = "…" + caption[2:]
        draw.text((x + SIDE / 2, y + SIDE + CAPTION / 2), caption, fill=INK, font=font, anchor="mm")
    return np.asarray(page)


def _small(image: Picture, ids: NDArray[np.uint8]) -> Picture:
    scale = SIDE / max(ids.shape)
    size = max(1, round(ids.shape[1] * scale)), max(1, round(ids.shape[0] * scale))
    small = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))
    labels = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
    ignored = labels == IGNORE
    small[ignored] = (small[ignored] * 0.4 + np.multiply(GREY, 0.6)).astype(np.uint8)
    for number in object_ids(ids):
        # an object too thin for the small picture is still outlined
        inside = cv2.resize((ids == number).astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 63
        contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for colour, thickness in ((DARK, 3), (COLOURS[number % len(COLOURS)], 1)):
            cv2.drawContours(small, contours, -1, colour, thickness, cv2.LINE_AA)
    return small.astype(np.uint8, copy=False)
