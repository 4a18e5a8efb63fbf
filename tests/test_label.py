"""`ruac label`: many masks, the worst first, and nothing lost when it is stopped."""

import csv
import json
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from squares import write_set

from ruac.calibrate.bounds import Bounds
from ruac.calibrate.command import calibrate
from ruac.calibrate.shift import Traits
from ruac.cli import main
from ruac.data.labels import encode
from ruac.everything import Window
from ruac.label.budget import Budget, parse_budget, plan
from ruac.label.coco import index_map, index_png
from ruac.label.measure import measure
from ruac.label.part import Label, Part
from ruac.label.review import reason
from ruac.label.thumbnail import draw, view_of
from ruac.model import RuacModel
from ruac.overlay import INNER, OUTER
from ruac.predictor import Predictor
from ruac.regions import band_around

HEIGHT, WIDTH = 48, 80


def photos(folder: Path, count: int) -> list[str]:
    """Small pictures of noise, in two folders with the same names."""
    rng = np.random.default_rng(0)
    names = [f"{'ab'[i % 2]}/{i // 2:03}.png" for i in range(count)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / name)
    return names


def boxes(folder: Path, names: list[str]) -> Path:
    """Two objects an image, of two kinds."""
    path = folder / "boxes.json"
    objects = [{"box": [10, 8, 60, 40], "label": "cat"}, {"points": [[30, 20, 1], [2, 2, 0]], "label": "dog"}]
    path.write_text(json.dumps(dict.fromkeys(names, objects)))
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fake(area: int = 500, **others: object) -> Label:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask.flat[:area] = True
    values = {
        "category": 1,
        "counts": encode(mask)["counts"].decode(),
        "bbox": (5, 5, 20, 20),
        "area": area,
        "score": 0.9,
        "expected_iou": 0.9,
        "mean_uncertainty": 0.1,
        "object_score": None,
        "next_click": (3, 4, 1),
    }
    return Label(**(values | others))


