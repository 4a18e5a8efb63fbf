import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

from ruac.distribution import MaskDistribution, bernoulli_entropy
from ruac.evaluate.error_detection import BINS, LOGIT_RANGE, ErrorDetection, ErrorHistogram, histograms
from ruac.regions import band_around

WIDTH = LOGIT_RANGE / BINS


def quantised(logits: np.ndarray) -> np.ndarray:
    """Each logit moved to the centre of its bin."""
    cell = np.minimum(np.floor(np.abs(logits) / WIDTH), BINS - 1)
    return np.where(logits > 0, 1, -1) * (cell + 0.5) * WIDTH


def measured(logits: np.ndarray, truth: np.ndarray, dtype: torch.dtype = torch.float64) -> ErrorDetection:
    everywhere = torch.ones(truth.shape, dtype=torch.bool)
    return histograms(torch.from_numpy(logits).to(dtype), torch.from_numpy(truth), everywhere, everywhere).image.read()


def reference(logits: np.ndarray, truth: np.ndarray) -> ErrorDetection:
    """The same by other people's code, or by sorting."""
    logits, truth = logits.ravel(), truth.ravel()
    p = 1 / (1 + np.exp(-logits))
    wrong = (logits > 0) != truth
    uncertainty = -np.abs(logits)
    mixed = 0 < wrong.sum() < wrong.size
    both = torch.from_numpy(np.stack([1 - p, p], 1))
    return ErrorDetection(
        pixels=logits.size,
        error_rate=wrong.mean(),
        auroc=float(roc_auc_score(wrong, uncertainty)) if mixed else math.nan,
        aupr=float(average_precision_score(wrong, uncertainty)) if mixed else math.nan,
        spearman=float(np.asarray(spearmanr(uncertainty, wrong))[0]) if mixed and np.ptp(uncertainty) else math.nan,
        # confidences of two classes are at least 1/2: 15 of these 30 bins
        ece=float(multiclass_calibration_error(both, torch.from_numpy(truth).long(), num_classes=2, n_bins=30)),
        brier=float(brier_score_loss(truth, p, labels=[False, True])),
        aurc=risk_coverage(uncertainty, wrong),
    )


def risk_coverage(uncertainty: np.ndarray, wrong: np.ndarray) -> float:
    """Mean error rate among the k most certain, k = 1, 2, ...; equally uncertain pixels share their errors evenly."""
    _, block, sizes = np.unique(uncertainty, return_inverse=True, return_counts=True)
    share = np.bincount(block, wrong) / sizes
    return float((np.repeat(share, sizes).cumsum() / np.arange(1, wrong.size + 1)).mean())


def assert_close(one: ErrorDetection, other: ErrorDetection, tolerance: float) -> None:
    for name, value in vars(other).items():
        assert getattr(one, name) == pytest.approx(value, abs=tolerance, nan_ok=True), name


def case(seed: int, pixels: int, spread: float, skill: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits and a truth that follows them more or less."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.3, spread, pixels)
    return logits, rng.random(pixels) < 1 / (1 + np.exp(-skill * logits))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.floats(0.01, 8), st.floats(-1, 3))
def test_logits_at_bin_centres_give_what_other_libraries_give(seed: int, pixels: int, spread: float, skill: float) -> None:
    logits, truth = case(seed, pixels, spread, skill)
    logits = quantised(logits)
    assert_close(measured(logits, truth), reference(logits, truth), 1e-6)


@pytest.mark.parametrize(("spread", "skill"), [(0.5, 1), (3, 1), (3, 0.3), (6, 2), (6, 0)])
def test_smooth_logits_are_binned_to_within_the_stated_error(spread: float, skill: float) -> None:
    logits, truth = case(1, 200_000, spread, skill)
    found, exact = measured(logits, truth, torch.float32), reference(logits, truth)
    assert found.error_rate == exact.error_rate
    for name, tolerance in {"auroc": 1e-4, "spearman": 1e-4, "brier": 1e-4, "ece": 5e-4, "aurc": 5e-4, "aupr": 2e-3}.items():
        assert getattr(found, name) == pytest.approx(getattr(exact, name), abs=tolerance), name


@pytest.mark.parametrize("right", [True, False])
def test_detection_is_undefined_without_errors_or_with_errors_only(right: bool) -> None:
    logits = quantised(np.linspace(-5, 5, 40))
    truth = (logits > 0) == right
    found = measured(logits, truth)
    assert math.isnan(found.auroc)
    assert math.isnan(found.aupr)
    assert math.isnan(found.spearman)
    assert found.error_rate == found.aurc == (0 if right else 1)
    assert_close(found, reference(logits, truth), 1e-6)


def test_equal_uncertainty_everywhere_detects_nothing() -> None:
    truth = np.arange(40) % 4 > 0
    found = measured(np.full(40, 2.0), truth)
    assert found.auroc == 0.5
    assert found.aupr == found.error_rate == 0.25
    assert math.isnan(found.spearman)
    assert found.aurc == pytest.approx(0.25, abs=1e-12)


