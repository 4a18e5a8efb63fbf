"""What comes from elsewhere, checked before it is used: JSON, XML, names, sizes, numbers."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from typing import Any, NoReturn

from ruac.data.image import MAX_PIXELS
from ruac.data.labels import Size

LONGEST_TEXT = 1000


def parse_json(content: bytes) -> Any:
    """Raises ValueError when it is no JSON, or holds NaN or a number beyond all bounds."""
    try:
        return json.loads(content, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({str(error).splitlines()[0]})") from None


def parse_xml(content: bytes) -> ElementTree.Element:
    """Raises ValueError when it is no XML, or declares entities, which no tool here does."""
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("XML with a document type declaration; refused")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"not XML ({str(error).splitlines()[0]})") from None


def text_of(value: Any, what: str) -> str:
    """Raises ValueError unless it is text, some but not too much, without control characters."""
    if not isinstance(value, str) or not value or len(value) > LONGEST_TEXT or not value.isprintable():
        raise ValueError(f"{what}: {str(value)[:80]!r} is no name")
    return value


def size_of(width: Any, height: Any) -> Size:
    """(height, width). Raises ValueError for anything but whole numbers of which a picture can be made."""
    if any(type(n) is not int or n < 1 for n in (width, height)) or width * height > MAX_PIXELS:
        shown = f"{str(width)[:20]} x {str(height)[:20]}"
        raise ValueError(f"{shown} pixels: no size of a picture, or over the limit of {MAX_PIXELS / 1e6:g} megapixels")
    return height, width


def number_of(value: Any, what: str) -> float:
    """Raises ValueError unless it is a finite number, or such a number as text."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"{what}: {str(value)[:40]!r} is no number")
    return number


def whole_number_of(value: Any, what: str) -> int:
    """Raises ValueError unless it is a whole number, or such a number as text."""
    number = number_of(value, what)
    if number != int(number):
        raise ValueError(f"{what}: {number:g} is no whole number")
    return int(number)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    return number_of(text, "a number")
