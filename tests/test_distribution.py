"""Read-outs of logit mean and variance."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from torch import Tensor

from ruac.distribution import SAMPLED_AT_ONCE, MaskDistribution, bernoulli_entropy, expected_iou, monte_carlo, samples_at_once
from ruac.features import Frame


@pytest.fixture
def grid() -> MaskDistribution:
    """Every |mean| <= 15 with every variance in [0, 100], in float64: [25, 61]."""
    variance = torch.cat([torch.zeros(1), torch.logspace(-3, 2, 24)]).double()
    return MaskDistribution(torch.linspace(-15, 15, 61).double().expand(25, -1), variance[:, None].expand(-1, 61))


def expected(function: Callable[[Tensor], Tensor], distribution: MaskDistribution) -> Tensor:
    """E[function(logit)] by a fine trapezoid rule, whose error falls exponentially with the step for a smooth function."""
    nodes = torch.linspace(-9, 9, 1001, dtype=torch.float64)
    weights = torch.exp(-nodes.square() / 2)
    return function(distribution.mean[..., None] + distribution.variance.sqrt()[..., None] * nodes) @ weights / weights.sum()


def test_entropy_equals_scipys_and_is_in_bits():
    logits = torch.linspace(-8, 8, 33, dtype=torch.float64)
    p = torch.sigmoid(logits).numpy()
    expected = [entropy([q, 1 - q], base=2) for q in p]
    np.testing.assert_allclose(bernoulli_entropy(logits).numpy(), expected, rtol=1e-9)
    assert bernoulli_entropy(torch.zeros(())).item() == pytest.approx(1)


def test_entropy_keeps_its_order_where_probabilities_round_to_one():
    far = bernoulli_entropy(torch.tensor([20.0, 40.0, 60.0, 80.0]))
    assert (far[:-1] > far[1:]).all()
    assert (far > 0).all()


def test_probability_is_close_to_the_expected_sigmoid_of_a_normal_logit():
    mean = torch.linspace(-4, 4, 9, dtype=torch.float64)
    variance = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)[:, None].expand(3, 9)
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(64))
    exact = (torch.sigmoid(mean[:, None] + variance[..., None].sqrt() * nodes) * weights).sum(-1) / weights.sum()
    approximate = MaskDistribution(mean.expand(3, 9), variance).probability()
    assert (approximate - exact).abs().max() < 0.02


@given(st.floats(-30, 30), st.floats(0, 1000))
@settings(deadline=None)
def test_variance_only_ever_adds_doubt(mean, variance):
    sure = MaskDistribution(torch.tensor(mean), torch.tensor(0.0))
    unsure = MaskDistribution(torch.tensor(mean), torch.tensor(variance))
    assert unsure.entropy() >= sure.entropy() - 1e-6
    assert unsure.expected_error() >= sure.expected_error() - 1e-7
    assert (unsure.probability() > 0.5) == (sure.probability() > 0.5) or abs(mean) < 1e-3
    assert 0 <= unsure.entropy() <= 1 + 1e-6


def test_resize_cuts_the_padding_off_and_keeps_constant_maps_constant():
    frame = Frame.fit(300, 400, side=64, stride=4)
    mean = torch.full((2, 3, 16, 16), 5.0)
    mean[..., frame.inside[0] // 4 :, :] = -100.0  # the padding
    resized = MaskDistribution(mean, torch.ones_like(mean)).resize(frame, 64)
    assert resized.mean.shape == (2, 3, 300, 400)
    assert (resized.mean == 5).all()
    assert (resized.variance == 1).all()


def test_moments_are_resized_before_the_entropy_is_read():
    """Half way between two sure, opposite pixels lies a coin toss: entropies of the ends would average to certainty."""
    mean = torch.tensor([-20.0, 20.0]).expand(1, 1, 2, 2)
    frame = Frame(original=(2, 7), inside=(8, 8))
    assert MaskDistribution(mean, torch.zeros_like(mean)).resize(frame, 8).entropy()[0, 0, 0, 3] == pytest.approx(1)


def test_aleatoric_entropy_is_the_expected_entropy(grid):
    assert (grid.aleatoric() - expected(bernoulli_entropy, grid)).abs().max() < 1e-6


def test_predictive_entropy_is_that_of_the_expected_probability(grid):
    foreground, background = expected(torch.sigmoid, grid), expected(lambda x: torch.sigmoid(-x), grid)
    exact = bernoulli_entropy(foreground.log() - background.log())
    assert (grid.predictive_entropy() - exact).abs().max() < 1e-6
    assert (grid.epistemic() - (exact - grid.aleatoric()).clamp_min(0)).abs().max() < 1e-6
    difference = grid.entropy() - exact  # what MacKay's probability makes of it, as the docstring says
    assert -0.006 < difference.min() < -0.004
    assert 0.07 < difference.max() < 0.081


def test_float32_read_outs_are_as_precise_as_the_mixture(grid):
    single = MaskDistribution(grid.mean.float(), grid.variance.float())
    for name in ("aleatoric", "predictive_entropy", "epistemic"):
        assert (getattr(single, name)() - getattr(grid, name)()).abs().max() < 1e-6


@given(st.floats(-1e4, 1e4), st.floats(0, 1e6))
def test_aleatoric_and_epistemic_add_up_to_the_predictive_entropy(mean, variance):
    pixel = MaskDistribution(torch.tensor(mean), torch.tensor(variance))
    total, aleatoric, epistemic = pixel.predictive_entropy(), pixel.aleatoric(), pixel.epistemic()
    assert (aleatoric + epistemic).item() == pytest.approx(total.item(), abs=1e-6)
    assert epistemic >= 0
    assert -1e-6 < aleatoric < 1 + 1e-6


def test_a_known_logit_leaves_nothing_to_learn():
    mean = torch.linspace(-60, 60, 241)
    known = MaskDistribution(mean, torch.zeros_like(mean))
    assert known.epistemic().max() < 1e-6
    torch.testing.assert_close(known.aleatoric(), bernoulli_entropy(mean), rtol=0, atol=1e-6)


def test_samples_have_the_mean_and_variance_of_the_distribution():
    distribution = MaskDistribution(torch.tensor([[-3.0, 0.0, 8.0]]), torch.tensor([[0.0, 1.0, 25.0]]))
    samples = distribution.sample(20_000, torch.Generator().manual_seed(0))
    assert samples.shape == (20_000, 1, 3)
    torch.testing.assert_close(samples.mean(0), distribution.mean, rtol=0, atol=0.1)
    torch.testing.assert_close(samples.var(0), distribution.variance, rtol=0.03, atol=0)
    assert samples[:, 0, 1:].T.corrcoef()[0, 1].abs() < 0.03  # pixels are independent


def test_split_agrees_with_sampling():
    mean, variance = torch.meshgrid(torch.tensor([-6.0, -1.0, 0.0, 3.0]), torch.tensor([0.0, 0.5, 5.0, 50.0]), indexing="ij")
    distribution = MaskDistribution(mean, variance)
    sampled = distribution.monte_carlo(40_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(sampled.aleatoric, distribution.aleatoric(), rtol=0, atol=0.01)
    torch.testing.assert_close(sampled.mutual_information, distribution.epistemic(), rtol=0, atol=0.01)
    torch.testing.assert_close(sampled.entropy, distribution.predictive_entropy(), rtol=0, atol=0.01)
    torch.testing.assert_close(sampled.probability, distribution.probability(), rtol=0, atol=0.03)


@pytest.mark.parametrize("chunk", [1, 3, 7, 20, 64])
def test_monte_carlo_in_chunks_is_monte_carlo_in_one_go(chunk):
    logits = 6 * torch.randn(20, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    left, asked = iter(logits), []

    def draw(n: int) -> Tensor:
        asked.append(n)
        return torch.stack([next(left) for _ in range(n)])

    found = monte_carlo(draw, 20, chunk)
    assert sum(asked) == 20
    assert max(asked) <= chunk
    p = torch.sigmoid(logits.double())
    aleatoric = torch.from_numpy(entropy(torch.stack([p, 1 - p]).numpy(), base=2)).mean(0)
    total = torch.from_numpy(entropy(torch.stack([p.mean(0), 1 - p.mean(0)]).numpy(), base=2))
    for name, reference in {
        "probability": p.mean(0),
        "entropy": total,
        "aleatoric": aleatoric,
        "mutual_information": total - aleatoric,
    }.items():
        torch.testing.assert_close(getattr(found, name), reference.float(), rtol=0, atol=1e-6)


def test_mutual_information_of_few_samples_is_too_low_by_one_in_as_many():
    distribution = MaskDistribution(torch.linspace(-4, 4, 20_000), torch.full((20_000,), 4.0))
    found = distribution.monte_carlo(20, torch.Generator().manual_seed(0)).mutual_information
    assert (found.mean() / distribution.epistemic().mean()).item() == pytest.approx(1 - 1 / 20, abs=0.01)


def test_half_precision_draws_are_summed_up_in_float32():
    found = monte_carlo(lambda n: torch.full((n, 2), 1.0, dtype=torch.bfloat16), 1000, 10)
    torch.testing.assert_close(found.probability, torch.sigmoid(torch.ones(2)))


def test_chunks_stay_within_the_bound_and_hold_one_sample_at_least():
    assert samples_at_once(1000) * 1000 <= SAMPLED_AT_ONCE < (samples_at_once(1000) + 1) * 1000
    assert samples_at_once(3 * 4000 * 3000) == 1


@pytest.mark.parametrize(("samples", "chunk"), [(0, 1), (1, 0)])
def test_monte_carlo_of_nothing_is_refused(samples, chunk):
    with pytest.raises(ValueError, match="nothing to draw"):
        monte_carlo(torch.zeros, samples, chunk)


def brute_force_iou(logits: np.ndarray, probability: np.ndarray, valid: np.ndarray) -> float:
    intersection = union = 0.0
    for logit, p, counts in zip(logits.flat, probability.flat, valid.flat, strict=True):
        if counts and logit > 0:
            intersection, union = intersection + p, union + 1
        elif counts:
            union += p
    return intersection / union


def test_expected_iou_is_that_of_a_loop_over_pixels():
    g = torch.Generator().manual_seed(0)
    distribution = MaskDistribution(4 * torch.randn(2, 3, 8, 7, generator=g), 20 * torch.rand(2, 3, 8, 7, generator=g))
    valid = torch.rand(2, 1, 8, 7, generator=g) < 0.7
    everywhere, counted = distribution.expected_iou(), distribution.expected_iou(valid)
    assert everywhere.shape == counted.shape == (2, 3)
    probability = distribution.probability().numpy()
    for i, k in np.ndindex(2, 3):
        arrays = distribution.mean[i, k].numpy(), probability[i, k]
        assert everywhere[i, k].item() == pytest.approx(brute_force_iou(*arrays, np.ones((8, 7))), rel=1e-5)
        assert counted[i, k].item() == pytest.approx(brute_force_iou(*arrays, valid[i, 0].numpy()), rel=1e-5)
    torch.testing.assert_close(distribution.expected_iou(valid.float()), counted)


def test_expected_iou_is_the_average_over_truths_that_the_distribution_draws():
    g = torch.Generator().manual_seed(0)
    mean = 3 * torch.randn(30, 30, generator=g)
    distribution = MaskDistribution(mean, torch.full_like(mean, 2.0))
    truth, mask = torch.rand(2000, 30, 30, generator=g) < distribution.probability(), mean > 0
    iou = (truth & mask).sum((1, 2)) / (truth | mask).sum((1, 2))
    assert distribution.expected_iou().item() == pytest.approx(iou.mean().item(), abs=0.002)


def test_expected_iou_is_one_for_a_certain_mask_and_zero_for_an_empty_one():
    mean = torch.full((3, 4, 4), -200.0)  # far below the least float32 has a probability for
    mean[0, 1, 1] = 200.0
    mean[1] = -1.0
    iou = MaskDistribution(mean, torch.zeros_like(mean)).expected_iou()
    assert iou.tolist() == [1, 0, 0]
    assert MaskDistribution(mean, torch.zeros_like(mean)).expected_iou(torch.zeros(4, 4)).tolist() == [0, 0, 0]


def test_expected_iou_of_a_large_map_counts_every_pixel():
    mean = torch.full((4000, 3000), 3.0)
    mean[:, 1500:] = -3.0
    sure = torch.sigmoid(torch.tensor(3.0, dtype=torch.float64)).item()
    distribution = MaskDistribution(mean, torch.zeros(()).expand(4000, 3000))
    assert distribution.expected_iou().item() == pytest.approx(sure / (2 - sure), rel=1e-5)


def test_expected_iou_of_a_given_mask_is_that_of_a_loop_over_pixels():
    g = torch.Generator().manual_seed(0)
    probability = torch.rand(3, 6, 7, generator=g, dtype=torch.float64)
    mask, valid = torch.rand(3, 6, 7, generator=g) < 0.4, torch.rand(6, 7, generator=g) < 0.8
    for i, found in enumerate(expected_iou(probability.logit(), mask, valid)):
        signs = np.where(mask[i], 1.0, -1.0)
        assert found.item() == pytest.approx(brute_force_iou(signs, probability[i].numpy(), valid.numpy()), abs=1e-12)


def test_expected_iou_of_a_given_mask_is_the_average_over_drawn_truths():
    g = torch.Generator().manual_seed(1)
    logit = 3 * torch.randn(60, 60, generator=g)
    mask = torch.rand(60, 60, generator=g) < torch.sigmoid(logit)
    truths = torch.rand(200, 60, 60, generator=g) < torch.sigmoid(logit)
    ious = (truths & mask).sum((1, 2)) / (truths | mask).sum((1, 2))
    assert expected_iou(logit, mask).item() == pytest.approx(ious.mean().item(), abs=2e-3)


def test_expected_iou_of_an_empty_mask_and_in_half_precision():
    logit, everywhere = torch.full((1, 3, 3), 2.0, dtype=torch.float16), torch.ones(3, 3, dtype=torch.bool)
    assert expected_iou(logit, ~everywhere[None], everywhere).tolist() == [0]
    assert expected_iou(logit, everywhere[None], ~everywhere).tolist() == [0]
    assert expected_iou(logit, everywhere[None], everywhere).tolist() == [pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_read_outs_are_float32_and_free_of_nan_at_every_extreme(dtype):
    mean, variance = torch.meshgrid(
        torch.tensor([-6e4, -100.0, -15.0, 0.0, 1e-4, 15.0, 100.0, 6e4]), torch.tensor([0.0, 1e-4, 1.0, 6e4]), indexing="ij"
    )
    distribution = MaskDistribution(mean.to(dtype), variance.to(dtype))
    read_outs = [
        getattr(distribution, name)()
        for name in ("probability", "entropy", "expected_error", "predictive_entropy", "aleatoric", "epistemic", "expected_iou")
    ]
    read_outs += vars(distribution.monte_carlo(5, torch.Generator().manual_seed(0))).values()
    for values in read_outs:
        assert values.dtype == torch.float32
        assert torch.isfinite(values).all()
        assert (values >= 0).all()
        assert values.max() <= 1 + 1e-6


def test_read_outs_have_finite_gradients_where_the_variance_is_zero():
    mean = torch.tensor([[-200.0, 0.0, 3.0]], requires_grad=True)
    variance = torch.zeros(1, 3, requires_grad=True)
    distribution = MaskDistribution(mean, variance)
    (distribution.aleatoric() + distribution.epistemic() + distribution.predictive_entropy()).sum().backward()
    for gradient in (mean.grad, variance.grad):
        assert gradient is not None
        assert torch.isfinite(gradient).all()
