"""Which images are meant: files, folders, patterns, lists of them, and places in an object store, as typed."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from ruac.data.image import SUFFIXES
from ruac.label.store import find_in_store, is_url

MANIFEST = ".txt"


@dataclass(frozen=True)
class ImageFile:
    """An image, not read yet. place: a path or a URL; name: its path, with /, from the folder that all images are in."""

    place: Path | str
    name: str


@dataclass(frozen=True)
class Images:
    """root: the folder that all are in, or its URL; files: each once, in the order of what was typed, folders by name."""

    root: Path | str
    files: tuple[ImageFile, ...]


def find_images(words: Sequence[str], out: Path) -> Images:
    """Files as they are, images of folders and the folders in them, what patterns match, and the lines of manifests, which are text
    files of a path or a URL a line; nothing that lies in `out`. URLs are files, folders and patterns alike.

    A file that is named is taken whether it is there or not: that is for who reads it to say. Raises ValueError for a folder, a
    pattern or a manifest without an image, and for paths and URLs together.
    """
    told = [line for word in words for line in (_lines(Path(word)) if _is_manifest(word) else [word])]
    if any(map(is_url, told)):
        return _of_urls(told)
    own = out.resolve()
    found: dict[Path, Path] = {}
    for word in told:
        for path in _of_word(word, own):
            found.setdefault(Path(os.path.abspath(path)), path)  # noqa: PTH100  resolve would follow a link that names the image
    root = Path(os.path.commonpath([path.parent for path in found]))
    return Images(root, tuple(ImageFile(path, full.relative_to(root).as_posix()) for full, path in found.items()))


def _is_manifest(word: str) -> bool:
    return not is_url(word) and Path(word).suffix.lower() == MANIFEST and Path(word).is_file()


def _lines(manifest: Path) -> list[str]:
    try:
        lines = [line.strip() for line in manifest.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{manifest}: not a text file in UTF-8; a manifest has the path or the URL of an image a line") from None
    if not any(lines):
        raise ValueError(f"{manifest}: names no image; a manifest has the path or the URL of one a line")
    return [line for line in lines if line]


def _of_urls(words: Sequence[str]) -> Images:
    for word in words:
        if not is_url(word):
            raise ValueError(f"{word}: a path among URLs; label those of this machine in a run of their own")
    urls = dict.fromkeys(url for word in words for url in find_in_store(word, SUFFIXES))
    parts = [url.split("/") for url in urls]
    folders = zip(*(names[:-1] for names in parts), strict=False)  # as deep as the shallowest
    common = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, folders)]
    if len(common) < 3:  # scheme, nothing, bucket
        raise ValueError(f"{words[0]} and others: in several stores; label each in a run of its own")
    return Images("/".join(common), tuple(ImageFile(url, "/".join(n[len(common) :])) for url, n in zip(urls, parts, strict=True)))


def _of_word(word: str, own: Path) -> list[Path]:
    path = Path(word)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        # one that is not there is taken all the same
        if not isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            raise ValueError(f"{word[:80]!r}: no name of a file or a folder") from None
    if path.is_dir():
        images = _usable((file for file in path.rglob("*") if not _hidden(file.relative_to(path))), own)
        if not images:
            where = ", leaving out what lies in --out" if path.resolve().is_relative_to(own) else ""
            raise ValueError(f"{word}: no image in this folder ({', '.join(suffix[1:] for suffix in SUFFIXES)}{where})")
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
