"""What people write down about objects is understood, or refused with the place where it goes wrong."""

import json
from pathlib import Path

import pytest

from ruac.label.images import ImageFile, find_images
from ruac.label.prompts import Category, Wanted, match, read_prompts

COCO = {
    "images": [{"id": 7, "file_name": "a.jpg", "width": 80, "height": 48}],
    "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 9, "name": "dog"}],
    "annotations": [{"id": 5, "image_id": 7, "category_id": 9, "bbox": [10, 5, 30, 20]}],
}


def written(folder: Path, content: object, name: str = "prompts.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_json_names_objects_by_boxes_points_and_labels(tmp_path: Path) -> None:
    told = read_prompts(
        written(
            tmp_path,
            {"a.jpg": [{"box": [1, 2, 30, 40], "label": "cat"}, {"points": [[3, 4], [5, 6, 0]], "label": "dog"}], "b": []},
        )
    )
    assert told.categories == (Category(1, "cat"), Category(2, "dog"))
    (first, second) = told.wanted["a.jpg"]
    assert (first.category, first.box, first.points) == (1, (1, 2, 30, 40), ())
    assert (second.category, second.box, second.points) == (2, None, ((3, 4, 1), (5, 6, 0)))
    assert list(told.wanted) == ["a.jpg"]


def test_csv_rows_of_an_object_belong_together(tmp_path: Path) -> None:
    rows = ["image,x,y,label,object,category", "a.jpg,3,4,1,first,cat", "b.jpg,1,1,,first,dog", "a.jpg,5,6,0,first,cat"]
    rows += ["a.jpg,7,8,1,second,dog"]
    told = read_prompts(written(tmp_path, "\ufeff" + "\n".join(rows), "p.csv"))
    assert [w.points for w in told.wanted["a.jpg"]] == [((3, 4, 1), (5, 6, 0)), ((7, 8, 1),)]
    assert [w.points for w in told.wanted["b.jpg"]] == [((1, 1, 1),)]
    assert [c.name for c in told.categories] == ["cat", "dog"]


def test_csv_without_objects_makes_every_row_one(tmp_path: Path) -> None:
    told = read_prompts(written(tmp_path, "image,x,y\na.jpg,3,4\na.jpg,5,6\n", "p.csv"))
    assert [w.points for w in told.wanted["a.jpg"]] == [((3, 4, 1),), ((5, 6, 1),)]


def test_coco_gives_its_boxes_and_keeps_its_categories(tmp_path: Path) -> None:
    told = read_prompts(written(tmp_path, COCO))
    assert told.categories == (Category(3, "cat", "animal"), Category(9, "dog"))
    assert [(w.category, w.box) for w in told.wanted["a.jpg"]] == [(9, (10, 5, 40, 25))]
    assert told.sizes == {"a.jpg": (48, 80)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "an empty file"),
        ("  \n", "an empty file"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"a.jpg": [{"box": [1, 2, 3, 4]}], "a.jpg": [{"box": [5, 6, 7, 8]}]}', "'a.jpg' 2 times in one object"),
        ([], "got a list"),
        ({}, "names no object"),
        ({"a.jpg": []}, "names no object"),
        ({"a.jpg": {}}, "'a.jpg': expected a list of objects"),
        ({"a.jpg": [3]}, "'a.jpg', object 1: expected box, points and label"),
        ({"a.jpg": [{"box": [1, 2, 3, 4], "colour": "red"}]}, "object 1: expected box"),
        ({"a.jpg": [{"label": "cat"}]}, "object 1: neither a box nor a point"),
        ({"a.jpg": [{"points": [[1, 2, 0]]}]}, "object 1: no point on the object"),
        ({"a.jpg": [{"box": [1, 2, 3, 4]}, {"box": [1, 2, 3]}]}, "object 2: a box has 4 numbers, got 3"),
        ({"a.jpg": [{"box": [9, 2, 3, 4]}]}, "object 1: box (9, 2, 3, 4) is empty or inside out"),
        ({"a.jpg": [{"box": "wide"}]}, "object 1: box must be a list"),
        ({"a.jpg": [{"box": [1, 2, 3, True]}]}, "box must be a finite number"),
        ('{"a.jpg": [{"box": [1, 2, 3, NaN]}]}', "object 1: box must be a finite number, got 'nan'"),
        ('{"a.jpg": [{"points": [[1e999, 2]]}]}', "point must be a finite number"),
        ({"a.jpg": [{"points": [[1, 2, 3]]}]}, "a point's label is 1 (on the object) or 0"),
        ({"a.jpg": [{"points": [[1]]}]}, "a point is x, y and maybe a label"),
        ({"a.jpg": [{"box": [1, 2, 3, 4], "label": 3}]}, "label must be a word"),
        ({**COCO, "annotations": []}, "has no annotation"),
        ({**COCO, "images": []}, "annotation 5: its image_id 7 is none of the images"),
        ({**COCO, "categories": []}, "annotation 5: its category_id 9 is none of the categories"),
        ({**COCO, "annotations": [{**COCO["annotations"][0], "bbox": [1, 2, 0, 4]}]}, "annotation 5: box (1, 2, 1, 6) is empty"),
        ({**COCO, "annotations": [3]}, "not as expected"),
        ({**COCO, "images": [{"file_name": "a.jpg"}]}, "not as expected"),
    ],
)
def test_json_that_makes_no_sense_is_refused_with_its_place(tmp_path: Path, content: object, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ValueError) as refused:  # noqa: PT011  the message is compared as it is
        read_prompts(path)
    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,x\na.jpg,3\n", "line 1: no column 'y'"),
        ("image,x,y,z\n", "line 1: unknown column 'z'"),
        ("image,x,y,x\n", "line 1: a column twice"),
        ("image,x,y\n", "a header, but no point"),
        ("image,x,y\na.jpg,3,4\na.jpg,3\n", "line 3: expected 3 columns"),
        ("image,x,y\na.jpg,3,4,5\n", "line 2: expected 3 columns"),
        ("image,x,y\na.jpg,3,wide\n", "line 2: y must be a finite number, got 'wide'"),
        ("image,x,y\na.jpg,nan,4\n", "line 2: x must be a finite number"),
        ("image,x,y\na.jpg,,4\n", "line 2"),
        ("image,x,y,label\na.jpg,3,4,2\n", "line 2: a point's label"),
        ("image,x,y\n,3,4\n", "line 2: names no image"),
        ("image,x,y,label\na.jpg,3,4,0\n", "line 2: no point on the object"),
        ("image,x,y,object,category\na.jpg,3,4,1,cat\na.jpg,3,4,1,dog\n", "line 3: object '1' of 'a.jpg' has another category"),
    ],
)
def test_csv_that_makes_no_sense_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, content, "p.csv")
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        read_prompts(path)
    assert f"{path}: {message}" in str(refused.value)


