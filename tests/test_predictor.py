import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from ruac.data.image import ImageError
from ruac.distribution import MaskDistribution
from ruac.features import DecoderFeatures, Frame, ImageFeatures, Prompts
from ruac.loading import load
from ruac.model import RuacModel, weights_sha256
from ruac.predictor import Prediction, Predictor, Prompt, PromptError
from ruac.quality.expected import shifted_iou

HEIGHT, WIDTH = 48, 80


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def predictor(tiny_model: RuacModel, image: np.ndarray) -> Predictor:
    predictor = Predictor(tiny_model)
    predictor.set_image(image)
    return predictor


def prediction_of(logits: np.ndarray, variance: float = 0.0) -> Prediction:
    """A prediction of an image of 4 pixels a logit, all of which lie inside it."""
    mean = torch.from_numpy(logits.astype(np.float32))[None]
    size = (logits.shape[0] * 4, logits.shape[1] * 4)
    distribution = MaskDistribution(mean, torch.full_like(mean, variance))
    return Prediction(distribution, Frame(size, size), max(size), np.array([0.5], np.float32), 1.0)


def test_prediction_is_at_the_images_own_resolution(predictor: Predictor) -> None:
    prediction = predictor.predict(point_coords=[[30, 20]])
    for maps, kind in (
        (prediction.masks, np.bool_),
        (prediction.probability, np.float32),
        (prediction.uncertainty, np.float32),
        (prediction.expected_error, np.float32),
    ):
        assert maps.shape == (1, HEIGHT, WIDTH)
        assert maps.dtype == kind
    assert prediction.iou.shape == (1,)
    assert prediction.score == prediction.iou[0]
    assert 0 < prediction.object_score < 1
    assert prediction.low_res_logits.shape == (1, 16, 16)


def test_read_outs_agree_with_each_other(predictor: Predictor) -> None:
    prediction = predictor.predict(point_coords=[[30, 20]], multimask_output=True)
    p = prediction.probability.astype(np.float64)
    np.testing.assert_array_equal(prediction.masks, p > 0.5)
    np.testing.assert_allclose(prediction.expected_error, np.minimum(p, 1 - p), atol=1e-6)
    np.testing.assert_allclose(prediction.uncertainty, -p * np.log2(p) - (1 - p) * np.log2(1 - p), atol=1e-5)


def test_doubt_is_the_sum_of_its_two_parts(predictor: Predictor) -> None:
    prediction = predictor.predict(point_coords=[[30, 20]], multimask_output=True)
    assert prediction.epistemic.shape == prediction.aleatoric.shape == (3, HEIGHT, WIDTH)
    assert prediction.epistemic.min() >= 0
    assert prediction.epistemic.max() > 0
    # the entropy of MacKay's probability is within 0.08 bits of the exact one
    assert np.abs(prediction.epistemic + prediction.aleatoric - prediction.uncertainty).max() < 0.09


def test_expected_iou_is_that_of_every_masks_own_pixels(predictor: Predictor) -> None:
    prediction = predictor.predict(point_coords=[[30, 20]], multimask_output=True)
    for mask, p, found in zip(prediction.masks, prediction.probability, prediction.expected_iou, strict=True):
        assert found == pytest.approx(p[mask].sum() / (mask.sum() + p[~mask].sum()), rel=1e-4)


def test_the_uncertainty_returned_is_that_of_the_mask_returned(predictor: Predictor) -> None:
    several = predictor.predict(point_coords=[[30, 20]], multimask_output=True)
    one = predictor.predict(point_coords=[[30, 20]])
    np.testing.assert_allclose(one.uncertainty[0], several.uncertainty[0], atol=1e-5)
    assert np.abs(several.uncertainty[0] - several.uncertainty[1]).max() > 0.001


