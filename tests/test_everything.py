"""Every object once, the surest mask of each."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ruac.distribution import MaskDistribution
from ruac.everything import Footprint, Search, Window, clicks, crops, generate, suppress
from ruac.features import Frame
from ruac.model import RuacModel
from ruac.predictor import Prediction, Predictor, Prompt

SIDE = 64
PICTURE = (48, 64)


def square(top: int, left: int, bottom: int, right: int, sure: float = 1.0) -> NDArray[np.float32]:
    probability = np.zeros((32, 32), np.float32)
    probability[top:bottom, left:right] = sure
    return probability


def kept(masks: list[NDArray[np.float32]], quality: list[float], search: Search | None = None) -> list[int]:
    return suppress([Footprint.of(mask) for mask in masks], quality, search or Search())


def soft_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


def test_of_two_masks_of_an_object_the_one_with_the_higher_expected_iou_stays() -> None:
    masks = [square(4, 4, 20, 20), square(4, 4, 20, 21), square(24, 24, 30, 30)]
    assert kept(masks, [0.8, 0.9, 0.5]) == [1, 2]
    assert kept(masks, [0.9, 0.8, 0.5]) == [0, 2]


def test_a_doubtful_rim_counts_as_little_as_it_is_sure() -> None:
    core, rim = square(10, 10, 20, 20), square(6, 6, 24, 24, 0.1)
    fuzzy = np.maximum(core, rim)
    # as hard masks at 5 % they would overlap by 100 / 324
    assert soft_iou(core, fuzzy) == pytest.approx(100 / (100 + 0.1 * 224), abs=1e-4)
    assert kept([core, fuzzy], [0.9, 0.8]) == [0]
    assert kept([core, np.maximum(core, 9 * rim)], [0.9, 0.8]) == [0, 1]


def test_two_equally_doubtful_masks_of_an_object_are_one() -> None:
    """Their product would overlap by a third only."""
    assert kept([square(4, 4, 20, 20, 0.5), square(4, 4, 20, 20, 0.5)], [0.6, 0.6]) == [0]


def test_a_part_stays_unless_parts_are_not_wanted() -> None:
    whole, part, beside = square(0, 0, 20, 20), square(2, 2, 8, 8), square(16, 16, 30, 30)
    assert kept([whole, part, beside], [0.9, 0.8, 0.7]) == [0, 1, 2]
    assert kept([whole, part, beside], [0.9, 0.8, 0.7], Search(parts=False)) == [0, 2]
    assert kept([whole, part, beside], [0.7, 0.8, 0.9], Search(parts=False)) == [2, 1]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.sampled_from([0.3, 0.5, 0.7, 0.9]), st.booleans())
def test_suppression_with_its_shortcuts_is_that_of_all_pairs(seed: int, count: int, overlap: float, parts: bool) -> None:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        top, left = rng.integers(0, 24, 2)
        height, width = rng.integers(1, 20, 2)
        masks.append(square(top, left, top + height, left + width) * rng.uniform(0.05, 1, (32, 32)).astype(np.float32))
    quality = rng.choice([0.5, 0.6, 0.7, 0.8], count).tolist()
    soft = [np.where((255 * m).round() < 8, 0, (255 * m).round()) for m in masks]
    expected: list[int] = []
    for i in sorted(range(count), key=lambda i: -quality[i]):
        same = False
        for j in expected:
            shared = np.minimum(soft[i], soft[j]).sum()
            same |= bool(shared > overlap * np.maximum(soft[i], soft[j]).sum())
            same |= not parts and bool(shared > 0.9 * min(soft[i].sum(), soft[j].sum()))
        if not same:
            expected.append(i)
    assert kept(masks, quality, Search(overlap=overlap, parts=parts)) == expected


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40))
def test_clicks_lie_in_the_picture_and_are_spread_evenly(height: int, width: int, grid: int) -> None:
    points = clicks((height, width), grid)
    assert (points >= 0).all()
    assert (points < [width, height]).all()
    columns, rows = len(np.unique(points[:, 0])), len(np.unique(points[:, 1]))
    assert max(columns, rows) <= grid
    if max(height, width) >= grid:
        assert max(columns, rows) == grid


@given(st.integers(8, 300), st.integers(8, 300), st.integers(0, 3))
def test_crops_cover_the_picture_at_every_layer(height: int, width: int, times: int) -> None:
    windows = list(crops((height, width), times))
    assert len(windows) == sum(4**layer for layer in range(times + 1))
    assert windows[0] == Window.whole((height, width))
    done = 0
    for layer in range(times + 1):
        covered = np.zeros((height, width), bool)
        for window in windows[done : done + 4**layer]:
            assert 0 <= window.top <= height - window.height
            assert 0 <= window.left <= width - window.width
            window.cut(covered)[:] = True
        assert covered.all()
        done += 4**layer


@pytest.mark.parametrize("wrong", [{"grid": 0}, {"grid": 1000}, {"crops": -1}, {"crops": 9}, {"least": 1.5}, {"overlap": -0.1}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        Search(**wrong)


class SquareModel:
    """What `generate` needs to know of a model."""

    grid = SIDE // 4


class SquarePredictor(Predictor):
    """Finds bright squares: every click on one gets that square, sure, a doubtful larger one, and the whole picture."""

    model = SquareModel()  # pyright: ignore[reportAssignmentType]

    def __init__(self) -> None:
        self.encoded: list[tuple[int, ...]] = []

    def set_image(self, image: NDArray[np.uint8]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.image = image
        self.encoded.append(image.shape)

    def predict_many(
        self, prompts: list[Prompt], multimask_output: bool = False, low_resolution: bool = False
    ) -> list[Prediction]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return [self._answer(np.asarray(prompt.point_coords)[0], low_resolution) for prompt in prompts]

    def _answer(self, click: NDArray[np.int64], low_resolution: bool) -> Prediction:
        height, width = self.image.shape[:2]
        frame = Frame.fit(height, width, SIDE, 4)
        grid = SIDE // 4
        rows, columns = frame.inside[0] // 4, frame.inside[1] // 4
        ys = ((np.arange(rows) + 0.5) * height / rows).astype(int)
        xs = ((np.arange(columns) + 0.5) * width / columns).astype(int)
        bright = self.image[ys][:, xs, 0] > 128
        on = bool(self.image[click[1], click[0], 0] > 128)
        mean = torch.full((3, grid, grid), -8.0)
        if on:
            mean[0, :rows, :columns][torch.from_numpy(bright)] = 8.0
            mean[1, :rows, :columns][torch.from_numpy(bright)] = 0.5
        mean[2] = 8.0
        return Prediction(
            MaskDistribution(mean, torch.zeros_like(mean)),
            frame,
            SIDE,
            np.array([0.2, 0.9, 0.95], np.float32),
            0.9,
            low_resolution,
        )


def bright_square() -> NDArray[np.uint8]:
    image = np.zeros((*PICTURE, 3), np.uint8)
    image[16:32, 8:28] = 255
    return image


def test_the_mask_with_the_highest_expected_iou_is_kept_whatever_the_decoder_thinks_of_it() -> None:
    (found,) = generate(SquarePredictor(), bright_square(), Search(grid=8))
    assert found.prediction.score == pytest.approx(0.2)
    truth = bright_square()[..., 0] > 0
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.85
    x, y = found.click
    assert truth[y, x]


def test_crops_find_the_same_object_once_and_masks_lie_where_they_belong() -> None:
    predictor = SquarePredictor()
    found = generate(predictor, bright_square(), Search(grid=8, crops=1))
    assert len(predictor.encoded) == 5
    assert len(found) == 1
    truth = bright_square()[..., 0] > 0
    assert (found[0].mask & truth).sum() / (found[0].mask | truth).sum() > 0.85


def test_a_mask_that_a_crop_cuts_off_is_left_to_the_whole_picture() -> None:
    image = np.zeros((*PICTURE, 3), np.uint8)
    image[10:38, 10:54] = 255  # larger than every crop but the whole
    (found,) = generate(SquarePredictor(), image, Search(grid=8, crops=1))
    assert found.window == Window.whole(PICTURE)


def test_a_dark_picture_holds_nothing() -> None:
    assert generate(SquarePredictor(), np.zeros((*PICTURE, 3), np.uint8), Search(grid=4)) == []


def test_a_real_model_gives_masks_of_the_pictures_size_best_first(tiny_model: RuacModel) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*PICTURE, 3), dtype=np.uint8)
    found = generate(Predictor(tiny_model), image, Search(grid=4, least=0.0, overlap=1.0))
    assert len(found) > 1
    for segment in found:
        assert segment.mask.shape == PICTURE
        assert segment.prediction.distribution.mean.shape[0] == 1
