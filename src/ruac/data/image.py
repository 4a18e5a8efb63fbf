"""Any picture file a person may have, read as the 8-bit RGB that the models take and the way up that viewers show it."""

from __future__ import annotations

import math
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

# recognised by their first bytes, whatever the file is called; formats that run interpreters or external programs are left out
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")  # what they are called in folders
MAX_PIXELS = 100_000_000
MAX_SCANS = 100  # of a JPEG, which has about ten at most
MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # of a JPEG: neither a stuffed byte nor a restart, which lie within a scan
START, END, SCAN, ALONE = 0xD8, 0xD9, 0xDA, 0x01
TILE_SIZE = (322, 323)  # tags of a TIFF: width and height of its tiles, each of which is decoded whole
STRIP_ROWS = 256
# what Pillow's readers raise on damaged files of the formats above
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    MemoryError,  # a header that asks for gigabytes
    Image.DecompressionBombError,
)


class ImageError(ValueError):
    """A picture that cannot be used; the message names the file and says what to do."""


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The picture as RGB [height, width, 3], turned as its EXIF orientation says.

    Transparent pixels are laid over white. 16-bit grey is divided by 257; float and 32-bit grey is stretched so that its own
    range becomes 0..255 (what is not finite becomes 0). Of an animation or a file of several pages only the first is read.

    Raises ImageError when the file is missing, empty, damaged, no picture in one of FORMATS, or larger than max_pixels (which is
    known from its header, before anything is decoded).
    """
    # a file is either read or refused, with a message of our own: Pillow's remarks on its size and its tags say nothing more
    with warnings.catch_warnings(action="ignore"):
        return _read(Path(path), max_pixels)


def _read(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    try:
        if path.is_dir():
            raise ImageError(f"{path}: a folder, not an image; name the image files in it, such as {path / '*.jpg'}")
        image = Image.open(path, formats=FORMATS)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; check the spelling") from None
    except Image.DecompressionBombError:
        raise ImageError(_too_large(path, max_pixels)) from None
    except UnidentifiedImageError:
        state = "an empty file" if path.stat().st_size == 0 else f"not an image ({', '.join(FORMATS)})"
        raise ImageError(f"{path}: {state}; convert or leave it out") from None
    except DAMAGED as error:
        raise ImageError(f"{path}: cannot be read ({_one_line(error)}); check the file and its permissions") from None
    with image:
        if image.width * image.height > max_pixels:
            raise ImageError(_too_large(path, max_pixels, image.size))
        if _tile_pixels(image) > max_pixels:
            raise ImageError(f"{path}: a TIFF with tiles of more than {max_pixels / 1e6:g} megapixels; save it again")
        # a scan of nothing takes a few bytes, and a pass over all pixels to be decoded, which nothing can interrupt
        if image.format in ("JPEG", "MPO") and _scans(path.read_bytes()) > MAX_SCANS:
            raise ImageError(f"{path}: a JPEG of more than {MAX_SCANS} scans; save it again")
        try:
            return _decode(image)
        except DAMAGED as error:
            raise ImageError(f"{path}: damaged ({_one_line(error)}); get the file again or leave it out") from None


def _tile_pixels(image: Image.Image) -> int:
    """Of a TIFF's tile, however small the picture is that is cut from it; 0 of all others."""
    if not isinstance(image, TiffImageFile):
        return 0
    sides = [image.tag_v2.get(tag, 0) for tag in TILE_SIZE]
    return math.prod(side for side in sides if isinstance(side, int))


def _scans(content: bytes) -> int:
    """How many a JPEG has up to its end: a preview before it, or a film that a phone has put behind it, has others."""
    scans, at = 0, 0
    while found := MARKER.search(content, at):
        kind = found[0][1]
        if kind == END:
            break
        scans += kind == SCAN
        # all others say how long they are
        at = found.end() + (0 if kind in (START, ALONE) else int.from_bytes(content[found.end() : found.end() + 2]))
    return scans


def _decode(image: Image.Image) -> NDArray[np.uint8]:
    """Strip by strip, so that a large photograph is held twice at the most, once by Pillow and once by numpy."""
    ImageOps.exif_transpose(image, in_place=True)
    image.load()
    levels = _levels(image)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, image.height)
        rgb[top:bottom] = _to_rgb(image.crop((0, top, image.width, bottom)), levels)
    return rgb


def _levels(image: Image.Image) -> tuple[float, float] | None:
    """The grey levels that become black and white, for pictures of more than 8 bits; None for all others."""
    if image.mode.startswith("I;16"):
        return 0, 65535
    if image.mode not in ("I", "F"):
        return None
    values = np.asarray(image)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0, 1
    low, high = float(values.min()), float(values.max())
    # 16-bit files may arrive as 32-bit integers
    return (0, 65535) if image.mode == "I" and low >= 0 and high <= 65535 else (low, high)


def _to_rgb(strip: Image.Image, levels: tuple[float, float] | None) -> NDArray[np.uint8]:
    """[rows, columns, 3]"""
    if levels is not None:
        low, high = levels
        scale = 255 / (high - low) if high > low else 0.0
        grey = np.nan_to_num((np.asarray(strip).astype(np.float64) - low) * scale, nan=0, posinf=0, neginf=0)
        return np.repeat(grey.round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if strip.has_transparency_data:
        strip = strip.convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
    return np.asarray(strip.convert("RGB"))


def _too_large(path: Path, max_pixels: int, size: tuple[int, int] | None = None) -> str:
    pixels = f"{size[0]} x {size[1]} pixels" if size else "its size"
    return f"{path}: {pixels} is over the limit of {max_pixels / 1e6:g} megapixels; scale the image down or cut it into tiles"


def _one_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