def test_low_resolution_is_the_decoders_own_grid_without_the_padding(predictor: Predictor) -> None:
    full, low = (predictor.predict(point_coords=[[30, 20]], low_resolution=choice) for choice in (False, True))
    inside = predictor._features.frames[0].inside
    assert low.masks.shape == low.uncertainty.shape == (1, inside[0] // 4, inside[1] // 4)
    np.testing.assert_array_equal(low.masks[0], full.low_res_logits[0, : inside[0] // 4] > 0)
    assert low.expected_iou == pytest.approx(full.expected_iou, abs=0.1)


def test_variance_makes_pixels_less_certain_but_moves_no_outline() -> None:
    logits = np.random.default_rng(1).normal(0, 3, (8, 8))
    sure, unsure = prediction_of(logits), prediction_of(logits, variance=4.0)
    np.testing.assert_array_equal(sure.masks, unsure.masks)
    assert (unsure.uncertainty >= sure.uncertainty).all()
    assert unsure.uncertainty.mean() > sure.uncertainty.mean() + 0.05


def test_read_outs_are_made_once() -> None:
    prediction = prediction_of(np.ones((4, 4)))
    assert prediction.uncertainty is prediction.uncertainty


def test_points_are_taken_in_original_pixels(tiny_model: RuacModel, image: np.ndarray) -> None:
    """An image of twice the size with its click at twice the place is, to the model, the same."""
    small, large = Predictor(tiny_model), Predictor(tiny_model)
    small.set_image(image)
    large.set_image(image.repeat(2, 0).repeat(2, 1))
    one = small.predict(point_coords=[[30, 20]]).low_res_logits
    same = large.predict(point_coords=[[60.5, 40.5]]).low_res_logits
    other = large.predict(point_coords=[[30, 20]]).low_res_logits
    assert np.abs(one - same).max() < 0.2 * np.abs(one - other).max()


def test_multimask_output_gives_three_candidates_best_first(predictor: Predictor) -> None:
    prediction = predictor.predict(point_coords=[[30, 20]], multimask_output=True)
    assert prediction.masks.shape == (3, HEIGHT, WIDTH)
    assert prediction.iou[0] > prediction.iou[1] > prediction.iou[2]


def test_a_single_click_is_answered_with_the_best_candidate(predictor: Predictor) -> None:
    several = predictor.predict(point_coords=[[30, 20]], multimask_output=True)
    one = predictor.predict(point_coords=[[30, 20]])
    np.testing.assert_allclose(one.low_res_logits[0], several.low_res_logits[0], atol=1e-6)
    assert one.score == pytest.approx(several.iou[0])


def test_more_than_a_click_is_answered_with_token_zero(predictor: Predictor) -> None:
    clicks = {"point_coords": [[30, 20], [3, 4]], "point_labels": [1, 0]}
    one = predictor.predict(**clicks)
    several = predictor.predict(**clicks, multimask_output=True)
    assert not np.isclose(several.iou, one.score, atol=1e-7).any()


def test_labels_default_to_foreground(predictor: Predictor) -> None:
    default = predictor.predict(point_coords=[[30, 20]])
    for label, equal in ((1, True), (0, False)):
        given = predictor.predict(point_coords=[[30, 20]], point_labels=[label])
        assert np.array_equal(default.low_res_logits, given.low_res_logits) is equal


def test_low_res_logits_can_be_fed_back(predictor: Predictor) -> None:
    first = predictor.predict(point_coords=[[30, 20]])
    again = predictor.predict(point_coords=[[30, 20]], mask_input=first.low_res_logits[0])
    assert not np.allclose(first.low_res_logits, again.low_res_logits, atol=1e-4)
    segment_anythings_shape = predictor.predict(point_coords=[[30, 20]], mask_input=first.low_res_logits)
    np.testing.assert_array_equal(again.low_res_logits, segment_anythings_shape.low_res_logits)
    alone = predictor.predict(mask_input=first.low_res_logits[0])
    assert np.isfinite(alone.uncertainty).all()


def test_many_objects_are_predicted_as_each_alone(predictor: Predictor) -> None:
    low_res = predictor.predict(point_coords=[[30, 20]]).low_res_logits[0]
    prompts = [
        Prompt(point_coords=[[30, 20]]),
        Prompt(point_coords=[[30, 20], [3, 4], [70, 40]], point_labels=[1, 0, 0]),
        Prompt(box=[5, 5, 80, 48]),
        Prompt(point_coords=[[9, 9]], mask_input=low_res),
        Prompt(point_coords=[[60, 30]]),
    ]
    together = predictor.predict_many(prompts)
    assert len(together) == 5
    for prompt, prediction in zip(prompts, together, strict=True):
        alone = predictor.predict(prompt.point_coords, prompt.point_labels, prompt.box, prompt.mask_input)
        np.testing.assert_allclose(prediction.low_res_logits, alone.low_res_logits, atol=1e-4)
        np.testing.assert_allclose(prediction.iou, alone.iou, atol=1e-5)


def test_a_hundred_objects_are_decoded_in_bounded_batches(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    decode = RuacModel.decode

    def counted(self: RuacModel, features: ImageFeatures, prompts: Prompts) -> DecoderFeatures:
        sizes.append(prompts.points.shape[1])
        return decode(self, features, prompts)

    monkeypatch.setattr(RuacModel, "decode", counted)
    assert len(predictor.predict_many([Prompt(point_coords=[[x % WIDTH, 5]]) for x in range(100)])) == 100
    assert sizes == [32, 32, 32, 4]


def test_image_is_encoded_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RuacModel, "encode", lambda *_: pytest.fail("encoded again"))
    for x in (1, 2):
        predictor.predict(point_coords=[[x, 1]])


def test_a_file_is_the_same_as_its_pixels(tiny_model: RuacModel, image: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(image).save(tmp_path / "a.png")
    from_file, from_pixels = Predictor(tiny_model), Predictor(tiny_model)
    from_file.set_image(tmp_path / "a.png")
    from_pixels.set_image(image)
    a, b = (p.predict(box=[1, 1, 20, 20]).low_res_logits for p in (from_file, from_pixels))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (65, 63)])
def test_any_image_size_works(tiny_model: RuacModel, shape: tuple[int, int]) -> None:
    predictor = Predictor(tiny_model)
    predictor.set_image(np.zeros((*shape, 3), np.uint8))
    assert predictor.predict(point_coords=[[0, 0]]).uncertainty.shape == (1, *shape)


def test_flipped_and_read_only_arrays_are_taken(tiny_model: RuacModel, image: np.ndarray) -> None:
    frozen = image[:, ::-1]
    frozen.setflags(write=False)
    predictor = Predictor(tiny_model)
    predictor.set_image(frozen)
    assert predictor.predict(point_coords=[[0, 0]]).masks.shape == (1, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_only_uint8_rgb_is_an_image(tiny_model: RuacModel, wrong: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"expected a uint8 RGB image \[height, width, 3\], got"):
        Predictor(tiny_model).set_image(wrong)


def test_predict_before_set_image(tiny_model: RuacModel) -> None:
    with pytest.raises(RuntimeError, match="call set_image"):
        Predictor(tiny_model).predict(point_coords=[[1, 1]])


def test_a_bad_image_does_not_leave_the_one_before(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        predictor.set_image(tmp_path / "nowhere.png")
    with pytest.raises(RuntimeError, match="no image yet"):
        predictor.predict(point_coords=[[1, 1]])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "nothing is said"),
        ({"point_coords": np.empty((0, 2))}, "nothing is said"),
        ({"point_coords": [[np.nan, 1]]}, "point_coords holds NaN"),
        ({"point_coords": [[np.inf, 1]]}, "point_coords holds NaN or infinity"),
        ({"point_coords": [["left", "top"]]}, "point_coords must be numbers"),
        ({"point_coords": [1, 2]}, r"point_coords must be \[N, 2\] \(x, y\), got \[2\]"),
        ({"point_coords": [[1, 2, 3]]}, r"got \[1, 3\]"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, "1 points, but point_labels"),
        ({"point_labels": [1], "box": [0, 0, 5, 5]}, "0 points, but point_labels"),
        ({"point_coords": [[1, 2]], "point_labels": [2]}, r"1 \(object\) or 0 \(background\), got \[2.0\]"),
        ({"point_coords": [[1, 2]], "point_labels": [-1]}, "a point label is"),
        ({"point_coords": [[80, 2]]}, r"point \(80, 2\) is outside the image of 80 x 48 pixels"),
        ({"point_coords": [[2, -1]]}, "outside the image"),
        ({"box": [1, 2, 3]}, r"box must be \[4\]"),
        ({"box": [5, 5, 5, 9]}, r"box \(5, 5, 5, 9\) is empty or inside out"),
        ({"box": [9, 5, 2, 9]}, "inside out"),
        ({"box": [1, 1, 81, 9]}, "leaves the image of 80 x 48 pixels"),
        ({"box": [0, np.nan, 3, 4]}, "box holds NaN"),
        ({"mask_input": np.zeros((48, 80))}, r"low-resolution logits \[16, 16\], got \[48, 80\]"),
        ({"mask_input": np.full((16, 16), np.nan)}, "mask_input holds NaN"),
    ],
)
def test_senseless_prompts_are_refused_in_one_line(predictor: Predictor, prompt: dict, message: str) -> None:
    with pytest.raises(PromptError, match=message) as caught:
        predictor.predict(**prompt)
    assert "\n" not in str(caught.value)


def test_next_click_is_in_the_middle_of_the_largest_doubtful_region() -> None:
    logits = np.full((16, 16), -9.0)
    logits[2:13, 2:13] = -0.1  # doubtful, called background
    logits[14, 14] = 0.05  # more doubtful, but small
    click = Predictor.next_click(prediction_of(logits))
    assert abs(click.x - 29.5) <= 2
    assert abs(click.y - 29.5) <= 2
    assert click.label == 1
    assert click.region.shape == (64, 64)
    np.testing.assert_array_equal(np.nonzero(click.region.any(0))[0], np.arange(8, 52))
    assert click.region[click.y, click.x]


def test_a_wide_doubtful_region_counts_more_than_a_long_thin_one_of_as_many_pixels() -> None:
    logits = np.full((32, 32), -9.0)
    logits[1, :], logits[3, :] = -0.1, -0.1  # 64 pixels in two rows
    logits[20:26, 20:30] = -0.1  # 60 pixels in a block
    logits[2, 0] = -0.1  # the rows are one region
    click = Predictor.next_click(prediction_of(logits))
    assert (20 <= click.x // 4 < 30, 20 <= click.y // 4 < 26) == (True, True)


def test_next_click_takes_away_what_the_mask_has_wrongly() -> None:
    logits = np.full((16, 16), 9.0)
    logits[4:8, 4:8] = 0.2
    assert Predictor.next_click(prediction_of(logits)).label == 0


def test_next_click_without_any_doubt_is_the_likeliest_error() -> None:
    logits = np.full((16, 16), -9.0)
    logits[3, 10] = -3.0
    click = Predictor.next_click(prediction_of(logits))
    assert (click.x // 4, click.y // 4, click.label) == (10, 3, 1)
    assert click.region[click.y, click.x]


def test_no_earlier_click_is_asked_for_again() -> None:
    logits = np.full((64, 64), -14.0)
    logits[10, 10], logits[40, 40] = -0.1, -0.2
    first = Predictor.next_click(prediction_of(logits))
    assert (first.x // 4, first.y // 4) == (10, 10)
    told = replace(prediction_of(logits), clicks=np.array([[first.x, first.y]], np.float32))
    second = Predictor.next_click(told)
    assert (second.x // 4, second.y // 4) == (40, 40)


def test_a_click_on_the_border_is_no_obstacle(predictor: Predictor) -> None:
    click = Predictor.next_click(predictor.predict(point_coords=[[WIDTH - 0.1, HEIGHT - 0.1], [0, 0]]))
    assert 0 <= click.x < WIDTH
    assert 0 <= click.y < HEIGHT


def test_next_click_is_in_pixels_of_the_image_at_low_resolution_too(predictor: Predictor) -> None:
    full, low = (predictor.predict(point_coords=[[30, 20]], low_resolution=choice) for choice in (False, True))
    a, b = Predictor.next_click(full), Predictor.next_click(low)
    assert (a.x, a.y) == (b.x, b.y)
    assert b.region.shape == (HEIGHT, WIDTH)


@given(arrays(np.float32, (8, 12), elements=st.floats(-6, 6, width=32)), st.integers(20, 90), st.integers(20, 90))
@settings(max_examples=50)
def test_next_click_is_inside_the_image_and_contradicts_the_mask(logits: np.ndarray, height: int, width: int) -> None:
    mean = torch.from_numpy(logits)[None]
    moments = MaskDistribution(mean, torch.zeros_like(mean))
    prediction = Prediction(moments, Frame((height, width), (32, 48)), 48, np.array([0.5], np.float32), 1.0)
    padded = replace(
        prediction, distribution=MaskDistribution(*(torch.nn.functional.pad(t, (0, 0, 0, 4)) for t in (mean, mean * 0)))
    )
    click = Predictor.next_click(padded)
    assert 0 <= click.x < width
    assert 0 <= click.y < height
    assert click.label == 1 - padded.masks[0, click.y, click.x]


def test_a_prediction_knows_the_clicks_it_answers_but_no_corner_of_a_box(predictor: Predictor) -> None:
    prediction = predictor.predict(point_coords=[[30, 20], [3, 4]], point_labels=[1, 0], box=[5, 5, 70, 40])
    np.testing.assert_allclose(prediction.clicks, [[30, 20], [3, 4]], atol=1e-3)


def test_a_model_with_a_line_expects_its_iou_of_every_candidate(tiny_model: RuacModel, image: np.ndarray) -> None:
    model = copy.deepcopy(tiny_model)
    model.config.quality = {"intercept": 0.1, "slope": 0.5}
    calibrated, plain = Predictor(model), Predictor(tiny_model)
    for predictor in (calibrated, plain):
        predictor.set_image(image)
    found, closed = (p.predict(point_coords=[[30, 20]], multimask_output=True, low_resolution=True) for p in (calibrated, plain))
    stays = shifted_iou(closed.distribution.crop(closed.frame, closed.side)).numpy()
    wanted = 0.1 + 0.5 * stays
    assert np.ptp(stays) > 0.001
    np.testing.assert_allclose(found.expected_iou, np.where(closed.masks.any((1, 2)), wanted, 0), atol=1e-5)


def test_a_line_of_another_kind_is_refused(tiny_model: RuacModel) -> None:
    model = copy.deepcopy(tiny_model)
    model.config.quality = {"intercept": 0.1, "stability": 1.0}
    with pytest.raises(ValueError, match="quality in the model's configuration must be two numbers, intercept and slope"):
        Predictor(model)


def squares() -> np.ndarray:
    """A bright rectangle on a dark ground."""
    image = np.full((240, 320, 3), 40, np.uint8)
    image[70:190, 110:250] = (220, 190, 60)
    return image


def test_bf16_answers_nearly_as_fp32_and_counts_as_other_weights() -> None:
    image = squares()
    answers, hashes = [], []
    for precision in ("fp32", "bf16"):
        predictor = Predictor("nano", precision=precision)
        predictor.set_image(image)
        answers.append(predictor.predict(box=(100, 60, 260, 200)))
        hashes.append(weights_sha256(predictor.model))
    exact, rounded = answers
    assert (exact.masks == rounded.masks).mean() > 0.99
    assert 0 < np.abs(exact.uncertainty - rounded.uncertainty).mean() < 0.02
    assert hashes[0] != hashes[1]


@pytest.mark.slow
def test_a_compiled_encoder_answers_as_the_one_that_is_not(tiny_model_folder: Path) -> None:
    image, answers, hashes = squares(), [], []
    for compile in (False, True):
        predictor = Predictor(tiny_model_folder, compile=compile)
        predictor.set_image(image)
        answers.append(predictor.predict(box=(100, 60, 260, 200)))
        hashes.append(weights_sha256(predictor.model))
    torch.testing.assert_close(answers[1].low_res_logits, answers[0].low_res_logits, rtol=1e-4, atol=1e-4)
    assert hashes[0] == hashes[1]


def test_what_cannot_be_compiled_or_rounded_is_refused(tiny_model_folder: Path) -> None:
    with pytest.raises(ValueError, match="no precision 'fp8': fp32, bf16"):
        Predictor(tiny_model_folder, precision="fp8")
    model = load(tiny_model_folder)
    for words in ({"precision": "bf16"}, {"compile": True}):
        with pytest.raises(ValueError, match="stays as it is"):
            Predictor(model, **words)
