import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from ruac.evaluate.object_quality import object_quality


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
