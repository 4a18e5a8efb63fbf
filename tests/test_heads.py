"""The uncertainty heads against sampling, torch.distributions and the plain decoder."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Weibull

from ruac.features import DecoderFeatures
from ruac.heads import CONCENTRATION_RANGE, ExactHead, PlainHead, make_head, product_variance
from ruac.weibull import mean_factor, sample_with_mean, squared_variation

B, P, K, C, H, W, D = 2, 3, 4, 16, 5, 6, 32


@pytest.fixture
def features() -> DecoderFeatures:
    g = torch.Generator().manual_seed(0)
    return DecoderFeatures(
        pixels=torch.randn(B, P, C, H, W, generator=g),
        weights=torch.randn(B, P, K, C, generator=g),
        tokens=torch.randn(B, P, K, D, generator=g),
        iou=torch.rand(B, P, K, generator=g),
        object_logit=torch.randn(B, P, generator=g),
    )


def trained_like(head: ExactHead) -> ExactHead:
    """A head whose every weight has moved away from its start."""
    torch.manual_seed(1)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.constant_(head.pixel_concentration[-1].bias, 2.0)
    torch.nn.init.constant_(head.weight_concentration.bias, 2.0)
    return head


def test_exact_head_starts_with_the_decoders_own_logits(features):
    plain = PlainHead()(features)
    exact = ExactHead(C, D)(features)
    torch.testing.assert_close(exact.mean, plain.mean, rtol=1e-5, atol=1e-5)
    reference = torch.einsum("bpkc,bpchw->bpkhw", features.weights, features.pixels)
    torch.testing.assert_close(plain.mean, reference, rtol=1e-5, atol=1e-5)


def test_plain_head_has_no_variance(features):
    assert PlainHead()(features).variance.abs().max() == 0


def test_closed_form_moments_match_samples_of_the_split_factors(features):
    """Draw z = [x+, x-], w_fg = [h+, h-], w_bg = [h-, h+] as Weibulls and multiply: no formula of the head is used."""
    head = trained_like(ExactHead(C, D)).double()
    features = DecoderFeatures(*(v.double() for v in vars(features).values()))
    with torch.no_grad():
        mean, variance = (m[0, 0, 1].flatten() for m in vars(head(features)).values())
        x, h = head.factors(features)
        k_pixel, k_weight = head.concentrations(features)
    x, h = x[0, 0].flatten(1), h[0, 0, 1]  # (C, H * W), (C)
    k_pixel, k_weight = k_pixel[0, 0].flatten(1), k_weight[0, 0, 1]  # (1, H * W), (C)
    g = torch.Generator().manual_seed(2)
    total, total_square, samples, chunk = 0.0, 0.0, 20_000, 2_000
    for _ in range(samples // chunk):

        def weibull(mean, concentration, shape):
            return sample_with_mean(mean, concentration, torch.rand(chunk, *shape, generator=g, dtype=torch.float64))

        def factors(positive, negative, concentration):
            return weibull(positive, concentration, positive.shape), weibull(negative, concentration, negative.shape)

        z_plus, z_minus = factors(x.clamp_min(0), (-x).clamp_min(0), k_pixel)
        fg_plus, fg_minus = factors(h.clamp_min(0), (-h).clamp_min(0), k_weight)
        bg_minus, bg_plus = factors((-h).clamp_min(0), h.clamp_min(0), k_weight)
        delta_plus, delta_minus = (fg_plus - bg_minus)[..., None], (fg_minus - bg_plus)[..., None]  # (chunk, C, 1)
        logit = (z_plus * delta_plus + z_minus * delta_minus).sum(1)
        total, total_square = total + logit.sum(0), total_square + logit.square().sum(0)
    sampled_mean = total / samples
    sampled_variance = total_square / samples - sampled_mean.square()
    spread = variance.sqrt()
    assert ((sampled_mean - mean).abs() < 5 * spread / math.sqrt(samples)).all()
    assert (sampled_variance / variance).mean() == pytest.approx(1, abs=0.02)
    assert (sampled_variance / variance - 1).abs().max() < 0.12  # one pixel's own sampling error


def test_variance_formula_equals_the_difference_of_second_moments(features):
    cv2_pixel, cv2_weight = torch.rand(B, P, 1, H, W), torch.rand(B, P, K, C)
    x2, h2 = features.pixels.square(), features.weights.square()
    spread = torch.einsum("bpkc,bpchw->bpkhw", h2 * (1 + cv2_weight), x2)
    certain = torch.einsum("bpkc,bpchw->bpkhw", h2, x2)
    expected = (1 + cv2_pixel) * spread - certain
    torch.testing.assert_close(
        product_variance(features.pixels, features.weights, cv2_pixel, cv2_weight), expected, rtol=1e-4, atol=1e-4
    )


def test_variance_gradient_is_right_in_double_precision():
    def f(x, h, a, b):
        return product_variance(x, h, a.exp(), b.exp())

    shapes = ((1, 1, 3, 2, 2), (1, 1, 2, 3), (1, 1, 1, 2, 2), (1, 1, 2, 3))
    assert torch.autograd.gradcheck(f, [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes])


def test_concentrations_stay_in_range_whatever_the_features(features):
    head = ExactHead(C, D)
    torch.nn.init.normal_(head.pixel_concentration[-1].weight, std=100.0)
    wild = head(features)
    low, high = CONCENTRATION_RANGE
    pixel, _ = head.concentrations(features)
    assert low <= pixel.min() < 1 < pixel.max() <= high
    assert torch.isfinite(wild.variance).all()
    assert (wild.variance >= 0).all()


def test_selecting_a_token_commutes_with_the_head(features):
    head = trained_like(ExactHead(C, D))
    index = torch.tensor([[[0], [3], [1]], [[2], [2], [0]]])
    chosen, everything = head(features.select(index)), head(features)
    for name in ("mean", "variance"):
        picked = getattr(everything, name).gather(2, index[..., None, None].expand(B, P, 1, H, W))
        torch.testing.assert_close(getattr(chosen, name), picked, rtol=1e-4, atol=1e-5)


def test_extra_parameters_of_the_standard_sam_head_are_under_a_hundredth_of_its_smallest_encoder():
    residuals, per_pixel, per_token = 32 * 32 + 256 * 32, (9 * 32 + 1) * 16 + 17, 257 * 32
    assert sum(p.numel() for p in ExactHead(32, 256).parameters()) == residuals + per_pixel + per_token
    assert residuals + per_pixel + per_token < 0.0064 * 27e6


def test_unknown_head_is_refused_by_name():
    with pytest.raises(ValueError, match="no head 'bayes'"):
        make_head("bayes", C, D)


@given(st.floats(0.3, 50), st.floats(0.01, 100))
@settings(max_examples=50, deadline=None)
def test_weibull_moments_match_torch_distributions(concentration, scale):
    k, s = torch.tensor(concentration, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)
    reference = Weibull(s, k)
    assert (s * mean_factor(k)).item() == pytest.approx(reference.mean.item(), rel=1e-9)
    assert squared_variation(k).item() == pytest.approx((reference.variance / reference.mean**2).item(), rel=1e-6)


def test_weibull_samples_are_the_inverse_of_the_distribution_function():
    k, u = torch.tensor(1.7, dtype=torch.float64), torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    mean = torch.tensor(2.5, dtype=torch.float64)
    samples = sample_with_mean(mean, k, u)
    torch.testing.assert_close(Weibull(mean / mean_factor(k), k).cdf(samples), u)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weibull_samples_are_finite_at_the_ends_of_every_range(dtype):
    uniform = torch.tensor([0.0, 1e-30, 0.5, 0.99], dtype=dtype)
    for concentration in CONCENTRATION_RANGE:
        samples = sample_with_mean(
            torch.tensor([0.0, 1.0, 1e3, 1e-3], dtype=dtype), torch.tensor(concentration, dtype=dtype), uniform
        )
        assert torch.isfinite(samples).all()
        assert (samples >= 0).all()
