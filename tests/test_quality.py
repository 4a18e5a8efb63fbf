"""The calibrated expected IoU: what is read out, how it is fitted, and `ruac quality`."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from squares import write_set

from ruac.cli import FAILED, WRONG_USE, main
from ruac.distribution import MaskDistribution
from ruac.loading import load
from ruac.model import RuacModel
from ruac.quality.read_outs import FEATURES, Quality, read_outs, stability
from ruac.quality.ridge import STRENGTHS, fit, ridge

NONE = dict.fromkeys(FEATURES, 0.0)


def moments(mean: np.ndarray) -> MaskDistribution:
    tensor = torch.from_numpy(mean.astype(np.float32))
    return MaskDistribution(tensor, torch.ones_like(tensor))


def test_read_outs_of_a_mask_that_can_be_counted_by_hand() -> None:
    mean = np.full((2, 8, 8), -5.0)
    mean[0, 1:3, 1:4] = 4.0  # six sure cells
    mean[0, 1, 1] = 0.5  # of which one is not
    mean[0, 6, 6] = 4.0  # a part of its own
    distribution = moments(mean)
    found = dict(zip(FEATURES, read_outs(distribution, torch.tensor([1.7, 0.3])).T.tolist(), strict=True))
    assert found["expected_iou"] == pytest.approx(distribution.expected_iou().tolist())
    assert found["stability"] == pytest.approx([6 / 7, 0])
    assert found["predicted_iou"] == pytest.approx([1, 0.3])
    # of 2 x 3 cells, rows 0..2 by columns 0..3 less the two within; of one cell, the four that see it
    assert found["outline"] == pytest.approx([math.log1p((12 - 2 + 4) / 7), 0])
    assert found["wholeness"] == pytest.approx([6 / 7, 0])


def test_stability_is_the_iou_of_two_thresholds() -> None:
    logit = torch.linspace(-3, 3, 60).reshape(1, 6, 10)
    inner, outer = logit > 1, logit > -1
    assert stability(logit).tolist() == pytest.approx([(inner & outer).sum().item() / (inner | outer).sum().item()])


def test_expected_iou_stays_between_none_and_all_and_is_none_for_an_empty_mask() -> None:
    mean = np.full((3, 4, 4), 5.0)
    mean[2] = -5.0
    predicted = torch.tensor([0.2, 0.9, 0.9])
    quality = Quality(0.0, NONE | {"predicted_iou": 1.0})
    assert quality.expected_iou(moments(mean), predicted).tolist() == pytest.approx([0.2, 0.9, 0])
    assert Quality(0.0, NONE | {"predicted_iou": 9.0}).expected_iou(moments(mean), predicted).tolist() == [1, 1, 0]
    assert Quality(-9.0, NONE).expected_iou(moments(mean), predicted).tolist() == [0, 0, 0]


def test_coefficients_survive_json() -> None:
    quality = Quality(0.1, {name: 0.1 * i for i, name in enumerate(FEATURES)})
    assert Quality.of(json.loads(json.dumps(quality.as_numbers()))) == quality
    assert Quality.of(None) is None


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"intercept": 1.0},
        NONE,
        NONE | {"intercept": math.nan},
        NONE | {"intercept": "1"},
        NONE | {"intercept": 0.0, "more": 1.0},
    ],
)
def test_anything_else_is_refused(stored: dict) -> None:
    with pytest.raises(ValueError, match="fit it anew with `ruac quality`"):
        Quality.of(stored)


@pytest.mark.parametrize("strength", [1e-6, 0.1, 3.0])
def test_the_ridge_is_scikit_learns_on_standardised_columns(strength: float) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(3, [1, 10, 0.1], (40, 3)), rng.random(40) + 0.1
    y = 0.5 + x @ [0.02, 0.003, -0.4] + rng.normal(0, 0.01, 40)
    line = ridge(x, y, weight, strength)
    share = weight / weight.sum()
    z = (x - share @ x) / np.sqrt(share @ (x - share @ x) ** 2)
    other = Ridge(alpha=strength).fit(z, y, sample_weight=share)
    np.testing.assert_allclose(line.intercept + x @ line.slope, other.predict(z), atol=1e-9)


def test_a_column_that_is_always_the_same_gets_no_weight() -> None:
    x = np.c_[np.linspace(0, 1, 9), np.ones(9)]
    line = ridge(x, x[:, 0], np.ones(9), 1e-9)
    assert line.slope == pytest.approx([1, 0], abs=1e-6)


def test_every_group_counts_alike_whatever_its_size() -> None:
    x = np.zeros((110, len(FEATURES)))
    y = np.r_[np.full(100, 0.2), np.full(10, 0.8)]
    assert fit(x, y, ["large"] * 100 + ["small"] * 10).quality.intercept == pytest.approx(0.5)


def test_each_group_is_foretold_from_the_others_alone() -> None:
    x = np.zeros((30, len(FEATURES)))
    y = np.repeat([0.1, 0.2, 0.9], 10)
    assert fit(x, y, np.repeat(["a", "b", "c"], 10).tolist()).foretold == pytest.approx(np.repeat([0.55, 0.5, 0.15], 10))


def test_a_read_out_that_deceives_in_other_groups_is_held_small() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (400, len(FEATURES)))
    group = np.repeat(np.arange(8), 50)
    # the first read-out tells the truth in all groups; the second tells each group something else
    y = 0.5 + 0.05 * x[:, 0] + 0.1 * x[:, 1] * np.where(group % 2, 1, -1)
    found = fit(x, y, [str(g) for g in group])
    assert found.strength == max(STRENGTHS)
    assert abs(found.quality.weights["stability"]) < 0.3 * found.quality.weights["expected_iou"]


def test_one_group_or_no_number_is_refused() -> None:
    x, y = np.zeros((4, len(FEATURES))), np.zeros(4)
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


def test_the_command_writes_a_model_with_coefficients_and_the_same_weights(fitted: Path, tiny_model: RuacModel) -> None:
    model = load(fitted)
    assert model.config.quality is not None
    assert set(model.config.quality) == {"intercept", *FEATURES}
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
