"""The statistics and curves of the report against independent computation."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ruac.evaluate.error_detection import RegionHistograms, histograms
from ruac.report.curves import Mixture, mix, reliability, risk_coverage
from ruac.report.measures import AUROC, NLL
from ruac.report.ranks import cliques, holm, rank, wilcoxon
from ruac.report.scores import weighted_spearman


def test_weighted_rank_correlation_is_that_of_repeated_objects() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 40).astype(float), rng.normal(size=40)
    weights = rng.integers(0, 4, (5, 40)).astype(float)
    expected = [np.asarray(stats.spearmanr(np.repeat(x, w.astype(int)), np.repeat(y, w.astype(int))))[0] for w in weights]
    assert weighted_spearman(x, y, weights) == pytest.approx(expected)


def test_rank_correlation_without_spread_is_not_defined() -> None:
    assert np.isnan(weighted_spearman(np.ones(4), np.arange(4.0), np.ones((1, 4)))).all()


def test_mean_ranks_share_ties_and_friedman_is_scipys() -> None:
    values = np.array([[0.9, 0.8, 0.8], [0.7, 0.6, 0.9], [0.5, 0.4, 0.3], [0.6, 0.2, 0.1]])
    found = rank("AUROC", ("a", "b", "c"), values, higher=True)
    assert found is not None
    assert found.ranks == pytest.approx([(1 + 2 + 1 + 1) / 4, (2.5 + 3 + 2 + 2) / 4, (2.5 + 1 + 3 + 3) / 4])
    assert found.p == pytest.approx(stats.friedmanchisquare(*values.T).pvalue)
    lower = rank("AURC", ("a", "b", "c"), values, higher=False)
    assert lower is not None
    assert np.add(lower.ranks, found.ranks) == pytest.approx([4, 4, 4])


# critical values of the two-tailed Nemenyi test at 5 %, Demšar 2006, table 5
@pytest.mark.parametrize(("methods", "q"), [(3, 2.343), (4, 2.569), (6, 2.850), (10, 3.164)])
def test_critical_difference_is_that_of_the_published_table(methods: int, q: float) -> None:
    values = np.random.default_rng(0).random((14, methods))
    found = rank("AUROC", [str(i) for i in range(methods)], values, higher=True)
    assert found is not None
    assert found.critical == pytest.approx(q * math.sqrt(methods * (methods + 1) / (6 * 14)), rel=1e-3)


def test_fewer_than_three_sets_or_methods_are_not_ranked() -> None:
    values = np.arange(12.0).reshape(4, 3)
    assert rank("m", "abc", values, True) is not None
    assert rank("m", "ab", values[:, :2], True) is None
    values[1:3, 0] = np.nan
    assert rank("m", "abc", values, True) is None


def test_equal_methods_are_no_evidence() -> None:
    found = rank("m", "abc", np.ones((5, 3)), False)
    assert found is not None
    assert found.p == 1
    assert found.ranks == (2, 2, 2)


def test_bars_join_what_lies_within_the_critical_difference() -> None:
    assert cliques([1.0, 1.5, 2.6, 4.0], 1.2) == [(1.0, 1.5), (1.5, 2.6)]
    assert cliques([1.0, 1.1, 1.2], 5) == [(1.0, 1.2)]
    assert cliques([1.0, 3.0], 1) == []


def test_holm_corrects_the_smallest_most() -> None:
    assert holm([0.01, 0.04, math.nan, 0.03]) == pytest.approx([0.03, 0.06, math.nan, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_signed_ranks_need_six_differences() -> None:
    assert math.isnan(wilcoxon(np.array([1.0, 2, 3, 4, 5, 0, math.nan])))
    assert wilcoxon(np.arange(1.0, 7)) == pytest.approx(2 / 64)


def _mixture(seed: int, size: int) -> tuple[Mixture, np.ndarray, np.ndarray]:
    """A histogram of random pixels, their expected errors and whether they are wrong."""
    rng = np.random.default_rng(seed)
    logit = torch.from_numpy(rng.normal(0, 3, (size, size)).astype(np.float32))
    mask = logit > 0
    wrong = torch.from_numpy(rng.random((size, size))) < torch.sigmoid(-logit.abs() / 2)
    everything = torch.ones_like(mask)
    one = histograms(logit, mask, mask ^ wrong, everything, everything)
    mixture = mix([one.image])
    assert mixture is not None
    return mixture, torch.sigmoid(-logit.abs()).numpy().ravel(), wrong.numpy().ravel()


def test_reliability_is_the_error_rate_by_expected_error() -> None:
    mixture, expected, wrong = _mixture(0, 200)
    found = reliability(mixture)
    assert found.share.sum() == pytest.approx(1)
    cell = np.minimum((expected * 30).astype(int), 29)
    assert len(found.observed) == len(np.unique(cell)) == 15
    for i, bin_ in enumerate(np.unique(cell)):
        assert found.observed[i] == pytest.approx(wrong[cell == bin_].mean(), abs=0.02)
        assert found.expected[i] == pytest.approx(expected[cell == bin_].mean(), abs=1e-3)
    assert (found.observed > found.expected).sum() > 10  # made to be too sure


def test_risk_coverage_is_the_error_rate_among_the_most_certain() -> None:
    mixture, expected, wrong = _mixture(1, 200)
    found = risk_coverage(mixture)
    ordered = wrong[np.argsort(expected, kind="stable")]
    for coverage, risk in zip(found.coverage[::20], found.risk[::20], strict=True):
        assert risk == pytest.approx(ordered[: round(coverage * len(ordered))].mean(), abs=3e-3)
    assert found.risk[-1] == pytest.approx(wrong.mean())
    assert found.best[-1] == pytest.approx(wrong.mean())
    assert (found.best <= found.risk + 1e-12).all()


def test_every_set_counts_the_same_in_a_mixture() -> None:
    small, large = _mixture(2, 20), _mixture(3, 100)
    both = (small[0].shares + large[0].shares) / 2
    everything = torch.ones((20, 20), dtype=torch.bool)
    empty = RegionHistograms.empty().image
    assert mix([empty]) is None
    one = histograms(torch.ones(20, 20), everything, everything, everything, everything).image
    half = mix([one, empty, one + one])
    assert half is not None
    assert half.shares.sum() == pytest.approx(1)
    assert both.sum() == pytest.approx(1)


def test_numbers_are_written_without_a_minus_before_zero() -> None:
    assert AUROC.write(-0.00001) == "0.00"
    assert AUROC.write(0.98765) == "98.77"
    assert NLL.write(-0.5) == "-0.500"
    assert NLL.write(0.5, more=1) == "0.5000"