def test_a_picture_as_prompts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match="not a text file"):
        read_prompts(tmp_path / "p.json")


def test_images_are_matched_by_path_or_by_name_where_that_is_clear(tmp_path: Path) -> None:
    files = [ImageFile(tmp_path / name, name) for name in ("one/a.jpg", "two/a.jpg", "two/b.jpg")]
    told = read_prompts(written(tmp_path, {"two/a.jpg": [{"box": [1, 2, 3, 4]}], "b.jpg": [{"points": [[1, 2]]}]}))
    assert [task.image.name for task in match(told, files)] == ["two/a.jpg", "two/b.jpg"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg"], "'a.jpg' may be"),
        (["c.jpg"], "no image 'c.jpg' among the 3 images"),
        (["b.jpg", "two/b.jpg"], "are the same image"),
    ],
)
def test_names_that_fit_no_image_or_several_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    files = [ImageFile(tmp_path / name, name) for name in ("one/a.jpg", "two/a.jpg", "two/b.jpg")]
    told = read_prompts(written(tmp_path, {name: [{"box": [1, 2, 3, 4]}] for name in names}))
    with pytest.raises(ValueError, match=message):
        match(told, files)


def test_a_box_that_was_rounded_beyond_the_edge_is_clipped() -> None:
    assert Wanted(1, "here", (), (-0.6, 0, 80.5, 48.9)).fit((48, 80)).box == (0, 0, 80, 48)


@pytest.mark.parametrize(
    ("points", "box", "message"),
    [
        ((), (0.0, 0.0, 82.0, 48.0), "here: box (0, 0, 82, 48) leaves the image of 80 x 48 pixels"),
        ((), (80.2, 3.0, 80.9, 9.0), "is outside the image"),
        (((80.0, 3.0, 1),), None, "here: point (80, 3) is outside the image of 80 x 48 pixels"),
    ],
)
def test_what_lies_outside_the_image_is_refused(points: tuple, box: tuple | None, message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        Wanted(1, "here", points, box).fit((48, 80))
    assert message in str(refused.value)


def test_images_of_folders_and_patterns_are_found_once_and_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "in/b.JPG", "in/a.png", "in/deep/c.webp", "in/.hidden/d.png", "in/notes.txt", "in/labels/masks/a.png")
    found = find_images([str(tmp_path / "in" / "*.png"), str(tmp_path / "in")], tmp_path / "in" / "labels")
    assert [file.name for file in found.files] == ["a.png", "b.JPG", "deep/c.webp"]
    assert found.root == tmp_path / "in"


def test_a_file_with_the_letters_of_a_pattern_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].png", "a1.png")
    found = find_images([str(tmp_path / "a[1].png")], tmp_path / "out")
    assert [file.name for file in found.files] == ["a[1].png"]


@pytest.mark.parametrize("word", ["empty", "*.gif"])
def test_folders_and_patterns_without_images_are_refused(tmp_path: Path, word: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image"):
        find_images([str(tmp_path / word)], tmp_path / "out")
