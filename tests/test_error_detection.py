import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score
from torchmetrics.functional.classification import binary_calibration_error

from ruac.distribution import MaskDistribution, bernoulli_entropy
from ruac.evaluate.error_detection import (
    BINS,
    CALIBRATION_BINS,
    LOGIT_RANGE,
    MAX_LOSS,
    ErrorDetection,
    ErrorHistogram,
    histograms,
)
from ruac.regions import band_around

HALF = BINS // 2
WIDTH = LOGIT_RANGE / HALF
STATED_ERROR = {
    **dict.fromkeys(("auroc", "spearman", "pearson", "brier"), 1e-4),
    **dict.fromkeys(("ece", "ece_adaptive", "aurc", "eaurc"), 5e-4),
    "aupr": 2e-3,
    "nll": 1e-6,
}


def quantised(logits: np.ndarray) -> np.ndarray:
    """Each logit moved to the centre of its bin."""
    cell = np.minimum(np.floor(np.abs(logits) / WIDTH), HALF - 1)
    return np.where(logits > 0, 1, -1) * (cell + 0.5) * WIDTH


def measured(
    logits: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None, dtype: torch.dtype = torch.float64
) -> ErrorDetection:
    """mask: what is judged, by default that of the logits."""
    mask = logits > 0 if mask is None else mask
    everywhere = torch.ones(truth.shape, dtype=torch.bool)
    tensors = torch.from_numpy(logits).to(dtype), torch.from_numpy(mask), torch.from_numpy(truth)
    return histograms(*tensors, everywhere, everywhere).image.read()


def reference(logits: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> ErrorDetection:
    """The same by other people's code, or by sorting."""
    logits, truth = logits.ravel(), truth.ravel()
    mask = logits > 0 if mask is None else mask.ravel()
    p = 1 / (1 + np.exp(-logits))
    wrong = mask != truth
    confidence = np.where(mask, p, 1 - p)
    # 1 - p of a large logit has too few digits
    signed = np.where(mask, logits, -logits)
    doubt = 1 / (1 + np.exp(signed))
    mixed = 0 < wrong.sum() < wrong.size
    varied = mixed and np.ptp(signed) > 0
    aurc = risk_coverage(-signed, wrong)
    return ErrorDetection(
        pixels=logits.size,
        error_rate=wrong.mean(),
        auroc=float(roc_auc_score(wrong, -signed)) if mixed else math.nan,
        aupr=float(average_precision_score(wrong, -signed)) if mixed else math.nan,
        spearman=float(np.asarray(spearmanr(-signed, wrong))[0]) if varied else math.nan,
        pearson=float(pearsonr(doubt, wrong)[0]) if varied else math.nan,
        # 15 bins of [1/2, 1] and as many below
        ece=float(binary_calibration_error(torch.from_numpy(confidence), torch.from_numpy(~wrong), 2 * CALIBRATION_BINS)),
        ece_adaptive=equal_mass_error(signed, confidence, wrong),
        brier=float(brier_score_loss(truth, p, labels=[False, True])),
        nll=float(log_loss(truth, np.stack([1 / (1 + np.exp(logits)), p], 1), labels=[False, True])),
        aurc=aurc,
        # all right ones first
        eaurc=aurc - float((np.sort(wrong).cumsum() / np.arange(1, wrong.size + 1)).mean()),
    )


def equal_mass_error(signed: np.ndarray, confidence: np.ndarray, wrong: np.ndarray) -> float:
    """Pixels of one logit go where the middle one of them belongs, in order of the logit."""
    _, block, sizes = np.unique(signed, return_inverse=True, return_counts=True)
    middle = (sizes.cumsum() - sizes / 2) / signed.size
    gap = [(confidence - ~wrong)[(middle[block] * CALIBRATION_BINS).astype(int) == i].sum() for i in range(CALIBRATION_BINS)]
    return float(np.abs(gap).sum() / signed.size)


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
@example(0, 1, 1.0, 1.0)
@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.floats(0.01, 8), st.floats(-1, 3))
def test_logits_at_bin_centres_give_what_other_libraries_give(seed: int, pixels: int, spread: float, skill: float) -> None:
    logits, truth = case(seed, pixels, spread, skill)
    logits = quantised(logits)
    assert_close(measured(logits, truth), reference(logits, truth), 1e-6)


