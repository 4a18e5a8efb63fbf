"""`ruac convert-labels` as a person uses it, and with files that are broken or mean harm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_sets import FACTS, cell, masks_of, set_of
from PIL import Image

from ruac.cli import main
from ruac.exchange import coco
from ruac.exchange.command import read_labels

SIZE = 60, 80


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    Image.new("RGB", (SIZE[1], SIZE[0]), "red").save(folder / "deep" / "a.png")
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    file = tmp_path / "labels.json"
    file.write_bytes(coco.write(set_of(cell(), cell() ^ cell()[::-1], name="deep/a.png", **FACTS)))
    return file


def broken(tmp_path: Path, content: Any) -> Path:
    file = tmp_path / "broken.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_labels_go_through_every_format_and_come_back(labels: Path, photos: Path, tmp_path: Path) -> None:
    """Through the real command."""

    def convert(source: Path, to: str, out: Path, *more: str) -> str:
        words = ["convert-labels", source, "--to", to, "--out", out, "--images", photos, *more]
        done = subprocess.run([sys.executable, "-m", "ruac", *map(str, words)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    masks = masks_of(read_labels(labels).labels)
    assert convert(labels, "yolo", tmp_path / "yolo") == f"{tmp_path / 'yolo'}: 2 objects in 1 picture\n"
    assert (tmp_path / "yolo" / "images" / "deep" / "a.png").read_bytes() == (photos / "deep" / "a.png").read_bytes()
    convert(tmp_path / "yolo", "cvat", tmp_path / "cvat.xml")
    convert(tmp_path / "cvat.xml", "label-studio", tmp_path / "tasks.json", "--shape", "polygon")
    convert(tmp_path / "tasks.json", "coco", tmp_path / "again.json")
    again = read_labels(tmp_path / "again.json").labels
    assert again.pictures[0].file_name == "deep/a.png"
    for mask, back in zip(masks, masks_of(again), strict=True):
        np.testing.assert_array_equal(back, mask)


def test_bad_annotation_is_listed_and_the_others_are_converted(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(labels.read_text())
    good = data["annotations"][0]
    data["annotations"] += [
        good | {"segmentation": {"size": [60, 81], "counts": "00"}},
        good | {"image_id": 99},
        good | {"category_id": [1]},
        good | {"score": "high"},
        good | {"segmentation": [[1, 2, 3, 4, 5, 1e9]]},
        good | {"segmentation": [[0, 0, 800, 600] * 9000]},
        good | {"segmentation": None, "bbox": [70, 50, 20, 20]},
    ]
    data["images"] += [{"id": 7, "file_name": "huge.png", "width": 10**6, "height": 10**6}, {"id": 8, "file_name": "x\x00.png"}]
    out = tmp_path / "out.xml"
    assert main(["convert-labels", str(broken(tmp_path, data)), "--to", "cvat", "--out", str(out)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "ruac: 9 could not be converted:"
    messages = (
        "image 2: 1000000 x 1000000 pixels",
        "image 3: file_name: 'x\\x00.png' is no name",
        "annotation 3: run lengths of size [60, 81]",
        "annotation 4: image_id 99: no such image",
        "annotation 5: [1] is no id",
        "annotation 6: score: 'high' is no number",
        "annotation 7: a polygon far outside",
        "annotation 8: a polygon with an outline",
        "annotation 9: a box [70, 50, 20, 20]",
    )
    assert len(lines) == 10
    for message, line in zip(messages, lines[1:], strict=True):
        assert line.startswith(message)
    assert read_labels(out).labels.count == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"images": [NaN]}', "not JSON (NaN is no number)"),
        ('{"images": [1e999]}', "not JSON (a number: '1e999' is no number)"),
        ("7", "neither COCO nor Label Studio's export nor GeoJSON"),
        ('{"shapes": []}', "neither COCO"),
        ('{"images": {}}', "'categories' must be a list of objects"),
        ('{"images": [], "categories": [{"id": 1}], "annotations": []}', "a category: 'None' is no name"),
        ('{"images": [], "categories": [{"name": "cat"}], "annotations": []}', "without an id"),
        ('{"type": "FeatureCollection"}', "say with --images"),
        ("<annotations", "not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "document type declaration; refused"),
        ("<html></html>", "not 'CVAT for images 1.1'"),
        ("<annotations><track/></annotations>", "not 'CVAT for images 1.1'"),
    ],
)
def test_what_is_no_label_file_is_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    file = broken(tmp_path, content)
    assert main(["convert-labels", str(file), "--to", "coco", "--out", str(tmp_path / "out.json")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"ruac: {file}: ")
    assert message in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "yolo", "--out", "labels.json"], "a file, not a folder"),
        (["--to", "coco", "--out", "photos"], "a folder; name the file"),
        (["--to", "coco", "--out", "nowhere/x.json"], "there is no folder nowhere"),
        (["--to", "yolo", "--out", "o", "--shape", "mask"], "--shape mask: yolo has polygons only"),
        (["--to", "geojson", "--out", "o"], "needs --images"),
        (["--to", "coco", "--out", "o", "--tolerance", "-1"], "--tolerance -1"),
        (["--to", "coco", "--out", "o", "--tolerance", "nan"], "nan"),
        (["--to", "coco", "--out", "o", "--images", "nowhere"], "nowhere: no such folder"),
        (["--to", "png", "--out", "o"], "png"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    labels: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert-labels", str(labels), *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "deep/../../a.png", "..\\a.png", ".."])
def test_file_names_do_not_lead_out_of_the_folder(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = broken(tmp_path, coco.write(set_of(cell(), name=name)).decode())
    out = tmp_path / "out" / "yolo"
    assert main(["convert-labels", str(file), "--to", "yolo", "--out", str(out)]) == 2
    assert "leads out" in capsys.readouterr().err
    assert not out.exists()
    assert main(["convert-labels", str(file), "--to", "coco", "--out", str(tmp_path / "o.json"), "--images", str(photos)]) == 1
    assert "leads out" in capsys.readouterr().err


def test_pictures_of_another_size_are_named(
    labels: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (SIZE[1], SIZE[0])).save(photos / "deep" / "a.png", exif=exif)
    assert main(["convert-labels", str(labels), "--to", "coco", "--out", str(tmp_path / "o.json"), "--images", str(photos)]) == 1
    assert "a.png: 60 x 80 pixels; the labels are for 80 x 60" in capsys.readouterr().err


def test_pictures_that_would_share_a_yolo_file_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(coco.write(set_of(cell(), name="a.png")))
    data["images"].append({"id": 2, "file_name": "a.jpg", "width": 80, "height": 60})
    assert main(["convert-labels", str(broken(tmp_path, data)), "--to", "yolo", "--out", str(tmp_path / "o")]) == 2
    assert "a.png and a.jpg would have the same a.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7 0.1 0.1 0.2 0.2 0.3 0.1", "class '7' is not among the names"),
        ("cat 0.1 0.1 0.2 0.2 0.3 0.1", "class 'cat'"),
        ("0 0.1 0.1 0.2 0.2 0.3", "5 numbers after the class"),
        ("0 0.1 0.1", "2 numbers after the class"),
        ("0 nan 0.1 0.2 0.2 0.3 0.1", "a coordinate: 'nan' is no number"),
        ("0 10 10 20 20 30 10", "coordinates that are no shares"),
    ],
)
def test_broken_yolo_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "images" / "a.png")
    (tmp_path / "data.yaml").write_text("names: {0: cat}\n")
    (tmp_path / "labels" / "a.txt").write_text(f"0 0.1 0.1 0.5 0.1 0.5 0.5\n{line}\n")
    reading = read_labels(tmp_path)
    assert reading.labels.count == 1
    (problem,) = reading.problems
    assert problem.startswith(f"{tmp_path / 'labels' / 'a.txt'}, line 2: {message}")


@pytest.mark.parametrize(
    "names", ["7", "names: 3", "names: {x: cat}", "names: ['']", "!!python/object:os.system {}", "a: [", "- 1"]
)
def test_yolo_config_without_names_is_refused(tmp_path: Path, names: str) -> None:
    (tmp_path / "data.yaml").write_text(names)
    with pytest.raises(ValueError, match=r"data\.yaml: no 'names' of the classes"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ('rle="0, 4" left="79" top="0" width="2" height="2"', "leaves the picture"),
        ('rle="0, 5" left="0" top="0" width="2" height="2"', "do not fit 2 x 2"),
        ('rle="9, -5" left="0" top="0" width="2" height="2"', "do not fit 2 x 2"),
        (f'rle="{10**18}, {10**18}" left="0" top="0" width="2" height="2"', "do not fit 2 x 2"),
        ('rle="" left="0" top="0" width="2" height="2"', "rle: '' is no number"),
        ('rle="0, 4" top="0" width="2" height="2"', "left: 'None' is no number"),
        ('rle="0, 4" left="inf" top="0" width="2" height="2"', "left: 'inf' is no number"),
    ],
)
def test_broken_cvat_masks_are_named(tmp_path: Path, attributes: str, message: str) -> None:
    good = '<polygon label="cat" points="1,1;5,1;5,5"/>'
    image = f'<image id="0" name="a.png" width="80" height="60"><mask label="cat" {attributes}/>{good}</image>'
    reading = read_labels(broken(tmp_path, f"<annotations>{image}</annotations>"))
    assert reading.labels.count == 1
    (problem,) = reading.problems
    assert problem.startswith("a.png, shape 1: ")
    assert message in problem


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"original_width": 81}, "a brush that is not of 81 x 60 pixels"),
        ({"original_width": 10**9}, "no size of a picture"),
        ({"value": {"rle": [0, 0, 75, 0], "brushlabels": ["cat"]}}, "a brush that ends too early"),
        ({"value": {"rle": "abc", "brushlabels": ["cat"]}}, "no list of bytes"),
        ({"value": {"rle": [300], "brushlabels": ["cat"]}}, "no list of bytes"),
        ({"value": {"points": [[0, 0], [1, 1]], "brushlabels": ["cat"]}}, "less than three points"),
        ({"value": {"points": [[0, 0], [1, None], [2, 2]], "brushlabels": ["cat"]}}, "far outside"),
        ({"value": {"x": 1, "y": 2, "width": 3, "height": 400, "brushlabels": ["cat"]}}, "no percentages"),
        ({"value": {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 9, "brushlabels": ["cat"]}}, "turned"),
        ({"value": {"x": 1, "y": 2, "width": 3, "height": 4, "brushlabels": []}}, "brushlabels: 'None' is no name"),
        ({"value": None}, "without a value"),
    ],
)
def test_broken_label_studio_regions_are_named(labels: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    assert main(["convert-labels", str(labels), "--to", "label-studio", "--out", str(tmp_path / "tasks.json")]) == 0
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    task["predictions"][0]["result"][0] |= change
    reading = read_labels(broken(tmp_path, [task, {"data": 3}, 5]))
    assert reading.labels.count == 1
    problem, *others = reading.problems
    assert problem.startswith("task 1, region 1: ")
    assert message in problem
    assert len(others) == 2
