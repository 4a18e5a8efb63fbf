"""Which images are meant: files, folders and patterns, as typed."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")


@dataclass(frozen=True)
class ImageFile:
    """An image, not read yet. name: its path, with /, from the folder that all images are in."""

    path: Path
    name: str


@dataclass(frozen=True)
class Images:
    """root: the folder that all are in; files: each once, in the order of what was typed, folders by name."""

    root: Path
    files: tuple[ImageFile, ...]


def find_images(words: Sequence[str], out: Path) -> Images:
    """Files as they are, images of folders and the folders in them, and what patterns match; nothing that lies in `out`.

    A file that is named is taken whether it is there or not: that is for who reads it to say. Raises ValueError for a folder or a
    pattern without an image.
    """
    own = out.resolve()
    found: dict[Path, Path] = {}
    for word in words:
        for path in _of_word(word, own):
            found.setdefault(Path(os.path.abspath(path)), path)  # noqa: PTH100  resolve would follow a link that names the image
    root = Path(os.path.commonpath([path.parent for path in found]))
    return Images(root, tuple(ImageFile(path, full.relative_to(root).as_posix()) for full, path in found.items()))


def _of_word(word: str, own: Path) -> list[Path]:
    path = Path(word)
    if path.is_dir():
        images = _usable((file for file in path.rglob("*") if not _hidden(file.relative_to(path))), own)
        if not images:
            raise ValueError(f"{word}: no image in this folder ({', '.join(suffix[1:] for suffix in SUFFIXES)})")
        return images
    if path.exists() or not glob.has_magic(word):
        return [path]
    images = _usable(map(Path, glob.glob(word, recursive=True)), own)  # noqa: PTH207  takes absolute patterns, too
    if not images:
        raise ValueError(f"{word}: matches no image; check the pattern")
    return images


def _usable(paths: Iterable[Path], own: Path) -> list[Path]:
    """Those that are called like images, sorted."""
    return sorted(
        path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file() and not path.resolve().is_relative_to(own)
    )


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
