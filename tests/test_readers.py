"""What the readers do with annotations of every kind, also with those that are broken or mean harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from ruac.data.labels import Labels, decode, encode, to_folder_mask
from ruac.data.layout import LayoutError, inside, matches, name_of
from ruac.data.readers import CocoJson, CocoVideoJson, Reader
from ruac.data.readers_maps import RunLengthCsv
from ruac.data.readers_polygons import LABELME, VIA, VISOR, PolygonJson
from ruac.data.runlengths import from_polygons, from_segmentation, polygons_of

SIZE = 20, 30
SQUARE = [2, 3, 12, 3, 12, 9, 2, 9]


def square(x0: int = 2, y0: int = 3, x1: int = 12, y1: int = 9) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def coco(
    root: Path, segmentation: Any = (SQUARE,), file_name: Any = "a.jpg", size: tuple[Any, Any] = SIZE, **more: Any
) -> Reader:
    images = [{"id": 5, "file_name": file_name, "height": size[0], "width": size[1]}]
    objects = [{"id": 77, "image_id": 5, "segmentation": segmentation, **more}]
    write(root / "labels.json", {"images": images, "annotations": objects})
    return CocoJson((("labels.json", "images"),))


def labels(reader: Reader, root: Path) -> Labels:
    (item,) = reader.items(root)
    return item.labels(SIZE)


# areas


def test_polygons_and_both_kinds_of_run_lengths_mean_the_same() -> None:
    uncompressed = {"size": list(SIZE), "counts": [43, 6, 14, 6, 14, 6, 14, 6, 14, 6, 14, 6, 14, 6, 14, 6, 14, 6, 14, 6, 371]}
    packed = coco_mask.encode(np.asfortranarray(square().astype(np.uint8)))
    for area in ([SQUARE], uncompressed, {"size": list(SIZE), "counts": packed["counts"].decode()}, packed):
        rle, skipped = from_segmentation(area, SIZE)
        np.testing.assert_array_equal(decode(rle), square())
        assert skipped == 0


def test_run_lengths_keep_their_holes() -> None:
    ring = square() & ~square(5, 5, 8, 7)
    rle, _ = from_segmentation({"size": list(SIZE), "counts": encode(ring)["counts"]}, SIZE)
    np.testing.assert_array_equal(decode(rle), ring)


def test_several_polygons_are_one_object_and_a_polygon_in_another_is_a_hole_only_by_parity() -> None:
    inner, apart = [5, 5, 8, 5, 8, 7, 5, 7], [20, 12, 25, 12, 25, 15, 20, 15]
    union, _ = from_polygons([SQUARE, inner, apart], SIZE)
    np.testing.assert_array_equal(decode(union), square() | square(20, 12, 25, 15))
    parity, _ = from_polygons([SQUARE, inner, apart], SIZE, "parity")
    np.testing.assert_array_equal(decode(parity), square() & ~square(5, 5, 8, 7) | square(20, 12, 25, 15))


def test_polygons_of_less_than_three_points_are_skipped_and_counted() -> None:
    assert from_segmentation([[1, 2, 3, 4], [], SQUARE], SIZE)[1] == 2
    assert from_segmentation([[1, 2, 3, 4]], SIZE) == (None, 1)
    assert from_segmentation([], SIZE) == (None, 1)


def test_polygons_come_in_many_forms() -> None:
    pairs = [[2, 3], [12, 3], [12, 9], [2, 9]]
    assert polygons_of(SQUARE) == polygons_of([SQUARE]) == polygons_of(pairs) == polygons_of([pairs]) == [SQUARE]
    assert polygons_of([pairs, pairs]) == [SQUARE, SQUARE]
    assert polygons_of({"all_points_x": SQUARE[::2], "all_points_y": SQUARE[1::2]}) == [SQUARE]
    assert polygons_of({"cx": 4, "cy": 5, "r": 2}) == [[]]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ("text", "neither polygons nor run lengths"),
        ([[*SQUARE, 4]], "no pairs"),
        ([[1, 2, 3, 4, 5, float("nan")]], "far outside"),
        ([[1, 2, 3, 4, 5, 1e9]], "far outside"),
        ([[1, 2, 3, 4, 5, 10**400]], "no numbers"),
        ([[1, 2, 3, 4, 5, "x"]], "no numbers"),
        ([[1, 2, 3, 4, 5, None]], "far outside"),
        ([[0, 0, 300, 200] * 9000], "outline"),
        ({"all_points_x": [1, 2, 3], "all_points_y": [1, 2]}, "run lengths of size None"),
        ({"size": [20, 31], "counts": [600]}, "height and width of the picture are"),
        ({"size": [20, 30], "counts": [599]}, "add up"),
        ({"size": [20, 30], "counts": [700, -100]}, "add up"),
        ({"size": [20, 30], "counts": [600.0]}, "add up"),
        ({"size": [20, 30], "counts": "PPPP"}, "broken"),
        ({"size": [20, 30], "counts": "oooooooooooo0"}, "broken"),
        ({"size": [20, 30], "counts": ""}, "broken"),
        ({"size": [20, 30], "counts": None}, "broken"),
        ({"size": [20, 30], "counts": "`o00ooo1"}, "RLE"),
    ],
)
def test_broken_areas_are_refused_before_c_code_sees_them(segmentation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_segmentation(segmentation, SIZE)


ANYTHING = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["size", "counts", "all_points_x"]), inner),
    max_leaves=12,
)


@settings(max_examples=100)
@given(ANYTHING | st.fixed_dictionaries({"size": st.just(list(SIZE)), "counts": st.text("0123456789PQRSTabcdeno", max_size=20)}))
def test_no_annotation_does_more_than_raise_value_error(segmentation: Any) -> None:
    try:
        rle, skipped = from_segmentation(segmentation, SIZE)
    except ValueError:
        return
    assert skipped >= 0
    assert rle is None or decode(rle).shape == SIZE


# masks of the folder format


def test_smaller_objects_lie_on_top_and_the_largest_is_one() -> None:
    hand, person, apart = square(4, 4, 6, 6), square(), square(20, 12, 25, 15)
    mask = to_folder_mask(Labels(tuple(map(encode, (hand, person, apart)))), SIZE)
    expected = np.where(hand, 3, np.where(apart, 2, np.where(person, 1, 0)))
    np.testing.assert_array_equal(mask.ids, expected)
    assert (mask.objects, mask.left_out) == (3, 0)


def test_objects_lie_over_what_is_ignored() -> None:
    ignore = square(0, 0, 20, 20)
    mask = to_folder_mask(Labels((encode(square()),), ignore=ignore), SIZE)
    np.testing.assert_array_equal(mask.ids, np.where(square(), 1, np.where(ignore, 255, 0)))


@pytest.mark.parametrize("as_map", [True, False])
def test_of_more_than_254_objects_the_largest_are_kept_and_the_others_ignored(as_map: bool) -> None:
    """300 objects: number n is of two pixels where n is divisible by three, of one otherwise."""
    ids = np.zeros((20, 60), np.int64)
    ids.ravel()[: 300 * 2] = [n if half == 0 or n % 3 == 0 else 0 for n in range(1, 301) for half in (0, 1)]
    source = Labels(ids=ids) if as_map else Labels(tuple(encode(ids == n) for n in range(1, 301)))
    mask = to_folder_mask(source, ids.shape)
    assert (mask.objects, mask.left_out) == (254, 46)
    kept = [n for n in range(1, 301) if n % 3 == 0] + [n for n in range(1, 301) if n % 3][:154]
    for number, n in enumerate(kept, start=1):
        np.testing.assert_array_equal(mask.ids == number, ids == n)
    np.testing.assert_array_equal(mask.ids == 255, (ids > 0) & ~np.isin(ids, kept))


def test_ids_of_a_map_stay_where_they_fit_and_are_numbered_by_size_where_not() -> None:
    ids = np.zeros(SIZE, np.int64)
    ids[:3, :3], ids[5:7, 5:7] = 200, 17
    np.testing.assert_array_equal(to_folder_mask(Labels(ids=ids), SIZE).ids, ids)
    ids[5:7, 5:7] = 26000
    np.testing.assert_array_equal(
        to_folder_mask(Labels(ids=ids), SIZE).ids, np.where(ids == 26000, 2, np.where(ids == 200, 1, 0))
    )


# layouts and names


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../../x.jpg", "..\\..\\x.jpg", "", None, 7, "x\0.jpg"])
def test_names_that_lead_out_of_the_data_set_are_refused(name: Any, tmp_path: Path) -> None:
    reader = coco(tmp_path, file_name=name)
    with pytest.raises(ValueError, match=r"leads out of the data set; refused|is no file name"):
        list(reader.items(tmp_path))
    write(tmp_path / "via.json", {"x": {"filename": name, "regions": []}})
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"leads out of the data set; refused|has no file name|is no file name"):
        list(PolygonJson((("via.json", "images"),), VIA).items(tmp_path))
    write(tmp_path / "video.json", {"videos": [{"id": 1, "file_names": [name]}], "annotations": []})
    with pytest.raises(ValueError, match=r"leads out of the data set; refused|is no file name"):
        list(CocoVideoJson((("video.json", "images"),)).items(tmp_path))


def test_names_in_a_table_are_not_trusted_either(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "ImageId,EncodedPixels\n../../secret,1 2\n")
    with pytest.raises(ValueError, match="refused"):
        list(RunLengthCsv((("t.csv", "images/{0}.png"),)).items(tmp_path))
    write(tmp_path / "t.csv", "ImageId,EncodedPixels\n/etc/passwd,1 2\n")
    with pytest.raises(ValueError, match="refused"):
        list(RunLengthCsv((("t.csv", "{0}.png"),)).items(tmp_path))


def test_links_that_lead_out_are_followed_for_the_folder_but_not_for_a_name(tmp_path: Path) -> None:
    """Who links a folder of images to another disk means it; an archive that brings a link does not say so."""
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk" / "a.jpg", "")
    write(tmp_path / "secret.jpg", "")
    (tmp_path / "disk" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "images").symlink_to(tmp_path / "disk")
    assert inside(tmp_path / "images", "a.jpg").is_file()
    with pytest.raises(ValueError, match="refused"):
        inside(tmp_path / "images", "link.jpg")


def test_two_stars_stand_for_folders_and_one_for_a_name(tmp_path: Path) -> None:
    for name in ("a/b/x_seg.png", "a/y_seg.png", "a/b/x.png", "z_seg.png"):
        write(tmp_path / "labels" / name, "")
    assert [groups for _, groups in matches(tmp_path, "labels/**/*_seg.png")] == [("a/b", "x"), ("a", "y")]
    with pytest.raises(LayoutError, match=r"labels/\*/\*\.jpg: missing"):
        matches(tmp_path, "labels/*/*.jpg")


def test_names_become_file_names() -> None:
    assert name_of("a/b", "c (d): é.x") == "a_b_c _d__ é.x"
    assert name_of("../x") == "_x"
    assert name_of("...") == "_"
    assert len(name_of("y" * 500)) == 120


@pytest.mark.parametrize(
    "content", ["", "[1, 2", "[" * 100_000, "{}", '{"images": 3}', '{"images": [], "annotations": [7]}', "[]"]
)
def test_damaged_annotation_files_are_named_in_a_line(content: str, tmp_path: Path) -> None:
    write(tmp_path / "labels.json", content)
    with pytest.raises(ValueError, match=r"labels\.json: ") as caught:
        list(CocoJson((("labels.json", "images"),)).items(tmp_path))
    assert "\n" not in str(caught.value)


# kinds


def test_crowds_are_ignored_and_nothing_is_no_object(tmp_path: Path) -> None:
    found = labels(coco(tmp_path, iscrowd=1), tmp_path)
    assert not found.objects
    np.testing.assert_array_equal(found.ignore, square())
    assert labels(coco(tmp_path, segmentation=None), tmp_path).skipped == 1


def test_coco_sizes_must_be_those_of_the_image(tmp_path: Path) -> None:
    for size in ((20, 31), (None, None), (10**9, 10**9)):
        reader = coco(tmp_path, size=size)
        with pytest.raises(ValueError, match=r"labels\.json: says .* pixels, the image has 30 x 20"):
            labels(reader, tmp_path)


def test_a_broken_annotation_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.json: annotation 77: a polygon far outside"):
        labels(coco(tmp_path, segmentation=[[0, 0, 1, 1, 5000, 5000]]), tmp_path)


def test_every_frame_of_a_video_can_be_read_and_null_frames_have_no_object(tmp_path: Path) -> None:
    names = [f"v/{i}.jpg" for i in range(3)]
    tracks = [{"id": 1, "video_id": 9, "segmentations": [None, [SQUARE]]}]
    video = {"id": 9, "file_names": names, "height": 20, "width": 30}
    write(tmp_path / "a.json", {"videos": [video], "annotations": tracks})
    items = list(CocoVideoJson((("a.json", "frames"),)).items(tmp_path))
    assert [item.name for item in items] == ["v_0", "v_1", "v_2"]
    assert [len(item.labels(SIZE).objects) for item in items] == [0, 1, 0]
    (first,) = CocoVideoJson((("a.json", "frames"),), first_frame_only=True).items(tmp_path)
    assert first.name == "v_1"


def test_labelme_files_are_read_one_an_image(tmp_path: Path) -> None:
    shapes = [
        {"label": "roof", "points": [[2, 3], [12, 3], [12, 9], [2, 9]], "shape_type": "polygon"},
        {"label": "unclear", "points": [[20.0, 12.0], [25, 12], [25, 15], [20, 15]], "shape_type": "polygon"},
        {"label": "roof", "points": [[1, 1], [5, 5]], "shape_type": "rectangle"},
    ]
    write(tmp_path / "json" / "a.b.json", {"shapes": shapes, "imagePath": "..\\x.jpg", "imageHeight": 20, "imageWidth": 30})
    save(tmp_path / "images" / "a.b.jpg", np.zeros((20, 30, 3), np.uint8))
    reader = PolygonJson((("json/*.json", "images"),), LABELME, ignored=("unclear",))
    (item,) = reader.items(tmp_path)
    assert (item.name, item.image) == ("a.b", tmp_path / "images" / "a.b.jpg")
    found = item.labels(SIZE)
    assert (len(found.objects), found.skipped) == (1, 1)
    np.testing.assert_array_equal(decode(found.objects[0]), square())
    np.testing.assert_array_equal(found.ignore, square(20, 12, 25, 15))
    with pytest.raises(ValueError, match=r"a\.b\.json: says 20 pixels high, the image has 21"):
        item.labels((21, 30))


def test_circles_of_via_are_skipped_and_counted(tmp_path: Path) -> None:
    regions = [{"shape_attributes": {"name": "circle", "cx": 4, "cy": 4, "r": 2}}, {"region_attributes": {}}]
    write(tmp_path / "v.json", {"a.jpg1": {"filename": "a.jpg", "regions": regions}})
    (tmp_path / "images").mkdir()
    found = labels(PolygonJson((("v.json", "images"),), VIA), tmp_path)
    assert (found.objects, found.skipped) == ((), 1)


def test_frames_of_many_videos_are_found_by_their_names(tmp_path: Path) -> None:
    for video in ("P01", "P02"):
        save(tmp_path / "frames" / video / f"{video}_1.jpg", np.zeros((20, 30, 3), np.uint8))
        about = {"name": f"{video}_1.jpg", "subsequence": "s"}
        write(tmp_path / f"{video}.json", {"video_annotations": [{"image": about, "annotations": []}]})
    items = list(PolygonJson((("*.json", "frames/*"),), VISOR).items(tmp_path))
    assert [item.image.relative_to(tmp_path).as_posix() for item in items] == ["frames/P01/P01_1.jpg", "frames/P02/P02_1.jpg"]