@settings(max_examples=40)
@example(0, 1, 1.0, 0.0)
@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.floats(0.01, 8), st.floats(0, 1))
def test_the_mask_is_judged_also_where_the_logit_is_against_it(seed: int, pixels: int, spread: float, agreeing: float) -> None:
    logits, truth = case(seed, pixels, spread, 1)
    logits = quantised(logits)
    mask = (logits > 0) == (np.random.default_rng(seed).random(pixels) < agreeing)
    assert_close(measured(logits, truth, mask), reference(logits, truth, mask), 1e-6)


def test_a_method_that_knows_that_the_mask_is_wrong_detects_all_errors() -> None:
    truth = np.arange(40) < 30
    logits = np.where(truth, 4.0, -4.0)
    found = measured(logits, truth, mask=np.ones(40, bool))
    assert found.auroc == found.aupr == 1
    assert found.error_rate == 0.25
    assert found.eaurc == pytest.approx(0, abs=1e-12)
    # right with 98 %, wrong with 98 %
    assert found.ece == found.ece_adaptive == pytest.approx(1 / (1 + math.exp(4)), abs=1e-12)
    assert found.nll == pytest.approx(math.log1p(math.exp(-4)), abs=1e-7)


@pytest.mark.parametrize("disagree", [0.0, 0.1])
@pytest.mark.parametrize(("spread", "skill"), [(0.5, 1), (3, 1), (3, 0.3), (6, 2), (6, 0)])
def test_smooth_logits_are_binned_to_within_the_stated_error(spread: float, skill: float, disagree: float) -> None:
    logits, truth = case(1, 200_000, spread, skill)
    mask = (logits > 0) != (np.random.default_rng(2).random(logits.size) < disagree)
    found = measured(logits, truth, mask, torch.float32)
    exact = reference(logits, truth, mask)
    assert found.error_rate == exact.error_rate
    for name, tolerance in STATED_ERROR.items():
        assert getattr(found, name) == pytest.approx(getattr(exact, name), abs=tolerance), name


@pytest.mark.parametrize("right", [True, False])
def test_detection_is_undefined_without_errors_or_with_errors_only(right: bool) -> None:
    logits = quantised(np.linspace(-5, 5, 40))
    truth = (logits > 0) == right
    found = measured(logits, truth)
    assert math.isnan(found.auroc)
    assert math.isnan(found.aupr)
    assert math.isnan(found.spearman)
    assert math.isnan(found.pearson)
    assert found.error_rate == found.aurc == (0 if right else 1)
    assert found.eaurc == pytest.approx(0, abs=1e-12)
    assert_close(found, reference(logits, truth), 1e-6)


def test_equal_uncertainty_everywhere_detects_nothing() -> None:
    truth = np.arange(40) % 4 > 0
    found = measured(np.full(40, 2.0), truth)
    assert found.auroc == 0.5
    assert found.aupr == found.error_rate == 0.25
    assert math.isnan(found.spearman)
    assert math.isnan(found.pearson)
    assert found.aurc == pytest.approx(0.25, abs=1e-12)
    # all in one cell: the confidence less the accuracy
    assert found.ece == found.ece_adaptive == pytest.approx(1 / (1 + math.exp(-2)) - 0.75, abs=1e-12)