@pytest.fixture
def labelled(tmp_path: Path, tiny_model_folder: Path) -> Path:
    """Four images of two objects, through the command."""
    names = photos(tmp_path / "in", 4)
    words = ["label", tmp_path / "in", "--prompts", boxes(tmp_path, names), "--model", tiny_model_folder, "--budget", "3"]
    assert main([*map(str, words), "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def test_labels_are_coco_that_its_own_library_reads(labelled: Path) -> None:
    coco = COCO(str(labelled / "labels.json"))
    assert [image["file_name"] for image in coco.dataset["images"]] == ["a/000.png", "a/001.png", "b/000.png", "b/001.png"]
    assert [category["name"] for category in coco.dataset["categories"]] == ["cat", "dog"]
    assert len(coco.anns) == 8
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        assert mask.shape == (HEIGHT, WIDTH)
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
        assert annotation["iscrowd"] == 0
        assert all(0 <= annotation[name] <= 1 for name in ("score", "expected_iou", "mean_uncertainty", "object_score"))


def test_masks_are_those_of_the_predictor(labelled: Path, tmp_path: Path, tiny_model: RuacModel) -> None:
    coco = COCO(str(labelled / "labels.json"))
    predictor = Predictor(tiny_model)
    predictor.set_image(tmp_path / "in" / "a" / "000.png")
    answer = predictor.predict([[30, 20], [2, 2]], [1, 0])
    annotation = coco.anns[2]
    assert (coco.annToMask(annotation) == answer.masks[0]).mean() > 0.999
    band = band_around(answer.masks[0], answer.masks[0])
    assert annotation["mean_uncertainty"] == pytest.approx(answer.uncertainty[0][band].mean(), abs=1e-3)
    click = Predictor.next_click(answer)
    assert annotation["next_click"] == {"x": click.x, "y": click.y, "label": click.label}


def test_the_queue_is_worst_first_and_as_long_as_the_budget(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((labelled / "labels.json").read_text())
    rows = list(csv.DictReader((labelled / "review.csv").open()))
    expected = [float(row["expected_iou"]) for row in rows]
    assert len(rows) == 8
    assert expected == sorted(expected)
    assert [row["review"] for row in rows] == ["yes"] * 3 + ["no"] * 5
    flagged = {annotation["id"] for annotation in content["annotations"] if annotation["review"]}
    assert flagged == {int(row["annotation"]) for row in rows[:3]}
    by_id = {annotation["id"]: annotation for annotation in content["annotations"]}
    assert expected[0] == pytest.approx(min(a["expected_iou"] for a in by_id.values()), abs=1e-4)
    before = np.mean([a["expected_iou"] for a in by_id.values()])
    after = (3 + sum(sorted(a["expected_iou"] for a in by_id.values())[3:])) / 8
    assert content["info"]["review"] == {
        "masks": 3,
        "expected_mean_iou": pytest.approx(before, abs=1e-6),
        "expected_mean_iou_after": pytest.approx(after, abs=1e-6),
    }


def test_mask_files_are_named_apart_and_numbered_by_object(labelled: Path) -> None:
    assert sorted(path.name for path in (labelled / "masks").iterdir()) == ["000.png", "000_2.png", "001.png", "001_2.png"]
    coco = COCO(str(labelled / "labels.json"))
    image = coco.imgs[3]
    assert image["mask_file"] == "masks/000_2.png"
    picture = Image.open(labelled / image["mask_file"])
    assert picture.mode == "P"
    ids = np.asarray(picture)
    whole = np.zeros((HEIGHT, WIDTH), bool)
    for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[3])):
        whole |= coco.annToMask(annotation).astype(bool)
    np.testing.assert_array_equal(ids > 0, whole)


def test_a_second_run_does_nothing_again_but_takes_another_budget(
    labelled: Path, tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(labelled)
    monkeypatch.setattr(Predictor, "set_image", lambda *_: pytest.fail("an image was encoded again"))
    words = ["label", tmp_path / "in", "--prompts", tmp_path / "boxes.json", "--model", tiny_model_folder, "--out", labelled]
    assert main([*map(str, words), "--budget", "3"]) == 0
    assert files_of(labelled) == before
    assert main([*map(str, words), "--budget", "50%"]) == 0
    after = files_of(labelled)
    assert {name for name in before if before[name] != after[name]} == {"labels.json", "review.csv", "review.html"}


def test_changed_prompts_are_done_again_for_their_image_alone(
    labelled: Path, tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "boxes.json"
    content = json.loads(path.read_text())
    content["b/001.png"][0]["box"] = [12, 8, 60, 40]
    path.write_text(json.dumps(content))
    encoded = []
    set_image = Predictor.set_image
    monkeypatch.setattr(Predictor, "set_image", lambda self, image: (encoded.append(1), set_image(self, image)))
    words = ["label", tmp_path / "in", "--prompts", path, "--model", tiny_model_folder, "--out", labelled]
    assert main([*map(str, words)]) == 0
    assert len(encoded) == 1


def test_a_mask_file_that_is_gone_is_written_again(labelled: Path, tmp_path: Path, tiny_model_folder: Path) -> None:
    content = (labelled / "masks" / "001.png").read_bytes()
    (labelled / "masks" / "001.png").unlink()
    words = ["label", tmp_path / "in", "--prompts", tmp_path / "boxes.json", "--model", tiny_model_folder, "--out", labelled]
    assert main([*map(str, words)]) == 0
    assert (labelled / "masks" / "001.png").read_bytes() == content


def test_everything_needs_no_prompts(tmp_path: Path, tiny_model_folder: Path) -> None:
    photos(tmp_path / "in", 2)
    out = tmp_path / "out"
    words = [
        "label",
        tmp_path / "in",
        "--everything",
        "--grid",
        "3",
        "--least",
        "0.0",
        "--model",
        tiny_model_folder,
        "--out",
        out,
    ]
    assert main([*map(str, words)]) == 0
    coco = COCO(str(out / "labels.json"))
    assert len(coco.imgs) == 2
    assert len(coco.anns) >= 2
    assert [category["name"] for category in coco.dataset["categories"]] == ["object"]


def test_another_setting_in_the_same_folder_is_refused_in_a_line(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(tmp_path / "in", 1)
    words = ["label", tmp_path / "in", "--everything", "--grid", "2", "--model", tiny_model_folder, "--out", tmp_path / "out"]
    assert main([*map(str, words)]) == 0
    capsys.readouterr()
    words[4] = "3"
    assert main([*map(str, words)]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "made with everything" in shown
    assert "'grid': 2" in shown
    assert "choose another folder" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either --prompts FILE or --everything"),
        (["--everything", "--prompts", "boxes.json"], "either --prompts FILE or --everything"),
        (["--everything", "--budget", "many"], "--budget many: expected a share"),
        (["--everything", "--budget", "101%"], "--budget 101%"),
        (["--everything", "--budget", "2.5"], "--budget 2.5"),
        (["--everything", "--grid", "0"], "the grid has 1 to 128 clicks a side, not 0"),
        (["--prompts", "nowhere.json"], "nowhere.json: No such file"),
        (["--everything", "--out", "in"], "not empty, and not made by this command"),
        (["--everything", "--out", "boxes.json"], "boxes.json: a file, not a folder"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(
    tmp_path: Path,
    tiny_model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    boxes(tmp_path, photos(tmp_path / "in", 1))
    assert main(["label", "in/a/000.png", "--model", str(tiny_model_folder), *options]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert message in shown


def test_bad_images_are_listed_at_the_end_and_the_others_are_done(tmp_path: Path, tiny_model_folder: Path) -> None:
    """Through the real command, as a user would see it."""
    folder, out = tmp_path / "in", tmp_path / "out"
    names = photos(folder, 2)
    (folder / "broken.jpg").write_bytes(b"no picture")
    Image.new("RGB", (20, 20)).save(folder / "small.png")
    prompts = boxes(tmp_path, [*names, "broken.jpg", "small.png"])
    words = ["label", folder, folder / "gone.png", "--prompts", prompts, "--model", tiny_model_folder, "--out", out]
    content = json.loads(prompts.read_text())
    prompts.write_text(json.dumps({**content, "gone.png": content["small.png"]}))
    done = subprocess.run([sys.executable, "-m", "ruac", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "ruac: 3 of 5 images failed:"
    assert lines[1].startswith(f"{folder / 'broken.jpg'}: not an image")
    place = f"{folder / 'small.png'}: {prompts}: 'small.png', object 1: "
    assert lines[2] == f"{place}box (10, 8, 60, 40) leaves the image of 20 x 20 pixels"
    assert lines[3].startswith(f"{folder / 'gone.png'}: no such file")
    assert len(lines) == 4
    assert done.stdout.splitlines()[-1] == f"look at {out / 'review.html'}"
    assert len(json.loads((out / "labels.json").read_text())["images"]) == 2


# `ruac`, but kill -9 comes when so many parts are there and the next is written, but does not have its name yet
KILLED = """
import os, signal, sys
from pathlib import Path
from ruac.cli import main
replace = Path.replace
def replace_or_die(self, target):
    if target.parent.name == "parts" and len(list(target.parent.glob("*.json"))) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = replace_or_die
main(sys.argv[2:])
"""


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, tiny_model: RuacModel) -> None:
    """With a calibration, of which parts have to hold all that it gives."""
    model, data = tmp_path / "model", write_set(tmp_path / "set", 9)
    tiny_model.save_pretrained(model)
    calibrate([data], model=str(model), alpha=[0.3])
    names = photos(tmp_path / "in", 30)
    prompts = tmp_path / "points.json"
    prompts.write_text(json.dumps({name: [{"points": [[30, 20]]}] for name in names}))

    def words(out: str) -> list[str]:
        return [str(word) for word in ("label", tmp_path / "in", "--prompts", prompts, "--model", model, "--out", tmp_path / out)]

    dead = subprocess.run([sys.executable, "-c", KILLED, "11", *words("killed")], capture_output=True)
    assert dead.returncode == -signal.SIGKILL
    parts = tmp_path / "killed" / "parts"
    assert len(list(parts.glob("*.json"))) == 11
    assert len(list(parts.glob(".*.tmp"))) == 1
    assert not (tmp_path / "killed" / "labels.json").exists()
    for out in ("killed", "whole"):
        subprocess.run([sys.executable, "-m", "ruac", *words(out)], check=True, capture_output=True)
    killed, whole = files_of(tmp_path / "killed"), files_of(tmp_path / "whole")
    assert len(whole) == 30 + 30 + 4
    assert killed == whole
    assert all(entry["around"] for part in parts.glob("*.json") for entry in json.loads(part.read_text())["labels"])


def test_a_damaged_part_is_named_with_what_to_do(
    labelled: Path, tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (labelled / "parts" / "000.json").write_text('{"name"')
    words = ["label", tmp_path / "in", "--prompts", tmp_path / "boxes.json", "--model", tiny_model_folder, "--out", labelled]
    assert main([*map(str, words)]) == 2
    assert "parts/000.json: damaged" in capsys.readouterr().err


def test_a_part_that_was_changed_is_named(
    labelled: Path, tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = labelled / "parts" / "000.json"
    stored = json.loads(file.read_text())
    stored["labels"][0]["area"] = "x"
    file.write_text(json.dumps(stored))
    words = ["label", tmp_path / "in", "--prompts", tmp_path / "boxes.json", "--model", tiny_model_folder, "--out", labelled]
    assert main([*map(str, words)]) == 2
    assert "parts/000.json: damaged (changed since it was written)" in capsys.readouterr().err


def test_a_folder_that_leads_elsewhere_is_refused(
    labelled: Path, tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "masks").symlink_to(tmp_path / "elsewhere")
    words = ["label", tmp_path / "in", "--prompts", tmp_path / "boxes.json", "--model", tiny_model_folder]
    assert main([*map(str, words), "--out", str(tmp_path / "other")]) == 2
    assert f"{tmp_path / 'other' / 'masks'}: a link that leads out of the folder" in capsys.readouterr().err
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_pictures_that_lie_in_the_output_folder_are_not_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main(["label", str(tmp_path), "--everything", "--out", str(tmp_path)]) == 2
    assert "leaving out what lies in --out" in capsys.readouterr().err


def test_more_than_255_objects_take_16_bits() -> None:
    def part(count: int) -> Part:
        return Part("x", "", "x.png", HEIGHT, WIDTH, tuple(fake(area) for area in range(1, count + 1)), Traits((), ()))

    small, large = Image.open(BytesIO(index_png(part(255)))), Image.open(BytesIO(index_png(part(256))))
    assert (small.mode, large.mode) == ("P", "I;16")
    for picture, count in ((small, 255), (large, 256)):
        # every object is one pixel larger than the one before and lies under it
        np.testing.assert_array_equal(np.asarray(picture).flat[:count], np.arange(1, count + 1))
        assert not np.asarray(picture).flat[count:].any()


def test_the_smaller_object_lies_on_the_larger_one() -> None:
    ids = index_map(Part("x", "", "x.png", HEIGHT, WIDTH, (fake(10), fake(100)), Traits((), ())))
    assert [np.count_nonzero(ids == i) for i in (1, 2)] == [10, 90]


def test_what_was_found_in_a_window_lies_where_it_belongs_in_the_picture(tiny_model: RuacModel) -> None:
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    window = Window(8, 16, 32, 48, (HEIGHT, WIDTH))
    predictor = Predictor(tiny_model)
    predictor.set_image(window.cut(image))
    answer = predictor.predict([[20, 16]])
    label = measure(window.cut(image), answer, window, 1)
    mask = coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": label.counts}).astype(bool)
    np.testing.assert_array_equal(mask[8:40, 16:64], answer.masks[0])
    assert mask.sum() == answer.masks[0].sum() == label.area > 0
    click = Predictor.next_click(answer)
    assert label.next_click[:2] == (click.x + 16, click.y + 8)


def test_the_masks_around_lie_where_they_belong_in_the_picture_too(tiny_model: RuacModel) -> None:
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    window = Window(8, 16, 32, 48, (HEIGHT, WIDTH))
    predictor = Predictor(tiny_model)
    predictor.set_image(window.cut(image))
    answer = predictor.predict([[20, 16]])
    inner, outer = np.zeros((2, 32, 48), bool)
    inner[10:14, 20:30], outer[2:30, 4:44] = True, True
    around = measure(window.cut(image), answer, window, 1, Bounds(inner, outer, {"holds": True}, "", "")).around
    assert around is not None
    assert around.guaranteed
    for counts, mask in ((around.inner, inner), (around.outer, outer)):
        found = coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": counts}).astype(bool)
        np.testing.assert_array_equal(found, window.place(mask))


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(0, 100))
def test_a_larger_budget_never_lowers_what_is_expected(expected: list[float], percent: int) -> None:
    chosen = plan(expected, Budget(percent, percent=True))
    assert sorted(chosen.order) == list(range(len(expected)))
    assert chosen.before - 1e-12 <= chosen.after <= 1 + 1e-12
    assert chosen.after <= plan(expected, Budget(100, percent=True)).after + 1e-12
    seen = {chosen.order[i] for i in range(chosen.review)}
    assert max((expected[i] for i in seen), default=0) <= min((expected[i] for i in chosen.order if i not in seen), default=1)


@pytest.mark.parametrize(("text", "masks", "review"), [("10%", 70, 7), ("10%", 71, 8), ("0%", 9, 0), ("25", 9, 9), ("2", 9, 2)])
def test_a_budget_is_a_share_or_a_number(text: str, masks: int, review: int) -> None:
    assert parse_budget(text).of(masks) == review


def test_what_the_budget_brings_is_said_in_words() -> None:
    assert (
        plan([0.4, 0.9, 0.8], Budget(1, percent=False))
        .words()
        .startswith("Review the 1 worst masks (33 %); expected mean IoU of all 3 masks: 0.700 as they are, 0.900 after it.")
    )
    assert plan([], Budget(1, percent=False)).words() == "No masks, so nothing to review."


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (fake(), "nothing stands out"),
        (fake(area=0, bbox=(0, 0, 0, 0)), "the mask is empty"),
        (fake(expected_iou=0.4, score=0.4), "more wrong than right is expected"),
        (fake(expected_iou=0.6, score=0.9), "the expected IoU is low; the model thinks better of it than its pixels do"),
        (fake(object_score=0.1), "there may be no object here"),
        (fake(mean_uncertainty=0.3), "the outline is doubtful"),
        (fake(bbox=(60, 5, 20, 20), area=50), "very small; cut off by the picture's edge"),
    ],
)
def test_the_reason_says_what_is_doubtful(label: Label, words: str) -> None:
    assert reason(label, HEIGHT, WIDTH) == words


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_thumbnails_show_all_of_the_object_and_lie_in_the_picture(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    top, left = rng.integers(0, height), rng.integers(0, width)
    mask[top : top + 5, left : left + 9] = True
    rows, columns = view_of(mask)
    assert 0 <= rows.start < rows.stop <= height
    assert 0 <= columns.start < columns.stop <= width
    assert mask[rows, columns].sum() == mask.sum()


def test_a_thumbnail_is_a_small_picture_of_both() -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 20:50] = True
    content = draw(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), mask, np.where(mask, 1, 0).astype(np.float32), (30, 20))
    picture = Image.open(BytesIO(content))
    assert picture.format == "JPEG"
    assert picture.width > picture.height
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    half = (pixels.shape[1] - 6) // 2
    # certain photograph on the left, yellow doubt in the middle of the right
    right = pixels[:, half + 6 :]
    y, x = right.shape[0] // 2, right.shape[1] // 2
    assert right[y, x, 0] - right[y, x, 2] > 60


def test_a_thumbnail_has_the_masks_around_on_the_photograph_as_thin_lines_the_outer_one_dashed() -> None:
    """Edges a tenth of the height apart, so that they are twenty pixels apart."""
    rows = np.arange(200)[:, None].repeat(200, 1)
    inner, mask, outer = (abs(rows - 99.5) < reach for reach in (20, 40, 60))
    photo, sure = np.full((200, 200, 3), 90, np.uint8), np.zeros((200, 200), np.float32)
    bounds = Bounds(inner, outer, {"holds": True}, "", "")
    with_lines, without = (Image.open(BytesIO(draw(photo, mask, sure, (100, 100), found))) for found in (bounds, None))
    assert with_lines.size == without.size == (216 + 6 + 216, 216)
    added = np.asarray(with_lines.convert("RGB")).astype(int) - np.asarray(without.convert("RGB"))

    def line(edge: int) -> np.ndarray:
        """[columns, 3], the brightest of what is added to the left half near a row of the picture."""
        near = added[round(edge * 216 / 200) - 2 :][:5, 10:206]
        return near[near.sum(-1).argmax(0), np.arange(near.shape[1])]

    # the file is small, and colours so thin are pale
    unbroken, dashed = line(80), line(40)
    assert (unbroken[:, 1] > 50).all()
    assert unbroken.mean(0).argmax() == np.argmax(INNER)
    assert 0.3 < (dashed[:, 1] > 40).mean() < 0.7
    assert dashed.mean(0).argmax() == np.argmax(OUTER)
    assert abs(line(60)).max() < 40
    assert abs(added[:, 222:]).max() < 40
