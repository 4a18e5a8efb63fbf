"""Finding the files of a published data set: patterns of paths, and names from annotation files, which are not trusted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ruac.data.folder import IMAGE_SUFFIXES

Pairs = tuple[tuple[str, str], ...]  # where labels are, where the images they belong to are
LONGEST_NAME = 120
NAME_BYTES = 255  # of a file or a folder: no usual file system takes more
PLACE = re.compile(r"\{(\d)\}")


class LayoutError(ValueError):
    """The data set does not lie as it was published; the message names the first file or folder that is missing."""


def matches(root: Path, pattern: str) -> list[tuple[Path, tuple[str, ...]]]:
    """The files of a pattern such as "labels/**/*_seg.png" and what its stars stand for, by name; ** is one folder or more.

    Raises LayoutError when there is none.
    """
    stars = {"**": "(.+)", "*": "([^/]+)"}
    regex = "".join(stars.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", pattern))
    found = []
    for path in sorted(root.glob(pattern)):
        if match := re.fullmatch(regex, path.relative_to(root).as_posix()):
            found.append((path, match.groups()))
    if not found:
        raise LayoutError(f"{root / pattern}: missing")
    return found


def fill(root: Path, template: str, groups: Sequence[str]) -> Path:
    """The path of a template such as "images/{0}/{1}.jpg"; a suffix ".*" becomes that of the image that is there."""
    path = root / template.format(*groups)
    if path.suffix != ".*":
        return path
    there = [path.with_suffix(suffix) for suffix in IMAGE_SUFFIXES if path.with_suffix(suffix).is_file()]
    return there[0] if there else path.with_suffix(IMAGE_SUFFIXES[0])


def places(template: str, groups: Sequence[str]) -> list[str]:
    """What the places of a template are filled with, each once, in their order: the parts of a picture's name."""
    return [groups[int(number)] for number in dict.fromkeys(PLACE.findall(template))]


def inside(folder: Path, name: Any) -> Path:
    """The file of that name, which may have folders, under this one. Raises ValueError when the name leads out of it."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"{folder}: {str(name)[:80]!r} is no file name")
    path = folder / PurePosixPath(name.replace("\\", "/"))
    try:
        whole, root = path.resolve(), folder.resolve()
        if any(len(os.fsencode(part)) > NAME_BYTES for part in path.parts):
            raise ValueError(name)
    except (ValueError, OSError):  # null bytes, half characters, names that no file system takes
        raise ValueError(f"{folder}: {name[:80]!r} is no file name") from None
    if whole == root or not whole.is_relative_to(root):
        raise ValueError(f"{folder}: the file name {name[:80]!r} leads out of the data set; refused")
    return path


def name_of(*parts: str) -> str:
    """Fit for a file name: the parts joined, and what file systems do not like replaced."""
    return re.sub(r"[^\w.\- ]", "_", "_".join(parts)).lstrip(". ")[:LONGEST_NAME] or "_"


def stem(name: str) -> str:
    """A path in a data set without the suffix of its file."""
    return str(PurePosixPath(name.replace("\\", "/")).with_suffix(""))


def read_json(path: Path) -> Any:
    """Raises LayoutError when it is missing, ValueError when it is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise LayoutError(f"{path}: missing") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({str(error).splitlines()[0]})") from None


def first_of_each(sequence_of: Callable[[Any], str], frames: Sequence[Any]) -> list[Any]:
    """The first frame of every sequence, in their order."""
    firsts: dict[str, Any] = {}
    for frame in frames:
        firsts.setdefault(sequence_of(frame), frame)
    return list(firsts.values())
