import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from ruac.distribution import MaskDistribution
from ruac.evaluate.object_quality import expected_iou, object_quality


@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("objects", [2, 3, 50])
def test_correlations_are_scipys_with_ties_and_without(objects: int, decimals: int) -> None:
    rng = np.random.default_rng(objects)
    true = np.r_[0.1, 0.9, rng.random(objects - 2)].round(decimals)
    predicted = np.clip(true + rng.normal(0, 0.3, objects), 0, 1).round(decimals)
    found = object_quality(predicted, true)
    assert found.objects == objects
    assert found.spearman == pytest.approx(float(np.asarray(spearmanr(predicted, true))[0]), abs=1e-9)
    assert found.pearson == pytest.approx(float(pearsonr(predicted, true)[0]), abs=1e-9)


def test_mean_error_and_bias_of_known_numbers() -> None:
    found = object_quality([0.9, 0.5, 0.8], [0.6, 0.6, 0.6])
    assert found.mae == pytest.approx(0.2, abs=1e-12)
    assert found.bias == pytest.approx(0.4 / 3, abs=1e-12)
    # all true IoUs are the same
    assert math.isnan(found.spearman)
    assert math.isnan(found.pearson)


def test_equal_predictions_have_no_correlation_whatever_their_rounding() -> None:
    found = object_quality([0.3] * 7, np.linspace(0, 1, 7))
    assert math.isnan(found.pearson)
    assert math.isnan(found.spearman)


@pytest.mark.parametrize(("predicted", "true"), [([], []), ([0.5], [0.5, 0.6]), ([[0.5]], [[0.5]])])
def test_lists_that_do_not_match_are_refused(predicted: list, true: list) -> None:
    with pytest.raises(ValueError, match="two lists of the same objects"):
        object_quality(predicted, true)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        object_quality([0.5, math.nan], [0.5, 0.5])


def test_expected_iou_is_that_of_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    logit = torch.from_numpy(rng.normal(0, 3, (3, 6, 7)))
    mask, valid = torch.from_numpy(rng.random((3, 6, 7)) < 0.4), torch.from_numpy(rng.random((6, 7)) < 0.8)
    for i, found in enumerate(expected_iou(logit, mask, valid)):
        intersection = union = 0.0
        for y, x in np.argwhere(valid.numpy()):
            p = 1 / (1 + math.exp(-float(logit[i, y, x])))
            intersection += p * bool(mask[i, y, x])
            union += 1 if mask[i, y, x] else p
        assert float(found) == pytest.approx(intersection / union, abs=1e-12)


def test_expected_iou_of_the_distributions_own_mask_is_its_own() -> None:
    mean, variance = torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(0)), torch.rand(2, 9, 9)
    distribution = MaskDistribution(4 * mean, variance)
    found = expected_iou(distribution.scaled_mean(), mean > 0, torch.ones(9, 9, dtype=torch.bool))
    torch.testing.assert_close(found, distribution.expected_iou())


def test_true_iou_of_drawn_truths_is_about_the_expected_one() -> None:
    generator = torch.Generator().manual_seed(1)
    logit = 3 * torch.randn(1, 60, 60, generator=generator)
    mask = torch.rand(logit.shape, generator=generator) < torch.sigmoid(logit)
    truths = torch.rand(200, 60, 60, generator=generator) < torch.sigmoid(logit)
    ious = (truths & mask).sum((1, 2)) / (truths | mask).sum((1, 2))
    expected = expected_iou(logit, mask, torch.ones(60, 60, dtype=torch.bool))
    assert float(expected[0]) == pytest.approx(float(ious.mean()), abs=2e-3)


def test_an_empty_mask_and_half_precision() -> None:
    logit = torch.full((1, 3, 3), 2.0, dtype=torch.float16)
    everywhere = torch.ones(3, 3, dtype=torch.bool)
    assert expected_iou(logit, ~everywhere[None], everywhere).tolist() == [0]
    assert expected_iou(logit, everywhere[None], ~everywhere).tolist() == [0]
    assert expected_iou(logit, everywhere[None], everywhere).tolist() == [pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)]
