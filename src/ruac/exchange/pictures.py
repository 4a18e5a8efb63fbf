"""The pictures that labels belong to: where they lie, how large they are. Names from label files do not lead out of the folder."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image

from ruac.data.image import DAMAGED, FORMATS, SUFFIXES, ImageError
from ruac.data.labels import Size
from ruac.data.layout import inside
from ruac.errors import one_line
from ruac.exchange.labelset import Picture

ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # of EXIF: those by which height and width change places
UPLOAD = "/data/upload/"
UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # before the names of uploaded files


def pictures_in(folder: Path) -> list[Path]:
    """By name, with those of the folders in it. Raises FileNotFoundError without the folder, ValueError without a picture."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; say with --images where the pictures are")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"{folder}: no picture in it ({', '.join(SUFFIXES)})")
    return found


def size_of_picture(path: Path) -> Size:
    """(height, width) the way up that it is shown, from the head of the file. Raises ImageError when it is none."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as picture:
            turned = picture.getexif().get(ORIENTATION) in TURNED
            return (picture.width, picture.height) if turned else (picture.height, picture.width)
    except DAMAGED as error:
        raise ImageError(f"{path}: cannot be read as a picture ({one_line(error)})") from None


def check_picture(folder: Path, picture: Picture) -> Path:
    """Its file. Raises ValueError when it is not there, or of another size than the labels say."""
    path = inside(folder, picture.file_name)
    height, width = size_of_picture(path)
    if (height, width) != picture.size:
        raise ValueError(f"{path}: {width} x {height} pixels; the labels are for {picture.size[1]} x {picture.size[0]}")
    return path


def names_in_address(address: str) -> list[str]:
    """What a picture may be called that Label Studio has under this address, the likeliest first. Nothing is ever fetched.

    Files of its local storage are named in ?d=; uploaded ones lie in a folder a project and have eight digits put before their names.
    """
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    if local:
        return [local[0].lstrip("/")]
    path = unquote(parts.path)
    if UPLOAD in path:
        path = path.split(UPLOAD, 1)[1]
        last = PurePosixPath(path).name
        return list(dict.fromkeys([path, last, UPLOADED.sub("", last, count=1)]))
    return list(dict.fromkeys([path.lstrip("/"), PurePosixPath(path).name]))


def first_in(folder: Path, names: Sequence[str]) -> str | None:
    """The first of the names that is a file of the folder. Raises ValueError when one leads out of it."""
    return next((name for name in names if name and inside(folder, name).is_file()), None)
