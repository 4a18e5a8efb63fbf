"""Every format gives back the masks that it was given, and says what the tools that read it expect."""

from __future__ import annotations

import contextlib
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from label_sets import FACTS, MASKS, cell, iou, masks_of, set_of, thing
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from ruac.data.folder import object_ids, read_mask
from ruac.data.labels import decode
from ruac.exchange import coco, cvat, label_studio, yolo
from ruac.exchange.brush import decode_brush, encode_brush
from ruac.exchange.labelset import LabelledObject, LabelSet, Picture, with_area
from ruac.exchange.outlines import one_line_of, parts_of
from ruac.exchange.parsing import parse_xml
from ruac.exchange.pictures import names_in_address
from ruac.exchange.runs import from_run_lengths, run_lengths

EMPTY, ONE_PIXEL, FULL = np.zeros((3, 4), bool), np.eye(1, 6, 2, dtype=bool), np.ones((4, 3), bool)


def filled(lines: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """By pycocotools."""
    rles = coco_mask.frPyObjects([line.ravel().tolist() for line in lines], *size)
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool)


def as_ultralytics_does(line: str, size: tuple[int, int]) -> np.ndarray:
    """Its polygon2mask: coordinates rounded down, outlines filled, too."""
    shares = np.array(line.split()[1:], dtype=np.float32).reshape(-1, 2)
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [(shares * (size[1], size[0])).astype(np.int32)], color=1)
    return mask.astype(bool)


# outlines


@given(mask=MASKS, inset=st.sampled_from([0, 0.1, 0.25]))
def test_outline_filled_is_the_mask(mask: np.ndarray, inset: float) -> None:
    parts = parts_of(mask, inset)
    assert len(parts) == cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1
    rings = [filled([ring], mask.shape) for part in parts for ring in (part.outer, *part.holes)]
    np.testing.assert_array_equal(np.logical_xor.reduce([np.zeros_like(mask), *rings]), mask)
    line = one_line_of(mask, inset)
    np.testing.assert_array_equal(filled([line], mask.shape) if len(line) else np.zeros_like(mask), mask)


def test_outline_of_a_pixel_is_its_edge_and_runs_clockwise() -> None:
    (part,) = parts_of(ONE_PIXEL)
    np.testing.assert_array_equal(part.outer, [[2, 0], [3, 0], [3, 1], [2, 1]])
    (part,) = parts_of(ONE_PIXEL, inset=0.25)
    np.testing.assert_array_equal(part.outer, [[2.25, 0.25], [2.75, 0.25], [2.75, 0.75], [2.25, 0.75]])


def test_pieces_that_touch_at_a_corner_are_two_and_holes_that_do_are_one() -> None:
    diagonal = np.eye(2, dtype=bool)
    assert [len(part.holes) for part in parts_of(diagonal)] == [0, 0]
    assert [len(part.holes) for part in parts_of(np.pad(~diagonal, 1, constant_values=True))] == [1]


def test_tolerance_leaves_few_points_and_most_of_the_mask() -> None:
    exact, rough = one_line_of(cell()), one_line_of(cell(), tolerance=1)
    assert len(rough) < len(exact) / 3
    assert iou(filled([rough], (60, 80)), cell()) > 0.93


def test_line_through_hundreds_of_pieces_takes_the_shortest_ways() -> None:
    mask = np.zeros((61, 61), bool)
    mask[::3, ::3] = True
    line = one_line_of(mask)
    # 441 pixels of outline 4, and 440 ways of length 2 there and back
    assert np.abs(line - np.roll(line, 1, 0)).sum() == 441 * 4 + 440 * 2 * 2


# run lengths


@given(mask=MASKS)
def test_run_lengths_begin_with_background_and_give_the_mask_back(mask: np.ndarray) -> None:
    lengths = run_lengths(mask)
    assert lengths.sum() == mask.size
    assert (lengths[1:] > 0).all()
    assert lengths[1::2].sum() == mask.sum()
    np.testing.assert_array_equal(from_run_lengths(lengths.tolist(), mask.shape), mask)


# Label Studio's brush


def test_brush_is_bit_for_bit_that_of_label_studios_own_library() -> None:
    """Made with brush.mask2rle of label-studio-sdk 2.0.13."""
    mask = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 1], [0, 0, 0, 0, 1]], bool)
    theirs = [0, 0, 0, 60, 57, 27, 252, 224, 22, 255, 227, 0, 159, 254, 48, 8, 255, 239, 128, 71, 254]
    assert encode_brush(mask) == theirs
    np.testing.assert_array_equal(decode_brush(theirs, mask.shape), mask)


