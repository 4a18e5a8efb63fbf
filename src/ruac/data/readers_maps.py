"""Labels as pictures: maps of ids, maps of colours, one file a mask; and run lengths in a table, maps in HDF5."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ruac.data.image import DAMAGED, FORMATS, MAX_PIXELS
from ruac.data.labels import Item, Labels, Size, encode
from ruac.data.layout import LayoutError, Pairs, fill, first_of_each, inside, matches, name_of, places

Colour = tuple[int, int, int]
Found = tuple[str, Path, list[Path], str]  # name, image, label files, sequence


@dataclass(frozen=True)
class IdMaps:
    """Indexed, grey (8 or 16 bits) or binary pictures whose numbers are objects.

    files: pattern of the maps and the image of each, {0} standing for what the first star stands for; ignored: numbers that are
    not to be judged; lowest: that is an object, all below are background; lists: files that name what the first star may be;
    first_frame_only: of every sequence, which the first star names.
    """

    files: Pairs
    ignored: tuple[int, ...] = (255,)
    lowest: int = 1
    lists: tuple[str, ...] = ()
    first_frame_only: bool = False

    def items(self, root: Path) -> Iterator[Item]:
        for name, image, (file,), _ in _found(root, self.files, self.lists, self.first_frame_only):
            yield Item(name, image, _Lazy(self._read, file))

    def _read(self, file: Path, size: Size) -> Labels:
        ids = _numbers(file, size)
        ignore = np.isin(ids, self.ignored)
        return Labels(ids=np.where(ignore | (ids < self.lowest), 0, ids), ignore=ignore)


@dataclass(frozen=True)
class ColourMaps:
    """Pictures whose colours are objects, be they stored as RGB, with a palette or in grey; files: as in IdMaps; background,
    ignored: the colours that are none."""

    files: Pairs
    background: tuple[Colour, ...] = ((0, 0, 0),)
    ignored: tuple[Colour, ...] = ()

    def items(self, root: Path) -> Iterator[Item]:
        for name, image, (file,), _ in _found(root, self.files):
            yield Item(name, image, _Lazy(self._read, file))

    def _read(self, file: Path, size: Size) -> Labels:
        rgb = np.asarray(_open(file, size).convert("RGB"), dtype=np.int64)
        # one more, so that black, too, can be an object
        ids = ((rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]) + 1
        background, ignored = (
            np.isin(ids, [(red << 16 | green << 8 | blue) + 1 for red, green, blue in colours])
            for colours in (self.background, self.ignored)
        )
        return Labels(ids=np.where(background | ignored, 0, ids), ignore=ignored)


@dataclass(frozen=True)
class MaskFiles:
    """One file a mask, what is not black being the object; objects may overlap. files, first_frame_only: as in IdMaps."""

    files: Pairs
    first_frame_only: bool = False

    def items(self, root: Path) -> Iterator[Item]:
        for name, image, masks, _ in _found(root, self.files, first_frame_only=self.first_frame_only):
            yield Item(name, image, _Lazy(self._read, masks))

    def _read(self, masks: list[Path], size: Size) -> Labels:
        return Labels(tuple(encode(_foreground(file, size)) for file in masks))


@dataclass(frozen=True)
class RunLengthCsv:
    """A table with a row an object: image, and "start length start length ..." counted from 1 down the columns, as on Kaggle.

    files: the table and the image of a row, {0} being its name.
    """

    files: Pairs
    image: str = "ImageId"
    runs: str = "EncodedPixels"

    def items(self, root: Path) -> Iterator[Item]:
        for table, template in self.files:
            file = root / table
            rows: dict[str, list[str]] = {}
            for row in _rows(file, (self.image, self.runs)):
                rows.setdefault(row[0], []).append(row[1])
            for name, runs in rows.items():
                inside(root, template.format(name))
                yield Item(name_of(name), fill(root, template, [name]), _Lazy(self._read, (file, runs)))

    def _read(self, source: tuple[Path, list[str]], size: Size) -> Labels:
        file, rows = source
        try:
            return Labels(tuple(encode(_runs(row, size)) for row in rows if row.strip()))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None


@dataclass(frozen=True)
class Hdf5Maps:
    """Maps of ids in HDF5 files, for which h5py must be there; files: as in IdMaps; dataset: its name in the file; background:
    numbers that are no object."""

    files: Pairs
    dataset: str = "dataset"
    background: tuple[int, ...] = (-1,)

    def items(self, root: Path) -> Iterator[Item]:
        found = _found(root, self.files)
        if find_spec("h5py") is None:
            raise ValueError(f"{root}: its HDF5 files need h5py to be read; install it: pip install ruac[data]")
        for name, image, (file,), _ in found:
            yield Item(name, image, _Lazy(self._read, file))

    def _read(self, file: Path, size: Size) -> Labels:
        import h5py  # pyright: ignore[reportMissingImports]  not one of ours

        try:
            with h5py.File(file, "r") as content:
                source: Any = content[self.dataset]
                _check_size(file, tuple(source.shape), size)
                ids = np.asarray(source[...], dtype=np.int64)
        except (OSError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{file}: no map '{self.dataset}' can be read ({error})") from None
        background = np.isin(ids, self.background)
        if not ids[~background].all():
            ids += 1  # so that 0, too, can be an object
        return Labels(ids=np.where(background, 0, ids))


@dataclass(frozen=True)
class _Lazy:
    """What reads the labels of one picture from its source when asked to."""

    read: Callable[[Any, Size], Labels]
    source: Any

    def __call__(self, size: Size) -> Labels:
        return self.read(self.source, size)


def _found(root: Path, files: Pairs, lists: Sequence[str] = (), first_frame_only: bool = False) -> list[Found]:
    """The pictures that have labels, in the order of the labels' names."""
    listed = {entry for name in lists for entry in _listed(root / name)}
    pictures: dict[Path, Found] = {}
    for pattern, template in files:
        for file, groups in matches(root, pattern):
            if not lists or groups[0] in listed:
                image = fill(root, template, groups)
                name = name_of(*places(template, groups))
                pictures.setdefault(image, (name, image, [], groups[0]))[2].append(file)
    found = list(pictures.values())
    if first_frame_only:
        # the masks of several objects come one object after the other: the frames of the first need not begin the sequence
        return first_of_each(lambda picture: picture[3], sorted(found, key=lambda picture: picture[1]))
    return found


