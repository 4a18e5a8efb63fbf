"""Labels that are pictures, tables or HDF5 files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_domains import h5py  # noqa: F401
from test_readers import SIZE, labels, save, square, write

import ruac.data.readers_maps as readers_maps
from ruac.data.labels import decode, to_folder_mask
from ruac.data.layout import LayoutError
from ruac.data.readers_maps import ColourMaps, Hdf5Maps, IdMaps, MaskFiles, RunLengthCsv


@pytest.mark.parametrize(
    "pixels",
    [
        np.array([0, 3], np.uint8)[square().astype(int)],
        np.array([0, 3000], np.uint16)[square().astype(int)],
        np.array([0, 70000], np.int32)[square().astype(int)],
        np.repeat(np.array([0, 3], np.uint8)[square().astype(int)][..., None], 3, 2),
        square(),
    ],
)
def test_maps_of_ids_may_be_of_8_or_16_bits_or_binary(pixels: np.ndarray, tmp_path: Path) -> None:
    save(tmp_path / "maps" / ("a.tif" if pixels.dtype == np.int32 else "a.png"), pixels)
    found = labels(IdMaps((("maps/a.*", "images/{0}.jpg"),)), tmp_path)
    np.testing.assert_array_equal(found.ids, pixels if pixels.ndim == 2 else pixels[..., 0])


def test_colours_are_no_ids(tmp_path: Path) -> None:
    save(tmp_path / "maps" / "a.png", np.repeat(square()[..., None], 3, 2) * np.array([200, 10, 0], np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: coloured, where a map of ids was expected"):
        labels(IdMaps((("maps/*.png", "images/{0}.jpg"),)), tmp_path)
    found = labels(ColourMaps((("maps/*.png", "images/{0}.jpg"),)), tmp_path)
    np.testing.assert_array_equal(to_folder_mask(found, SIZE).ids, square())


def test_colours_can_be_ignored_or_background_and_black_an_object(tmp_path: Path) -> None:
    table = np.array([[0, 0, 0], [255, 255, 255], [9, 9, 9]], np.uint8)
    which = np.where(square(), 1, np.where(square(20, 12, 25, 15), 2, 0))
    save(tmp_path / "maps" / "a.png", table[which])
    reader = ColourMaps((("maps/*.png", "images/{0}.jpg"),), background=((255, 255, 255),), ignored=((9, 9, 9),))
    mask = to_folder_mask(labels(reader, tmp_path), SIZE)
    np.testing.assert_array_equal(mask.ids, np.array([1, 0, 255])[which])


def test_masks_of_overlapping_objects_come_from_one_file_each(tmp_path: Path) -> None:
    """Grey, with a palette whose second colour is black, and with transparency."""
    save(tmp_path / "a" / "1.png", square() * np.uint8(255))
    indexed = Image.fromarray(square(4, 4, 6, 6).astype(np.uint8))
    indexed.putpalette([0, 0, 0, 0, 0, 0])
    indexed.save(tmp_path / "a" / "2.png")
    opaque = np.dstack([np.repeat(square(20, 12, 25, 15)[..., None] * np.uint8(255), 3, 2), np.full(SIZE, 255, np.uint8)])
    save(tmp_path / "a" / "3.png", opaque)
    found = labels(MaskFiles((("*/*.png", "images/{0}.jpg"),)), tmp_path)
    for rle, mask in zip(found.objects, (square(), square(4, 4, 6, 6), square(20, 12, 25, 15)), strict=True):
        np.testing.assert_array_equal(decode(rle), mask)


@pytest.mark.parametrize("reader", [IdMaps, ColourMaps, MaskFiles])
def test_labels_of_another_size_and_damaged_ones_are_named(reader: Any, tmp_path: Path) -> None:
    found = reader((("maps/*.png", "images/{0}.jpg"),))
    save(tmp_path / "maps" / "a.png", np.zeros((20, 31), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: 31 x 20 pixels, its image has 30 x 20"):
        labels(found, tmp_path)
    save(tmp_path / "maps" / "a.png", np.random.default_rng(0).integers(0, 255, SIZE, np.uint8))
    content = (tmp_path / "maps" / "a.png").read_bytes()
    (tmp_path / "maps" / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a\.png: damaged"):
        labels(found, tmp_path)
    (tmp_path / "maps" / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"a\.png: not an image"):
        labels(found, tmp_path)


def test_a_huge_label_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A file of 33 bytes can say that it is one of 13,000 x 13,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + b"\0" * 8)
    (item,) = IdMaps((("*.png", "images/{0}.jpg"),)).items(tmp_path)
    with pytest.raises(ValueError, match=r"a\.png: 13000 x 13000 pixels, over the limit of 100 megapixels"):
        item.labels((13_000, 13_000))
    with pytest.raises(ValueError, match=r"a\.png: 13000 x 13000 pixels, its image has 30 x 20"):
        item.labels(SIZE)


def test_run_lengths_in_a_table_start_at_one_and_go_down_the_columns(tmp_path: Path) -> None:
    rows = ["ImageId,EncodedPixels", "b,44 6 64 6", "a,1 1", "b,600 1", "a,"]
    write(tmp_path / "t.csv", "\n".join(rows))
    save(tmp_path / "images" / "b.png", np.zeros(SIZE, np.uint8))
    items = {item.name: item for item in RunLengthCsv((("t.csv", "images/{0}.*"),)).items(tmp_path)}
    assert items["b"].image == tmp_path / "images" / "b.png"
    first, last = (decode(rle) for rle in items["b"].labels(SIZE).objects)
    np.testing.assert_array_equal(first, square(2, 3, 4, 9))
    np.testing.assert_array_equal(np.argwhere(last), [[19, 29]])
    assert len(items["a"].labels(SIZE).objects) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [("600 2", "leave the picture"), ("0 2", "leave"), ("5 -1", "leave"), ("1 2 3", "start length"), ("x 1", "start length")],
)
def test_run_lengths_that_leave_the_picture_are_refused(row: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "t.csv", f"ImageId,EncodedPixels\na,{row}\n")
    with pytest.raises(ValueError, match=rf"t\.csv: .*{message}"):
        labels(RunLengthCsv((("t.csv", "images/{0}.png"),)), tmp_path)


def test_a_table_of_something_else_is_named(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "name,area\na,5\n")
    with pytest.raises(ValueError, match=r"t\.csv: not a table with the columns ImageId and EncodedPixels"):
        list(RunLengthCsv((("t.csv", "images/{0}.png"),)).items(tmp_path))
    with pytest.raises(LayoutError, match="missing"):
        list(RunLengthCsv((("u.csv", "images/{0}.png"),)).items(tmp_path))


def test_hdf5_without_h5py_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers_maps, "find_spec", lambda name: None)
    write(tmp_path / "a.hdf5", "")
    with pytest.raises(ValueError, match=r"its HDF5 files need h5py to be read; install it: pip install ruac\[data\]"):
        list(Hdf5Maps((("*.hdf5", "images/{0}.jpg"),)).items(tmp_path))


@pytest.mark.usefixtures("h5py")
def test_damaged_hdf5_files_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.hdf5", "no map")
    with pytest.raises(ValueError, match=r"a\.hdf5: no map 'dataset' can be read"):
        labels(Hdf5Maps((("*.hdf5", "images/{0}.jpg"),)), tmp_path)


def test_lists_choose_by_the_first_star_with_or_without_a_suffix(tmp_path: Path) -> None:
    for name in ("a", "b", "c.d"):
        save(tmp_path / "maps" / f"{name}.png", np.zeros(SIZE, np.uint8))
    write(tmp_path / "list.txt", "a.png\n\nc.d\r\n")
    reader = IdMaps((("maps/*.png", "images/{0}.jpg"),), lists=("list.txt",))
    assert [item.name for item in reader.items(tmp_path)] == ["a", "c.d"]