def test_brush_with_different_values_in_a_step_is_read() -> None:
    """As Label Studio's page writes it: here, a step of four values for one pixel, half transparent, then one that is clear."""
    bits = f"{8:032b}" + f"{7:05b}" + "0010001101111111"
    bits += "0" + "00" + "011" + "".join(f"{n:08b}" for n in (10, 20, 30, 200))
    bits += "1" + "01" + "0011" + f"{0:08b}"
    data = [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]
    np.testing.assert_array_equal(decode_brush(data, (1, 2)), [[True, False]])


@given(mask=MASKS)
def test_brush_gives_the_mask_back(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), mask.shape), mask)


def test_brush_of_long_runs() -> None:
    mask = np.ones((200, 300), bool)
    mask[5:7, 9] = False
    for one in (mask, ~mask, np.ones((128, 128), bool), np.zeros((128, 128), bool)):
        np.testing.assert_array_equal(decode_brush(encode_brush(one), one.shape), one)


@given(mask=MASKS, at=st.integers(0, 400), byte=st.integers(0, 255))
def test_damaged_brush_is_a_mask_or_a_refusal(mask: np.ndarray, at: int, byte: int) -> None:
    data = encode_brush(mask)
    data[at % len(data)] = byte
    for content in (data, data[: at % len(data)]):
        with contextlib.suppress(ValueError):
            assert decode_brush(content, mask.shape).shape == mask.shape


# there and back


@given(mask=MASKS, shape=st.sampled_from(["mask", "polygon"]))
@example(mask=EMPTY, shape="polygon")
def test_coco_gives_masks_and_facts_back(mask: np.ndarray, shape: coco.Shape) -> None:
    labels = set_of(mask, **FACTS, review=True, next_click={"x": 1})
    reading = coco.read(json.loads(coco.write(labels, shape)))
    assert reading.problems == (() if shape == "mask" or mask.any() else reading.problems)
    if not reading.problems:
        np.testing.assert_array_equal(masks_of(reading.labels)[0], mask)
        (one,) = reading.labels.pictures[0].objects
        assert one.facts == {**FACTS, "review": True, "next_click": {"x": 1}}
        assert one.box == labels.pictures[0].objects[0].box


@pytest.mark.parametrize("shape", ["mask", "polygon"])
def test_pycocotools_reads_coco_as_we_do(tmp_path: Path, shape: coco.Shape) -> None:
    (tmp_path / "labels.json").write_bytes(coco.write(set_of(cell(), FULL.repeat(20, 0).repeat(20, 1)[:60, :80], cell()), shape))
    api = COCO(tmp_path / "labels.json")
    (first, *_) = api.loadAnns(api.getAnnIds())
    np.testing.assert_array_equal(api.annToMask(first), cell())
    assert first["area"] == cell().sum()
    assert first["bbox"] == [10, 5, 68, 51]
    assert api.loadCats(first["category_id"])[0]["name"] == "cat"


@given(mask=MASKS, shape=st.sampled_from(["mask", "polygon"]))
def test_label_studio_gives_masks_back(mask: np.ndarray, shape: label_studio.Shape) -> None:
    labels, _ = with_area(set_of(mask, name="b c/ä#1.png", **FACTS))
    tasks = json.loads(label_studio.write(labels, label_studio.Tags(), "v", shape))
    reading = label_studio.read(tasks, None)
    assert not reading.problems
    if mask.any():
        np.testing.assert_array_equal(masks_of(reading.labels)[0], mask)
        (picture,) = reading.labels.pictures
        assert picture.file_name == "b c/ä#1.png"
        assert picture.objects[0].facts == {"expected_iou": 0.75}


@given(mask=MASKS, shape=st.sampled_from(["mask", "polygon"]))
def test_cvat_gives_masks_back(mask: np.ndarray, shape: cvat.Shape) -> None:
    labels, left_out = with_area(set_of(mask, name='"<&>.png', label="a<b", **FACTS))
    reading = cvat.read(parse_xml(cvat.write(labels, shape)))
    assert not reading.problems
    assert reading.labels.categories == ("a<b",)
    (picture,) = reading.labels.pictures
    assert (picture.file_name, picture.size) == ('"<&>.png', mask.shape)
    assert left_out == (not mask.any())
    if mask.any():
        np.testing.assert_array_equal(masks_of(reading.labels)[0], mask)
        assert picture.objects[0].facts == FACTS


