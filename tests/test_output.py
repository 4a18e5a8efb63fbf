import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from ruac.calibrate.bounds import Bounds
from ruac.distribution import MaskDistribution
from ruac.features import Frame
from ruac.output import Origin, encode_uncertainty, output_names, save
from ruac.overlay import INNER, LONG_SIDE, OUTER, Around, Marks, draw_overlay
from ruac.predictor import Prediction, Prompt
from ruac.writing import write_whole

HEIGHT, WIDTH = 40, 64
ORIGIN = Origin("photos/a.jpg", "nano", "0" * 64)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def prediction_of(logits: np.ndarray) -> Prediction:
    """The low-resolution logits [16, 16] of an image of HEIGHT x WIDTH pixels."""
    mean = torch.from_numpy(logits.astype(np.float32))[None]
    frame = Frame((HEIGHT, WIDTH), (HEIGHT, WIDTH))
    return Prediction(MaskDistribution(mean, torch.zeros_like(mean)), frame, WIDTH, np.array([0.75], np.float32), 0.5)


@pytest.fixture
def prediction() -> Prediction:
    """A square object."""
    logits = np.full((16, 16), -6.0)
    logits[2:7, 5:11] = 6.0  # 20 x 24 pixels
    return prediction_of(logits)


def test_files_hold_the_prediction(tmp_path: Path, image: np.ndarray, prediction: Prediction) -> None:
    prompt = Prompt(point_coords=[[30, 20], [3, 4]], point_labels=[1, 0], box=[10, 5, 50, 35])
    paths = save(tmp_path, "a", image, prompt, prediction, ORIGIN)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.mask.png", "a.overlay.png", "a.uncertainty.png"]

    mask = cv2.imread(str(paths[".mask.png"]), cv2.IMREAD_UNCHANGED)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.where(prediction.masks[0], 255, 0))

    uncertainty = cv2.imread(str(paths[".uncertainty.png"]), cv2.IMREAD_UNCHANGED)
    assert uncertainty.dtype == np.uint16
    np.testing.assert_allclose(uncertainty / 65535, prediction.uncertainty[0], atol=1e-5)
    assert uncertainty.max() > 60_000

    overlay = cv2.imread(str(paths[".overlay.png"]), cv2.IMREAD_UNCHANGED)
    assert overlay.dtype == np.uint8
    assert overlay.shape[2] == 3


def test_summary_says_what_was_asked_found_and_by_what(tmp_path: Path, image: np.ndarray, prediction: Prediction) -> None:
    prompt = Prompt(point_coords=[[30, 20], [3, 4]], point_labels=[1, 0], box=[10, 5, 50, 35])
    summary = json.loads(save(tmp_path, "a", image, prompt, prediction, ORIGIN)[".json"].read_text())
    mask = prediction.masks[0]
    assert (summary["image"], summary["width"], summary["height"]) == ("photos/a.jpg", WIDTH, HEIGHT)
    assert summary["prompt"] == {"points": [[30.0, 20.0, 1], [3.0, 4.0, 0]], "box": [10.0, 5.0, 50.0, 35.0]}
    assert (summary["score"], summary["object_score"]) == (0.75, 0.5)
    assert summary["expected_iou"] == pytest.approx(prediction.expected_iou[0])
    assert summary["area"] == mask.sum() == 20 * 24 - 4  # bilinear corners are cut
    assert summary["mean_uncertainty"]["image"] == pytest.approx(prediction.uncertainty.mean(), rel=1e-5)
    # 2 % of the diagonal are 1.5 pixels: the next neighbours, diagonal ones too
    near = cv2.dilate(mask.view(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert summary["mean_uncertainty"]["band"] == pytest.approx(prediction.uncertainty[0][near].mean(), rel=1e-5)
    assert set(summary["next_click"]) == {"x", "y", "label"}
    np.testing.assert_array_equal(coco_mask.decode(summary["rle"]), mask)
    assert (summary["model"], summary["model_sha256"]) == ("nano", "0" * 64)
    assert summary["ruac"].count(".") == 2


def test_empty_mask_has_a_summary_too(tmp_path: Path, image: np.ndarray) -> None:
    empty = prediction_of(np.full((16, 16), -6.0))
    paths = save(tmp_path, "a", image, Prompt(point_coords=[[1, 1]]), empty, ORIGIN)
    summary = json.loads(paths[".json"].read_text())
    assert (summary["area"], summary["expected_iou"], summary["mean_uncertainty"]["band"]) == (0, 0.0, None)
    assert coco_mask.decode(summary["rle"]).sum() == 0


def test_bounds_are_two_more_files_and_an_entry(tmp_path: Path, image: np.ndarray, prediction: Prediction) -> None:
    mask = prediction.masks[0]
    inner, outer = (cv2.morphologyEx(mask.view(np.uint8), op, np.ones((5, 5))) > 0 for op in (cv2.MORPH_ERODE, cv2.MORPH_DILATE))
    bounds = Bounds(inner, outer, {"alpha": 0.1}, "inner", "outer")
    paths = save(tmp_path, "a", image, Prompt(point_coords=[[30, 20]]), prediction, ORIGIN, bounds)
    assert sorted(paths) == [".inner.png", ".json", ".mask.png", ".outer.png", ".overlay.png", ".uncertainty.png"]
    assert all(path.is_file() for path in paths.values())
    for suffix, edge in ((".inner.png", inner), (".outer.png", outer), (".mask.png", mask)):
        np.testing.assert_array_equal(cv2.imread(str(paths[suffix]), cv2.IMREAD_UNCHANGED), np.where(edge, 255, 0))
    assert json.loads(paths[".json"].read_text())["guarantee"] == {"alpha": 0.1}


def test_name_cannot_lead_out_of_the_folder(tmp_path: Path, image: np.ndarray, prediction: Prediction) -> None:
    (tmp_path / "inside").mkdir()
    with pytest.raises(ValueError, match="leads out of the folder"):
        save(tmp_path / "inside", "../a", image, Prompt(point_coords=[[1, 1]]), prediction, ORIGIN)
    assert [p.name for p in tmp_path.rglob("*")] == ["inside"]


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["x/a.jpg", "y/a.jpg", "a.png"], ["a", "a_2", "a_3"]),
        (["x/a.jpg", "y/a.jpg", "a_2.jpg"], ["a", "a_3", "a_2"]),
        (["A.jpg", "a.jpg"], ["A", "a_2"]),
        (["a.b.jpg", "a.jpg"], ["a.b", "a"]),
        ([".jpg"], [".jpg"]),
    ],
)
def test_images_of_the_same_name_do_not_share_results(images: list[str], names: list[str]) -> None:
    assert output_names([Path(image) for image in images]) == names


