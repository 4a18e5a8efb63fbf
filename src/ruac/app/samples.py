"""Photographs to try, of those that installed packages bring along; nothing is downloaded."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """name: for people; path: of the file."""

    name: str
    path: Path


PLACES = (
    ("Grace Hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("Cat", "skimage", "data/chelsea.png"),
    ("Coffee", "skimage", "data/coffee.png"),
    ("Astronaut", "skimage", "data/astronaut.png"),
    ("Cheetah", "gradio", "media_assets/images/cheetah1.jpg"),
    ("Lion", "gradio", "media_assets/images/lion.jpg"),
)


def samples() -> list[Sample]:
    """Those that are on this disk; the first one, of a package that ruac needs, always is."""
    found = [Sample(name, folder / file) for name, package, file in PLACES if (folder := _folder(package))]
    return [sample for sample in found if sample.path.is_file()]


def _folder(package: str) -> Path | None:
    """Where a package lies, without importing it; None when it is not installed."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
