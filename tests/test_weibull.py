"""The Weibull distribution against sampling, torch.distributions, numerical integration and numerical gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.distributions import Gamma, Weibull, kl_divergence

from ruac.weibull import SCALE_FLOOR, concentration_of, kl_to_gamma, mean_factor, sample_with_mean, squared_variation

concentrations = st.floats(0.3, 50)
means = st.one_of(st.just(0.0), st.floats(1e-6, 1e4))
priors = st.tuples(st.floats(0.1, 10), st.floats(0.01, 100))
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def stratified(count: int) -> Tensor:
    """One uniform number in each of `count` equal intervals: no seed has to be lucky for the variance to come out within 1 %."""
    generator = torch.Generator().manual_seed(0)
    return (torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)) / count


# κ = 0.3: a fifteenth of E[X²] lies in the topmost of the 200,000 intervals, where there is one sample
@pytest.mark.parametrize(
    ("concentration", "variance_error"), [(0.3, 0.25), (0.5, 0.01), (1.0, 0.01), (2.0, 0.01), (10.0, 0.01), (50.0, 0.01)]
)
def test_closed_form_moments_are_those_of_samples(concentration: float, variance_error: float) -> None:
    mean, k = double(3.0), double(concentration)
    samples = sample_with_mean(mean, k, stratified(200_000))
    assert samples.mean().item() == pytest.approx(3, rel=0.01)
    assert samples.var().item() == pytest.approx(9 * squared_variation(k).item(), rel=variance_error)


@given(concentrations, st.floats(0.01, 100))
def test_moments_are_those_of_torch_distributions(concentration: float, scale: float) -> None:
    reference = Weibull(double(scale), double(concentration))
    assert scale * mean_factor(double(concentration)).item() == pytest.approx(reference.mean.item(), rel=1e-9)
    cv2 = (reference.variance / reference.mean**2).item()
    assert squared_variation(double(concentration)).item() == pytest.approx(cv2, rel=1e-6)


def test_squared_variation_of_an_exponential_variable_is_one() -> None:
    assert squared_variation(torch.tensor(1.0)).item() == pytest.approx(1)


@given(concentrations)
def test_spread_falls_with_the_concentration(concentration: float) -> None:
    k = double(concentration)
    assert squared_variation(k) > squared_variation(1.001 * k) > 0


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
def test_concentration_is_found_from_its_spread(dtype: torch.dtype, error: float) -> None:
    k = torch.logspace(math.log10(0.3), math.log10(50), 100, dtype=dtype)
    torch.testing.assert_close(concentration_of(squared_variation(k)), k, rtol=error, atol=0)


def test_the_inverse_of_the_variation_has_its_gradient():
    k = torch.tensor([0.3, 1.0, 3.7, 15.0, 50.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(concentration_of, squared_variation(k).requires_grad_(), eps=1e-7, atol=1e-4, rtol=1e-4)


@given(concentrations)
def test_half_precision_moments_are_those_of_float32_rounded(concentration: float) -> None:
    half = torch.tensor(concentration, dtype=torch.bfloat16)
    for moment in (mean_factor, squared_variation):
        assert moment(half).dtype == torch.bfloat16
        assert moment(half) == moment(half.float()).bfloat16()


@dtypes
@given(concentrations, means)
def test_samples_are_finite_and_not_negative_at_both_ends_of_the_uniform_numbers(
    dtype: torch.dtype, concentration: float, mean: float
) -> None:
    below_one = 1 - torch.finfo(dtype).eps / 2
    uniform = torch.tensor([0.0, torch.finfo(dtype).tiny, 0.5, below_one, 1.0], dtype=dtype)
    assert uniform[3] < 1
    samples = sample_with_mean(torch.tensor(mean, dtype=dtype), torch.tensor(concentration, dtype=dtype), uniform)
    assert samples.dtype == dtype
    assert torch.isfinite(samples).all()
    assert (samples >= 0).all()
    assert (samples.diff() >= 0).all()
    assert samples[4] == samples[3]  # 1 is what a half-precision generator may round to


def test_float32_uniform_numbers_keep_the_dtype_of_the_mean() -> None:
    half = torch.ones(3, dtype=torch.bfloat16)
    assert sample_with_mean(half, half, torch.rand(3)).dtype == torch.bfloat16


def kl_by_integration(scale: float, concentration: float, shape: float, rate: float) -> float:
    """∫ e^-t (log p - log q) dt over t = (x / scale)^κ, which is exponential, by the trapezoid rule in log t."""
    log_t = np.linspace(-60, 5, 20_001)
    t = np.exp(log_t)
    x = scale * t ** (1 / concentration)
    log_ratio = stats.weibull_min.logpdf(x, concentration, scale=scale) - stats.gamma.logpdf(x, shape, scale=1 / rate)
    return float(np.trapezoid(t * np.exp(-t) * log_ratio, log_t))


@pytest.mark.parametrize("concentration", [0.3, 0.5, 1.0, 2.0, 10.0, 50.0])
@pytest.mark.parametrize(("shape", "rate"), [(1.0, 3.0), (2.5, 0.4)])
@pytest.mark.parametrize("scale", [0.01, 1.0, 20.0])
def test_kl_is_the_integral_it_stands_for(concentration: float, shape: float, rate: float, scale: float) -> None:
    expected = kl_by_integration(scale, concentration, shape, rate)
    k = double(concentration)
    assert kl_to_gamma(scale * mean_factor(k), k, shape, rate).item() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    registered = kl_divergence(Weibull(double(scale), k), Gamma(double(shape), double(rate)))
    assert registered.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_kl_of_equal_distributions_is_zero() -> None:
    assert kl_to_gamma(double(1 / 3), double(1.0), 1.0, 3.0).item() == pytest.approx(0, abs=1e-12)


def test_torch_divergence_has_no_floor() -> None:
    small, k = SCALE_FLOOR / 100, double(2.0)
    registered = kl_divergence(Weibull(double(small), k), Gamma(double(1.0), double(3.0))).item()
    assert registered == pytest.approx(kl_by_integration(small, 2.0, 1.0, 3.0), rel=1e-6)
    floored = kl_to_gamma(small * mean_factor(k), k, 1.0, 3.0).item()
    assert registered - floored == pytest.approx(math.log(100), abs=0.01)


def test_prior_may_be_tensors_that_broadcast() -> None:
    mean, k, shape = torch.rand(4, 1), torch.rand(3) + 0.5, torch.tensor([1.0, 2.0, 3.0])
    kl = kl_to_gamma(mean, k, shape, torch.tensor(3.0))
    assert kl.shape == (4, 3)
    torch.testing.assert_close(kl[:, 1], kl_to_gamma(mean[:, 0], k[1], 2.0, 3.0))


@given(means, concentrations, priors)
def test_kl_is_never_negative(mean: float, concentration: float, prior: tuple[float, float]) -> None:
    assert kl_to_gamma(double(mean), double(concentration), *prior) > -1e-9


@dtypes
@given(means, concentrations, priors)
def test_kl_and_its_gradients_are_finite(
    dtype: torch.dtype, mean: float, concentration: float, prior: tuple[float, float]
) -> None:
    m = torch.tensor(mean, dtype=dtype, requires_grad=True)
    k = torch.tensor(concentration, dtype=dtype, requires_grad=True)
    kl = kl_to_gamma(m, k, *prior)
    assert kl.dtype == dtype
    reference = kl_to_gamma(m.double(), k.double(), *prior).item()
    assert kl.item() == pytest.approx(reference, rel=4 * torch.finfo(dtype).eps, abs=1e-4)
    for gradient in torch.autograd.grad(kl, (m, k)):
        assert torch.isfinite(gradient).all()


def test_kl_pushes_no_part_that_relu_has_switched_off() -> None:
    signed = torch.tensor([-2.0, 0.0, 2.0], requires_grad=True)
    k = torch.full((3,), 2.0, requires_grad=True)
    kl_to_gamma(signed.relu(), k, 1.0, 3.0).sum().backward()
    assert signed.grad is not None
    assert signed.grad[:2].tolist() == [0, 0]
    assert signed.grad[2].item() == pytest.approx(3 - 1 / 2)
    assert k.grad is not None
    assert torch.isfinite(k.grad).all()


def test_kl_gradient_in_the_mean_is_bounded_by_the_floor() -> None:
    mean = torch.logspace(-8, -1, 500, dtype=torch.float64, requires_grad=True)
    scale = mean / mean_factor(double(1.0))
    (gradient,) = torch.autograd.grad(kl_to_gamma(mean, double(1.0), 1.0, 3.0).sum(), mean)
    assert (gradient[scale < SCALE_FLOOR] == 0).all()
    assert gradient.abs().max() <= 1 / SCALE_FLOOR


@dtypes
def test_sample_gradients_are_finite_where_the_mean_is_zero(dtype: torch.dtype) -> None:
    mean = torch.tensor([0.0, 0.0, 1e4], dtype=dtype, requires_grad=True)
    k = torch.tensor([0.3, 50.0, 0.3], dtype=dtype, requires_grad=True)
    sample_with_mean(mean, k, torch.tensor([[0.0], [1.0]], dtype=dtype)).sum().backward()
    for gradient in (mean.grad, k.grad):
        assert gradient is not None
        assert torch.isfinite(gradient).all()


def test_gradients_are_those_of_finite_differences() -> None:
    def inputs(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, requires_grad=True)

    mean, k = inputs(0.05, 0.7, 3.0, 40.0), inputs(0.4, 1.0, 2.5, 30.0)
    shape, rate = inputs(0.5, 1.0, 2.0, 3.0), inputs(3.0, 1.0, 0.2, 0.1)
    uniform = torch.tensor([0.1, 0.4, 0.8, 0.999], dtype=torch.float64)
    assert torch.autograd.gradcheck(kl_to_gamma, (mean, k, shape, rate))
    assert torch.autograd.gradcheck(squared_variation, (k,))
    assert torch.autograd.gradcheck(lambda m, c: sample_with_mean(m, c, uniform), (mean, k))


@settings(max_examples=20)
@given(concentrations)
def test_samples_are_the_inverse_of_the_distribution_function(concentration: float) -> None:
    k, u, mean = double(concentration), torch.linspace(0.01, 0.99, 50, dtype=torch.float64), double(2.5)
    torch.testing.assert_close(Weibull(mean / mean_factor(k), k).cdf(sample_with_mean(mean, k, u)), u)