def test_one_bit_is_the_largest_16_bit_number() -> None:
    bits = np.array([0, 0.5, 1.0, 1.0000001], np.float32)
    assert encode_uncertainty(bits).tolist() == [0, 32768, 65535, 65535]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_whole(path, b"old")

    def interrupted(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("shape", "drawn"),
    [
        ((40, 64), (500, 800)),
        ((1000, 900), (1000, 900)),
        ((3000, 4000), (1200, 1600)),
        ((1, 300), (3, 800)),
        ((300, 1), (800, 3)),
    ],
)
def test_overlay_has_a_size_for_eyes(shape: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert LONG_SIDE == (800, 1600)
    photo = np.full((*shape, 3), 200, np.uint8)
    overlay = draw_overlay(photo, np.ones(shape, bool), np.zeros(shape, np.float32), Marks())
    assert overlay.dtype == np.uint8
    assert overlay.shape[0] > drawn[0]
    assert overlay.shape[1] == max(drawn[1], round(0.82 * max(drawn)))
    # a certain mask leaves the photograph as it is, but for its outline
    middle = overlay[drawn[0] // 2, drawn[1] // 2]
    assert (middle == 200).all() or min(drawn) < 10


def test_overlay_shows_the_uncertain_in_colour_and_the_outside_dark() -> None:
    shape = (800, 800)
    mask, uncertainty = np.zeros(shape, bool), np.zeros(shape, np.float32)
    mask[:, :400] = True
    uncertainty[:400] = 1.0
    overlay = draw_overlay(np.full((*shape, 3), 120, np.uint8), mask, uncertainty, Marks()).astype(int)
    assert (overlay[600, 200] == 120).all()
    assert (overlay[600, 600] == 66).all()
    for column in (200, 600):  # inferno's pale yellow
        red, green, blue = overlay[200, column]
        assert red > 220
        assert green > 220
        assert blue < red - 40


def test_overlay_draws_the_masks_around_as_lines_the_outer_one_dashed() -> None:
    """A hundred pixels inside and outside the mask's edge at columns 200 to 600."""
    columns = np.arange(800)[None].repeat(800, 0)
    inner, mask, outer = ((columns >= 200 + step) & (columns < 600 - step) for step in (100, 0, -100))
    photo, sure = np.full((800, 800, 3), 120, np.uint8), np.zeros((800, 800), np.float32)
    with_lines = draw_overlay(photo, mask, sure, Marks(), "", Around(inner, outer, "inner", "outer"))
    without = draw_overlay(photo, mask, sure, Marks())
    assert with_lines.shape[0] > without.shape[0]  # a row of the legend

    def share(column: int, colour: tuple[int, int, int]) -> float:
        near = np.abs(with_lines[20:780, column - 2 : column + 3].astype(int) - colour).max(-1) < 30
        return near.any(1).mean()

    assert share(300, INNER) == share(499, INNER) == 1
    assert 0.4 < share(100, OUTER) < 0.8
    assert 0.4 < share(699, OUTER) < 0.8
    assert share(300, OUTER) == share(100, INNER) == 0
    np.testing.assert_array_equal(with_lines[20:780, 190:290], without[20:780, 190:290])


def test_overlay_marks_prompts_where_they_are() -> None:
    shape = (400, 400)
    marks = Marks(points=[(100, 100, 1), (300, 100, 0)], box=(50, 200, 350, 380), next_click=(200, 300))
    blank = {"mask": np.zeros(shape, bool), "uncertainty": np.zeros(shape, np.float32)}
    photo = np.full((*shape, 3), 120, np.uint8)
    changed = (draw_overlay(photo, **blank, marks=marks) != draw_overlay(photo, **blank, marks=Marks()))[:800].any(2)
    for x, y in ((100, 100), (300, 100), (200, 300)):
        ring = changed[2 * y - 12 : 2 * y + 13, 2 * x - 12 : 2 * x + 13]
        assert ring.mean() > 0.75
        changed[2 * y - 14 : 2 * y + 15, 2 * x - 14 : 2 * x + 15] = False
    rows, columns = np.nonzero(changed)
    assert abs(np.array([columns.min(), rows.min(), columns.max(), rows.max()]) - [100, 400, 700, 760]).max() <= 5
