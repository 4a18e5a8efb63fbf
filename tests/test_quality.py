"""The calibrated expected IoU: what is read out, how it is fitted, and `ruac quality`."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import LinearRegression
from squares import write_set

from ruac.cli import FAILED, WRONG_USE, main
from ruac.distribution import MaskDistribution
from ruac.loading import load
from ruac.model import RuacModel
from ruac.quality.expected import OFFSETS, SHIFT, SHIFTS, Quality, shifted_iou
from ruac.quality.fit import fit, least_squares


def moments(mean: np.ndarray, variance: float = 0.0) -> MaskDistribution:
    tensor = torch.from_numpy(mean.astype(np.float32))
    return MaskDistribution(tensor, torch.full_like(tensor, variance))


def test_shifted_iou_is_the_mean_iou_with_the_masks_of_all_offsets() -> None:
    distribution = moments(np.random.default_rng(0).normal(0, 2, (3, 6, 10)), variance=0.7)
    logit = distribution.scaled_mean().numpy()
    for found, own in zip(shifted_iou(distribution).tolist(), logit, strict=True):
        ious = [((own > 0) & (own > t)).sum() / ((own > 0) | (own > t)).sum() for t in OFFSETS]
        assert found == pytest.approx(np.mean(ious))


def test_offsets_are_quantiles_of_a_normal_distribution_around_zero() -> None:
    assert len(OFFSETS) == SHIFTS
    assert pytest.approx(norm.ppf((np.arange(SHIFTS) + 0.5) / SHIFTS, scale=SHIFT)) == OFFSETS


def test_sure_masks_stay_doubtful_ones_do_not_and_empty_ones_are_nothing() -> None:
    mean = np.full((4, 8, 8), -9.0)
    mean[0, 2:6, 2:6] = 9.0
    mean[1, 2:6, 2:6] = 0.5
    mean[2] = 0.5
    found = shifted_iou(moments(mean)).tolist()
    assert found[0] == 1
    assert found[1] < 0.7
    assert found[3] == 0
    doubted = shifted_iou(moments(mean[:1], variance=200.0)).item()
    assert doubted < found[0]


def test_expected_iou_stays_between_none_and_all_and_is_none_for_an_empty_mask() -> None:
    mean = np.full((3, 4, 4), 9.0)
    mean[1, :2] = 0.5
    mean[2] = -9.0
    middle = shifted_iou(moments(mean))[1].item()
    assert 0 < middle < 1
    assert Quality(0.1, 0.5).expected_iou(moments(mean)).tolist() == pytest.approx([0.6, 0.1 + 0.5 * middle, 0])
    assert Quality(0.0, 9.0).expected_iou(moments(mean)).tolist() == [1, 1, 0]
    assert Quality(-9.0, 0.0).expected_iou(moments(mean)).tolist() == [0, 0, 0]


def test_the_line_survives_json() -> None:
    quality = Quality(0.1, 0.9)
    assert Quality.of(json.loads(json.dumps(quality.as_numbers()))) == quality
    assert Quality.of(None) is None


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"intercept": 1.0},
        {"intercept": math.nan, "slope": 1.0},
        {"intercept": "1", "slope": 1.0},
        {"intercept": 0.0, "slope": 1.0, "more": 1.0},
    ],
)
def test_anything_else_is_refused(stored: dict) -> None:
    with pytest.raises(ValueError, match="fit it anew with `ruac quality`"):
        Quality.of(stored)


def test_the_line_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(3, 2, 40), rng.random(40) + 0.1
    y = 0.5 + 0.02 * x + rng.normal(0, 0.01, 40)
    line, other = least_squares(x, y, weight), LinearRegression().fit(x[:, None], y, sample_weight=weight)
    assert (line.intercept, line.slope) == pytest.approx((other.intercept_, other.coef_[0]))
    assert least_squares(np.ones(3), np.array([0.1, 0.2, 0.6]), np.ones(3)) == Quality(pytest.approx(0.3), 0.0)


def test_every_group_counts_alike_whatever_its_size() -> None:
    y = np.r_[np.full(100, 0.2), np.full(10, 0.8)]
    assert fit(np.zeros(110), y, ["large"] * 100 + ["small"] * 10).quality.intercept == pytest.approx(0.5)


def test_each_group_is_foretold_from_the_others_alone() -> None:
    y = np.repeat([0.1, 0.2, 0.9], 10)
    found = fit(np.zeros(30), y, np.repeat(["a", "b", "c"], 10).tolist())
    assert found.foretold == pytest.approx(np.repeat([0.55, 0.5, 0.15], 10))


def test_one_group_or_no_number_is_refused() -> None:
    x, y = np.zeros(4), np.zeros(4)
    with pytest.raises(ValueError, match="1 groups of examples"):
        fit(x, y, ["a"] * 4)
    with pytest.raises(ValueError, match="not a finite number"):
        fit(x, np.array([0, 0, math.nan, 0]), ["a", "a", "b", "b"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "squares", images=3)


def words(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return ["quality", "--model", str(model), "--data", str(data), "--out", str(out), "--all-pictures", *more]


@pytest.fixture(scope="module")
def fitted(tiny_model_folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "model"
    assert main(words(tiny_model_folder, data, out)) == 0
    return out


def test_the_command_writes_a_model_with_a_line_and_the_same_weights(fitted: Path, tiny_model: RuacModel) -> None:
    model = load(fitted)
    assert model.config.quality is not None
    assert set(model.config.quality) == {"intercept", "slope"}
    assert all(torch.equal(value, tiny_model.state_dict()[name]) for name, value in model.state_dict().items())


def test_in_the_models_own_folder_only_the_configuration_changes(
    fitted: Path, tiny_model_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(tiny_model_folder, tmp_path / "own")
    before = (own / "model.safetensors").stat()
    assert main(words(own, data, own)) == 0
    after = (own / "model.safetensors").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    # what is drawn depends on the seed alone
    assert load(own).config.quality == load(fitted).config.quality
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (tiny_model_folder, own))
    assert {name for name in new if new[name] != old.get(name)} == {"quality"}
    said = capsys.readouterr().out
    assert "squares" in said
    assert "Fitted on 48 masks of 3 pictures" in said


def test_a_folder_with_another_model_is_left_alone(
    fitted: Path, tiny_model_folder: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (fitted / "config.json").read_bytes()
    assert main(words(tiny_model_folder, data, fitted)) == WRONG_USE
    assert "holds another model; name a new folder" in capsys.readouterr().err
    assert (fitted / "config.json").read_bytes() == before


def test_unreadable_pictures_are_listed_and_the_rest_is_used(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write_set(tmp_path / "squares")
    (broken / "images" / "1.png").write_bytes(b"no picture")
    assert main(words(tiny_model_folder, broken, tmp_path / "out")) == FAILED
    error = capsys.readouterr().err
    assert "1 pictures could not be read" in error
    assert "1.png" in error
    assert load(tmp_path / "out").config.quality is not None


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--max-images", "0"], "--max-images must be at least 1"), (["--seed", "-1"], "--seed must not be negative")],
)
def test_senseless_settings_are_wrong_use(
    tiny_model_folder: Path, data: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tiny_model_folder, data, tmp_path / "out", *more)) == WRONG_USE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pictures_that_training_has_seen_are_not_used_unasked(
    tiny_model_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # none of these three is held out
    assert main(["quality", "--model", str(tiny_model_folder), "--data", str(data), "--out", str(tmp_path / "out")]) == WRONG_USE
    assert "0 pictures to fit on" in capsys.readouterr().err