def test_perfect_knowledge_of_the_errors_scores_best() -> None:
    logits = np.r_[np.full(30, 5.0), np.full(10, 0.1)]
    found = measured(logits, np.arange(40) < 30)
    assert found.auroc == found.aupr == 1
    assert found.spearman == pytest.approx(1, abs=1e-12)


def test_calibrated_probabilities_have_little_calibration_error() -> None:
    logits, truth = case(3, 400_000, 2, 1)
    assert measured(logits, truth).ece < 0.005
    assert measured(3 * logits, truth).ece > 0.1


def test_ranking_metrics_do_not_depend_on_which_uncertainty_is_taken() -> None:
    logits, truth = case(5, 2_000, 2, 1)
    wrong = (logits > 0) != truth
    entropy = bernoulli_entropy(torch.from_numpy(quantised(logits))).numpy()
    assert measured(logits, truth).auroc == pytest.approx(roc_auc_score(wrong, entropy), abs=1e-9)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=5), st.integers(0, 2**32 - 1))
def test_histograms_of_parts_add_up_to_the_whole(cuts: list[int], seed: int) -> None:
    logits, truth = case(seed, 50, 3, 1)
    everywhere = torch.ones(50, dtype=torch.bool)

    def parts(start: int, stop: int) -> ErrorHistogram:
        piece = slice(start, stop)
        return histograms(
            torch.from_numpy(logits[piece]), torch.from_numpy(truth[piece]), everywhere[piece], everywhere[piece]
        ).image

    edges = [0, *sorted(cuts), 50]
    total = sum((parts(*pair) for pair in itertools.pairwise(edges)), ErrorHistogram.empty())
    whole = parts(0, 50)
    np.testing.assert_array_equal(total.counts, whole.counts)
    np.testing.assert_allclose(total.expected, whole.expected, rtol=1e-12)
    assert whole.counts.sum() == 50


def test_the_band_is_a_part_of_the_image_and_ignored_pixels_are_in_neither() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 3, (30, 40)))
    truth, valid, band = (torch.from_numpy(rng.random((30, 40)) < share) for share in (0.4, 0.8, 0.3))
    both = histograms(logits, truth, valid, band)
    for histogram, region in ((both.image, valid), (both.band, valid & band)):
        expected = reference(quantised(logits[region].numpy()), truth[region].numpy())
        found = measured(quantised(logits[region].numpy()), truth[region].numpy())
        assert histogram.read().pixels == int(region.sum())
        assert histogram.read().auroc == pytest.approx(expected.auroc, abs=1e-9)
        assert histogram.read().error_rate == found.error_rate
    changed = torch.where(valid, logits, -5 * logits)
    np.testing.assert_array_equal(histograms(changed, truth, valid, band).image.counts, both.image.counts)


def test_a_logit_of_zero_is_background_and_a_huge_one_lands_in_the_last_bin() -> None:
    everywhere = torch.ones(3, dtype=torch.bool)
    counts = histograms(
        torch.tensor([0.0, 1e30, -torch.inf]), torch.tensor([True, True, True]), everywhere, everywhere
    ).image.counts
    assert counts[1, 0] == 1  # wrong
    assert counts[0, -1] == 1
    assert counts[1, -1] == 1
    assert counts.sum() == 3


def test_scaled_mean_of_a_distribution_gives_the_scores_of_its_probability() -> None:
    logits, truth = case(7, 3_000, 3, 1)
    variance = np.random.default_rng(1).uniform(0, 20, logits.shape)
    distribution = MaskDistribution(torch.from_numpy(logits), torch.from_numpy(variance))
    found = measured(distribution.scaled_mean().numpy(), truth)
    assert found.brier == pytest.approx(brier_score_loss(truth, distribution.probability().numpy()), abs=1e-4)


def test_band_reaches_two_percent_of_the_diagonal_around_either_mask() -> None:
    predicted, truth = np.zeros((2, 300, 400), bool)
    truth[100, 100] = predicted[200, 300] = True
    rows, columns = np.mgrid[:300, :400]
    radius = 0.02 * 500
    expected = (np.hypot(rows - 100, columns - 100) <= radius) | (np.hypot(rows - 200, columns - 300) <= radius)
    np.testing.assert_array_equal(band_around(predicted, truth), expected)


def test_not_a_number_is_refused() -> None:
    everywhere = torch.ones(2, dtype=torch.bool)
    with pytest.raises(ValueError, match="NaN"):
        histograms(torch.tensor([0.0, torch.nan]), everywhere, everywhere, everywhere)


def test_nothing_to_judge_is_refused() -> None:
    with pytest.raises(ValueError, match="no pixel"):
        ErrorHistogram.empty().read()