def test_perfect_knowledge_of_the_errors_scores_best() -> None:
    logits = np.r_[np.full(30, 5.0), np.full(10, 0.1)]
    found = measured(logits, np.arange(40) < 30)
    assert found.auroc == found.aupr == 1
    assert found.spearman == pytest.approx(1, abs=1e-12)
    assert found.pearson == pytest.approx(1, abs=1e-12)
    assert found.eaurc == pytest.approx(0, abs=1e-12)


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
        logit, mask, right = (torch.from_numpy(values[piece]) for values in (logits, logits > 0.5, truth))
        return histograms(logit, mask, right, everywhere[piece], everywhere[piece]).image

    edges = [0, *sorted(cuts), 50]
    total = sum((parts(*pair) for pair in itertools.pairwise(edges)), ErrorHistogram.empty())
    whole = parts(0, 50)
    np.testing.assert_array_equal(total.counts, whole.counts)
    np.testing.assert_allclose(total.expected, whole.expected, rtol=1e-12)
    assert total.nll == pytest.approx(whole.nll, rel=1e-12)
    assert whole.counts.sum() == 50


def test_the_band_is_a_part_of_the_image_and_ignored_pixels_are_in_neither() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 3, (30, 40)))
    truth, valid, band = (torch.from_numpy(rng.random((30, 40)) < share) for share in (0.4, 0.8, 0.3))
    both = histograms(logits, logits > 0, truth, valid, band)
    for histogram, region in ((both.image, valid), (both.band, valid & band)):
        expected = reference(quantised(logits[region].numpy()), truth[region].numpy())
        found = measured(quantised(logits[region].numpy()), truth[region].numpy())
        assert histogram.read().pixels == int(region.sum())
        assert histogram.read().auroc == pytest.approx(expected.auroc, abs=1e-9)
        assert histogram.read().error_rate == found.error_rate
        exact = log_loss(truth[region], torch.sigmoid(logits[region]))
        assert histogram.read().nll == pytest.approx(exact, rel=1e-9)
    changed = histograms(torch.where(valid, logits, -5 * logits), logits > 0, truth, valid, band)
    np.testing.assert_array_equal(changed.image.counts, both.image.counts)
    assert changed.image.nll == both.image.nll


def test_a_logit_of_zero_is_a_coin_toss_and_huge_ones_land_in_the_end_bins() -> None:
    everywhere = torch.ones(4, dtype=torch.bool)
    logits, mask = torch.tensor([0.0, 1e30, -torch.inf, -torch.inf]), torch.tensor([False, True, False, True])
    found = histograms(logits, mask, everywhere, everywhere, everywhere).image
    assert found.counts[1, HALF] == 1  # wrong
    assert found.counts[0, -1] == 1
    assert found.counts[1, -1] == 1
    assert found.counts[0, 0] == 1
    assert found.counts.sum() == 4
    assert found.expected[1, HALF] == 0.5
    # two of four are certain and wrong
    assert found.nll == pytest.approx(math.log(2) + 2 * MAX_LOSS, abs=1e-6)


def test_logits_beyond_the_range_keep_their_exact_log_loss() -> None:
    logits = np.array([40.0, -60.0, 90.0, 20.0])
    truth = np.array([False, True, True, False])
    found = measured(logits, truth)
    assert found.nll == pytest.approx((40 + 60 + 0 + 20) / 4, abs=1e-6)
    assert all(math.isfinite(value) for name, value in vars(found).items() if name not in ("spearman", "pearson"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_judged_by_the_values_it_holds(dtype: torch.dtype) -> None:
    logits, truth = case(9, 2_000, 3, 1)
    rounded = torch.from_numpy(logits).to(dtype)
    assert_close(measured(logits, truth, dtype=dtype), measured(rounded.double().numpy(), truth), 1e-6)


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
        histograms(torch.tensor([0.0, torch.nan]), everywhere, everywhere, everywhere, everywhere)


def test_nothing_to_judge_is_refused() -> None:
    with pytest.raises(ValueError, match="no pixel"):
        ErrorHistogram.empty().read()