def _listed(path: Path) -> list[str]:
    """Names in a text file, one a line, without their suffix."""
    try:
        lines = path.read_text().split("\n")
    except FileNotFoundError:
        raise LayoutError(f"{path}: missing") from None
    return [line.strip().removesuffix(".png").removesuffix(".jpg") for line in lines if line.strip()]


def _rows(file: Path, columns: tuple[str, str]) -> list[tuple[str, str]]:
    try:
        with file.open(newline="") as table:
            return [(row[columns[0]], row[columns[1]] or "") for row in csv.DictReader(table)]
    except FileNotFoundError:
        raise LayoutError(f"{file}: missing") from None
    except (csv.Error, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a table with the columns {' and '.join(columns)} ({error})") from None


def _runs(row: str, size: Size) -> NDArray[np.bool_]:
    height, width = size
    try:
        numbers = np.array(row.split(), dtype=np.int64).reshape(-1, 2)
    except (ValueError, OverflowError):
        raise ValueError(f"{row[:40]!r} is not start length start length ...") from None
    starts, ends = numbers[:, 0] - 1, numbers.sum(1) - 1
    if (starts < 0).any() or (numbers[:, 1] < 0).any() or (ends > height * width).any():
        raise ValueError(f"run lengths that leave the picture of {width} x {height} pixels")
    flat = np.zeros(height * width, np.bool_)
    for start, end in zip(starts, ends, strict=True):
        flat[start:end] = True
    return flat.reshape((height, width), order="F")


def _numbers(file: Path, size: Size) -> NDArray[np.int64]:
    image = _open(file, size)
    values = np.asarray(image, dtype=np.int64)
    if values.ndim == 3:
        colours = values[..., : 3 if image.mode.startswith("RGB") else 1]
        if (colours != colours[..., :1]).any():
            raise ValueError(f"{file}: coloured, where a map of ids was expected")
        values = colours[..., 0]
    return values


def _foreground(file: Path, size: Size) -> NDArray[np.bool_]:
    image = _open(file, size)
    if image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGB")
    values = np.asarray(image) != 0
    return values if values.ndim == 2 else values.any(2)


def _open(file: Path, size: Size) -> Image.Image:
    """Decoded. Raises ValueError when it is damaged or not of that size, which is known before anything is decoded."""
    with _readable(file):
        image = Image.open(file, formats=FORMATS)
    _check_size(file, (image.height, image.width), size)
    with _readable(file):
        image.load()
    return image


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turns what Pillow has to say of a file into a ValueError that names it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except FileNotFoundError:
        raise ValueError(f"{file}: missing") from None
    except UnidentifiedImageError:
        raise ValueError(f"{file}: not an image") from None
    except DAMAGED as error:
        raise ValueError(f"{file}: damaged ({error})") from None


def _check_size(file: Path, own: tuple[int, ...], size: Size) -> None:
    told = f"{file}: {' x '.join(map(str, own[::-1]))} pixels"
    if own != size:
        raise ValueError(f"{told}, its image has {size[1]} x {size[0]}")
    if own[0] * own[1] > MAX_PIXELS:
        raise ValueError(f"{told}, over the limit of {MAX_PIXELS // 10**6} megapixels")
