"""Where training pictures come from: sets in the folder format, and videos, of which single frames are drawn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ruac.data.folder import IMAGE_SUFFIXES, FolderSet, Sample, find_sets, read_meta
from ruac.data.image import DAMAGED, FORMATS, MAX_PIXELS, read_image
from ruac.data.scenes import Pool

FRAMES, LABELS = "JPEGImages", "Annotations"
# decoded pictures that a process keeps: all of the sets that nano is trained on, and a part of a large one
KEPT_BYTES = 3 * 2**30


def open_sources(folders: Sequence[Path]) -> list[FolderSet]:
    """The sets in these folders, each a set, a folder of sets, or videos with the folders JPEGImages and Annotations.

    Raises FileNotFoundError when a folder holds none, ValueError when two sets have the same name.
    """
    if not folders:
        raise ValueError("data: name at least one folder")
    sets: dict[str, FolderSet] = {}
    for folder in folders:
        found = [_open_videos(folder)] if (folder / FRAMES).is_dir() else find_sets([folder])
        for part in found:
            if part.name in sets:
                raise ValueError(f"{folder}: a second set named '{part.name}'; rename the folder, or the set in its meta.json")
            sets[part.name] = part
    return list(sets.values())


def _open_videos(root: Path) -> FolderSet:
    """Every labelled frame is a sample that bears the name of its clip, so that whole clips are held out."""
    frames, labels = root / FRAMES, root / LABELS
    if not labels.is_dir():
        raise FileNotFoundError(f"{root}: videos without labels, it has no folder '{LABELS}'")
    samples = []
    for image in sorted(path for path in frames.glob("**/*") if path.suffix.lower() in IMAGE_SUFFIXES):
        mask = (labels / image.relative_to(frames)).with_suffix(".png")
        if mask.is_file():
            samples.append(Sample(image.parent.relative_to(frames).as_posix(), image, mask))
    if not samples:
        raise ValueError(f"{root}: no labelled frame; expected {FRAMES}/<clip>/00000.jpg with {LABELS}/<clip>/00000.png")
    meta = read_meta(root)
    return FolderSet(meta.get("name", root.name), meta, tuple(samples))


def read_ids(path: Path) -> NDArray[np.uint8]:
    """Object ids [height, width] of a grey or an indexed picture, whose colours do not matter. Raises ValueError for any other."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError("more pixels than are read")
            mode, ids = image.mode, np.asarray(image)
    except DAMAGED:
        raise ValueError(f"{path}: not a readable image") from None
    if mode not in ("P", "L") or ids.ndim != 2:
        raise ValueError(f"{path}: a mask must be an 8-bit image of one channel or with a palette, this is of mode {mode}")
    return ids.astype(np.uint8, copy=False)


class TrainingPool(Pool):
    """Pictures of several sets, drawn by set, then by clip, then by frame: a long video counts no more than a short one."""

    def __init__(self, sets: Sequence[FolderSet], weights: dict[str, float], held_out: bool = False):
        super().__init__(sets, weights, held_out)
        # a photograph is a clip of one frame
        self.clips = [list(_by_id(samples).values()) for samples in self.samples]
        sizes = np.array([len(clips) for clips in self.clips]) ** 0.5 * (self.share > 0)
        self.donor_share = sizes / sizes.sum()
        self.kept = 0

    def draw(self, rng: np.random.Generator, donor: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        clips = self.clips[int(rng.choice(len(self.clips), p=self.donor_share if donor else self.share))]
        frames = clips[int(rng.integers(len(clips)))]
        return self.read(frames[int(rng.integers(len(frames)))])

    def read(self, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image and ids. Raises ValueError for an unreadable picture or a mask of another size."""
        if sample.image in self.cache:
            return self.cache[sample.image]
        image, ids = read_image(sample.image), read_ids(sample.mask)
        if ids.shape != image.shape[:2]:
            raise ValueError(f"{sample.mask}: {ids.shape} pixels, but its image has {image.shape[:2]}")
        if self.kept < KEPT_BYTES:
            self.cache[sample.image] = image, ids
            self.kept += image.nbytes + ids.nbytes
        return image, ids


def _by_id(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    clips: dict[str, list[Sample]] = {}
    for sample in samples:
        clips.setdefault(sample.id, []).append(sample)
    return clips
