"""The folder format."""

import json

import cv2
import numpy as np
import pytest

from ruac.data.folder import FolderSet, object_ids, read_mask


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("b", "a"):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.jpg"), np.zeros((8, 9, 3), np.uint8))
        cv2.imwrite(str(tmp_path / "masks" / f"{name}.png"), np.array([[0, 1, 7, 255]], np.uint8).repeat(3, 0))
    (tmp_path / "meta.json").write_text(json.dumps({"name": "two", "licence": "CC0"}))
    return tmp_path


def test_pictures_come_in_the_order_of_their_names_with_what_is_known_of_them(root):
    opened = FolderSet.open(root)
    assert [s.id for s in opened.samples] == ["a", "b"]
    assert (opened.name, opened.meta["licence"]) == ("two", "CC0")


def test_background_and_ignore_are_no_objects(root):
    assert object_ids(read_mask(FolderSet.open(root).samples[0].mask)) == [1, 7]


def test_a_missing_mask_is_named(root):
    (root / "masks" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        FolderSet.open(root)


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="images"):
        FolderSet.open(tmp_path)


def test_a_mask_of_sixteen_bits_is_refused(root):
    cv2.imwrite(str(root / "masks" / "a.png"), np.zeros((8, 9), np.uint16))
    with pytest.raises(ValueError, match="8-bit"):
        read_mask(root / "masks" / "a.png")


def test_one_picture_in_twenty_is_held_out_by_its_name_alone(tmp_path):
    from ruac.data.folder import Sample

    held = [Sample(f"picture{i}", tmp_path, tmp_path).held_out for i in range(20_000)]
    assert 0.045 < np.mean(held) < 0.055
    assert held[:50] == [Sample(f"picture{i}", tmp_path / "x", tmp_path).held_out for i in range(50)]