@settings(max_examples=50)
@given(mask=MASKS)
def test_yolo_gives_masks_back(mask: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("yolo")
    (folder / "images" / "deep").mkdir(parents=True)
    Image.new("RGB", mask.shape[::-1]).save(folder / "images" / "deep" / "a.png")
    labels, _ = with_area(set_of(mask, name="deep/a.png"))
    assert yolo.write(labels, folder, None) == ()
    reading = yolo.read(folder, None)
    assert not reading.problems
    assert reading.labels.categories == ("cat",)
    assert [picture.file_name for picture in reading.labels.pictures] == ["deep/a.png"]
    for back in masks_of(reading.labels):
        np.testing.assert_array_equal(back, mask)
    assert len(masks_of(reading.labels)) == mask.any()


@given(mask=MASKS)
def test_ultralytics_sees_at_least_the_mask_and_exactly_it_without_holes_and_pieces(
    mask: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not mask.any():
        return
    folder = tmp_path_factory.mktemp("yolo")
    yolo.write(set_of(mask), folder, None)
    seen = as_ultralytics_does((folder / "labels" / "a.txt").read_text(), mask.shape)
    assert seen[mask].all()
    if [len(part.holes) for part in parts_of(mask)] == [0]:
        np.testing.assert_array_equal(seen, mask)


def test_ultralytics_sees_objects_with_holes_and_pieces_to_99_percent(tmp_path: Path) -> None:
    yolo.write(set_of(cell()), tmp_path, None)
    text = (tmp_path / "labels" / "a.txt").read_text()
    assert text.startswith("0 ")
    assert text.count("\n") == 1
    assert 0.99 <= iou(as_ultralytics_does(text, (60, 80)), cell()) < 1


@pytest.mark.real_data
def test_masks_of_real_objects_are_exact_here_and_99_percent_to_ultralytics(real_data: Path, tmp_path: Path) -> None:
    files = sorted((real_data / "train").glob("*/masks/*.png"))[::900]
    assert len(files) >= 3
    for file in files:
        ids = read_mask(file)
        mask = ids == object_ids(ids)[0]
        yolo.write(set_of(mask), tmp_path, None)
        assert iou(as_ultralytics_does((tmp_path / "labels" / "a.txt").read_text(), mask.shape), mask) >= 0.99
        np.testing.assert_array_equal(filled([one_line_of(mask, 0.25)], mask.shape), mask)
        np.testing.assert_array_equal(decode_brush(encode_brush(mask), mask.shape), mask)


# what the files say


def test_label_studio_task_is_what_its_page_imports() -> None:
    labels = LabelSet(
        (Picture("a.png", (60, 80), (thing(cell(), expected_iou=0.9), thing(cell(), "dog", expected_iou=0.6))),), ()
    )
    (task,) = json.loads(label_studio.write(labels, label_studio.Tags("brush", "img"), "nano-1"))
    assert task["data"] == {"image": "/data/local-files/?d=a.png"}
    (prediction,) = task["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("nano-1", 0.6)
    first, second = prediction["result"]
    rle = first["value"].pop("rle")
    assert (len(rle) > 100, max(rle) <= 255) == (True, True)
    assert first == {
        "id": "ruac-1",
        "type": "brushlabels",
        "from_name": "brush",
        "to_name": "img",
        "original_width": 80,
        "original_height": 60,
        "image_rotation": 0,
        "value": {"format": "rle", "brushlabels": ["cat"]},
        "score": 0.9,
    }
    assert second["value"]["brushlabels"] == ["dog"]


def test_cvat_mask_has_its_box_and_runs_by_rows() -> None:
    mask = np.zeros((6, 9), bool)
    mask[2:4, 3:6], mask[2, 4] = True, False
    root = ElementTree.fromstring(cvat.write(set_of(mask, expected_iou=0.75)))
    image, shape = root.find("image"), root.find("image/mask")
    assert image is not None
    assert shape is not None
    assert image.attrib == {"id": "0", "name": "a.png", "width": "9", "height": "6"}
    told = {key: shape.get(key) for key in ("label", "rle", "left", "top", "width", "height")}
    assert told == {"label": "cat", "rle": "0, 1, 1, 4", "left": "3", "top": "2", "width": "3", "height": "2"}
    assert shape.findtext("attribute") == "0.75"
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/labels/label/name") == "cat"


def test_yolo_config_numbers_the_classes_and_pictures_without_objects_have_empty_files(tmp_path: Path) -> None:
    labels = LabelSet((Picture("a.png", (60, 80), (thing(cell(), "dog"),)), Picture("b.png", (5, 5), ())), ("cat", "dog"))
    yolo.write(labels, tmp_path, None)
    assert (tmp_path / "data.yaml").read_text() == "train: images\nval: images\nnames:\n  0: cat\n  1: dog\n"
    assert (tmp_path / "labels" / "a.txt").read_text().startswith("1 0.")
    assert (tmp_path / "labels" / "b.txt").read_text() == ""


# what people made of them


def test_corrected_regions_lose_their_score_and_annotations_come_before_predictions() -> None:
    (task,) = json.loads(label_studio.write(set_of(cell(), cell(), expected_iou=0.75), label_studio.Tags(), "v"))
    kept, changed = task["predictions"][0]["result"]
    task["annotations"] = [{"result": [kept | {"origin": "prediction"}, changed | {"origin": "prediction-changed"}]}]
    cancelled = {"result": [kept], "was_cancelled": True}
    for given_annotations, facts in (
        (task["annotations"], [{"expected_iou": 0.75}, {}]),
        ([*task["annotations"], cancelled], [{"expected_iou": 0.75}, {}]),
        ([cancelled], [{"expected_iou": 0.75}] * 2),
    ):
        reading = label_studio.read([task | {"annotations": given_annotations}], None)
        assert [dict(one.facts) for one in reading.labels.pictures[0].objects] == facts


def test_boxes_of_every_format_become_boxes_for_prompts(tmp_path: Path) -> None:
    value = {"x": 25, "y": 50, "width": 50, "height": 25, "rectanglelabels": ["cat"]}
    result = {"type": "rectanglelabels", "original_width": 40, "original_height": 20, "value": value}
    xml = b"""<annotations><image id="0" name="a.png" width="40" height="20">
        <box label="cat" xtl="10" ytl="10" xbr="30" ybr="15"/><points label="cat" points="1,2"/></image></annotations>"""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.625 0.5 0.25\n\n")
    (tmp_path / "data.yaml").write_text("names: [cat]\n")
    readings = [
        label_studio.read([{"data": {"photo": "x/a.png"}, "annotations": [{"result": [result, {"type": "choices"}]}]}], None),
        cvat.read(parse_xml(xml)),
        yolo.read(tmp_path, None),
    ]
    assert [reading.skipped for reading in readings] == [1, 1, 0]
    for reading in readings:
        assert not reading.problems
        (one,) = json.loads(coco.write(reading.labels))["annotations"]
        assert (one["bbox"], one["segmentation"]) == ([10, 10, 20, 5], [])
        (again,) = coco.read(json.loads(coco.write(reading.labels))).labels.pictures[0].objects
        assert (again.box, again.mask) == ((10, 10, 20, 5), None)
    assert readings[0].labels.pictures[0].file_name == "x/a.png"


def test_coco_polygons_of_others_are_read_and_kept_ids_do_not_matter() -> None:
    square = [2, 3, 12, 3, 12, 9, 2, 9]
    data = {
        "images": [{"id": "x", "file_name": "a.png", "width": 30, "height": 20}],
        "categories": [{"id": 17, "name": "cat"}],
        "annotations": [{"image_id": "x", "category_id": 17, "segmentation": [square, [20, 12, 25, 12, 25, 15, 20, 15]]}],
    }
    (mask,) = masks_of(coco.read(data).labels)
    assert mask[3:9, 2:12].all()
    assert mask[12:15, 20:25].all()
    assert mask.sum() == 75


def test_objects_without_area_are_counted() -> None:
    picture = Picture("a.png", (3, 4), (thing(EMPTY), LabelledObject("cat", None, (0, 0, 2, 2)), thing(~EMPTY)))
    kept, left_out = with_area(LabelSet((picture,), ("cat",)))
    assert (kept.count, left_out) == (1, 2)
    np.testing.assert_array_equal(decode(kept.pictures[0].objects[0].mask), ~EMPTY)


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("/data/local-files/?d=b%20c/a.png", ["b c/a.png"]),
        ("http://host:8080/data/local-files/?d=/a.png", ["a.png"]),
        ("/data/upload/3/0a1b2c3d-a.png", ["3/0a1b2c3d-a.png", "0a1b2c3d-a.png", "a.png"]),
        ("https://example.org/x/a%20b.png?size=1", ["x/a b.png", "a b.png"]),
        ("a.png", ["a.png"]),
    ],
)
def test_addresses_of_label_studio_stand_for_names(address: str, names: list[str]) -> None:
    assert names_in_address(address) == names


def test_a_yolo_set_does_not_become_part_of_another(tmp_path: Path) -> None:
    first, second = set_of(cell(), name="a.jpg"), set_of(cell(), name="b.jpg")
    yolo.write(first, tmp_path / "set", None)
    before = {path: path.read_bytes() for path in (tmp_path / "set").rglob("*.*")}
    with pytest.raises(ValueError, match=r"holds labels of another set, labels/a\.txt; name another folder, or remove it"):
        yolo.write(second, tmp_path / "set", None)
    assert {path: path.read_bytes() for path in (tmp_path / "set").rglob("*.*")} == before
    yolo.write(first, tmp_path / "set", None)  # the same again, as after a kill
