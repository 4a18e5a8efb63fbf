"""Images in an object store, by URL: s3://, gs:// and the like, through fsspec."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# the only ones of fsspec's that are opened: others unpack archives, follow references or run programs
SCHEMES = ("s3", "gs", "az", "abfs", "hdfs", "file", "memory")
MOST_BYTES = 256 * 2**20  # of one image file
MAGIC = "*?["


def is_url(word: str) -> bool:
    return "://" in word


def find_in_store(url: str, suffixes: tuple[str, ...]) -> list[str]:
    """The URL itself, the images below it if it is a folder (with / at its end), or those that it matches as a pattern, sorted.

    Raises ValueError for a store that is not known or cannot be asked, and where there is no image.
    """
    filesystem, path = _open(url)
    if not (any(letter in path for letter in MAGIC) or url.endswith("/")):
        return [str(filesystem.unstrip_protocol(path))]
    try:
        found = filesystem.glob(path) if not url.endswith("/") else filesystem.find(path)
    except Exception as error:  # noqa: BLE001  every store raises errors of its own
        raise ValueError(f"{url}: cannot be listed ({_told(error)})") from None
    images = sorted(str(name) for name in found if PurePosixPath(str(name)).suffix.lower() in suffixes)
    if not images:
        raise ValueError(f"{url}: no image there ({', '.join(suffix[1:] for suffix in suffixes)})")
    return [str(filesystem.unstrip_protocol(name)) for name in images]


def read_from_store(url: str, most_bytes: int = MOST_BYTES) -> NDArray[np.uint8]:
    """As `read_image`. Raises ImageError for what cannot be read, and for more than most_bytes."""
    from ruac.data.image import ImageError, read_image

    filesystem, path = _open(url)
    try:
        with filesystem.open(path, "rb") as stream:
            content = stream.read(most_bytes + 1)
    except FileNotFoundError:
        raise ImageError(f"{url}: no such file; check the spelling") from None
    except Exception as error:  # noqa: BLE001  every store raises errors of its own
        raise ImageError(f"{url}: cannot be read ({_told(error)})") from None
    if len(content) > most_bytes:
        raise ImageError(f"{url}: more than {most_bytes / 2**20:g} MB; scale the image down or cut it into tiles")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "image"
        copy.write_bytes(content)
        try:
            return read_image(copy)
        except ImageError as error:
            raise ImageError(str(error).replace(str(copy), url)) from None


def _open(url: str) -> tuple[Any, str]:
    """The file system and the path in it."""
    scheme = url.split("://", 1)[0]
    if scheme not in SCHEMES:
        raise ValueError(f"{url}: not one of {', '.join(f'{name}://' for name in SCHEMES)}; copy the images to this machine")
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise ValueError(f"{url}: URLs need fsspec: pip install 'ruac[scale]'") from None
    try:
        filesystem, path = url_to_fs(url)
    except ImportError as error:  # says which package that store needs
        raise ValueError(f"{url}: {_told(error)}") from None
    return filesystem, str(path)


def _told(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
