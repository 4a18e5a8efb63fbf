"""The uncertainty heads against sampling and the plain decoder."""

import math
from dataclasses import replace

import pytest
import torch

from ruac.distribution import monte_carlo
from ruac.features import DecoderFeatures
from ruac.heads import CONCENTRATION_RANGE, HEADS, VARIATION_RANGE, ExactHead, Head, PaperHead, PlainHead, make_head
from ruac.weibull import concentration_of, sample_with_mean, squared_variation

B, P, K, C, H, W, D = 2, 3, 4, 16, 8, 12, 32
SAM_CHANNELS, SAM_WIDTH, SAM2_TINY_ENCODER, LARGEST_SHARE = 32, 256, 27_219_136, 0.0064


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


def trained_like(head: Head) -> Head:
    """A head whose every weight has moved away from its start."""
    g = torch.Generator().manual_seed(1)
    for parameter in head.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=g)
    return head


def one_object(features: DecoderFeatures) -> DecoderFeatures:
    return features.map(lambda value: value[:1, :1].double())


def test_exact_head_starts_with_the_decoders_own_logits(features):
    plain = PlainHead()(features)
    exact = ExactHead(C, D)(features)
    torch.testing.assert_close(exact.mean, plain.mean, rtol=1e-5, atol=1e-5)
    reference = torch.einsum("bpkc,bpchw->bpkhw", features.weights, features.pixels)
    torch.testing.assert_close(plain.mean, reference, rtol=1e-5, atol=1e-5)
    assert torch.equal(exact.mean > 0, plain.mean > 0)


def test_plain_head_has_no_variance(features):
    assert PlainHead()(features).variance.abs().max() == 0
    assert torch.equal(PlainHead().sample(features, 2)[1], PlainHead()(features).mean)


def test_the_gain_scales_the_logits_of_a_mask_and_is_taken_off_its_prompt(features):
    head = trained_like(ExactHead(C, D))
    found, plain = head(features), PlainHead()(features).mean
    gain = torch.exp(head.PACE * head.influence(features.tokens)[..., :1, None])
    assert gain.std() > 0.01
    torch.testing.assert_close(found.mean, gain * plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.prompt, plain, rtol=1e-4, atol=1e-4)
    kept = found.map(lambda values: values[:, :1])
    torch.testing.assert_close(kept.prompt, plain[:, :1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "log_deviation"), [("exact", 2.0), ("exact", -3.0), ("exact", 6.0), ("paper", 0.0)])
def test_closed_form_moments_match_200000_samples_within_a_hundredth(features, kind, log_deviation):
    """Of every pixel; also where no concentration gives the variance, which is then too small for it in all pixels, or too large."""
    torch.manual_seed(1)
    head = trained_like(make_head(kind, C, D)).double()
    if isinstance(head, ExactHead):
        head.influence.bias.data[2] += log_deviation / head.PACE
    if isinstance(head, PaperHead):  # narrower, or the sampled mean of a single pixel is wrong by more than that
        torch.nn.init.constant_(head.pixel_concentration.bias, 3.0)
        torch.nn.init.constant_(head.weight_concentration.bias, 3.0)
    features = one_object(features).select(torch.tensor([[[2]]]))
    features = replace(features, pixels=features.pixels[..., :4, :4])
    samples, chunk = 200_000, 2_000
    with torch.no_grad():
        expected = head(features)
        g, total, square = torch.Generator().manual_seed(2), 0.0, 0.0
        for _ in range(samples // chunk):
            centred = head.sample(features, chunk, g) - expected.mean
            total, square = total + centred.sum(0), square + centred.square().sum(0)
    offset, variance = total / samples, square / samples
    spread = expected.variance.sqrt()
    assert (offset.abs() < 5 * spread / math.sqrt(samples)).all()
    assert (offset.abs() < 0.01 * torch.maximum(expected.mean.abs(), spread)).all()
    # a concentration of 0.3 has a tail of which 200,000 samples see too little for each pixel
    worst, average = ((variance / expected.variance - 1).abs().max(), (variance / expected.variance - 1).abs().mean())
    assert worst < (0.01 if log_deviation < 6 else 0.25)
    assert average < (0.01 if log_deviation < 6 else 0.1)


def test_exact_heads_samples_are_those_of_the_split_factors(features):
    """z = [x⁺, x⁻], w_fg = [h⁺, h⁻], w_bg = [h⁻, h⁺], all 2C of them drawn: the same moments as the head's shorter way."""
    head = trained_like(ExactHead(C, D)).double()
    head.influence.bias.data[2] += 2 / head.PACE  # variances that concentrations within the range have
    features = one_object(features).select(torch.tensor([[[1]]]))
    features = replace(features, pixels=features.pixels[..., :4, :4])
    with torch.no_grad():
        expected = head(features)
        h, cv2_weight = head.weights(features)
        cv2_pixel = (expected.variance - _energy(features, h, cv2_weight)) / _energy(features, h, 1 + cv2_weight)
        assert VARIATION_RANGE[0] < cv2_pixel.min() < cv2_pixel.max() < VARIATION_RANGE[1]
        x, h = features.pixels[0, 0], h[0, 0, 0]
        k_pixel, k_weight = concentration_of(cv2_pixel)[0, 0], concentration_of(cv2_weight)[0, 0, 0]
        g, n = torch.Generator().manual_seed(3), 20_000
        total = square = torch.zeros(4, 4, dtype=torch.float64)

        def draw(mean, concentration, count):
            uniform = torch.rand(count, *mean.shape, generator=g, dtype=torch.float64)
            return sample_with_mean(mean, concentration, uniform)

        for _ in range(n // 1000):
            z = draw(torch.cat([x.clamp_min(0), (-x).clamp_min(0)]), k_pixel, 1000)
            foreground = draw(torch.cat([h.clamp_min(0), (-h).clamp_min(0)]), k_weight, 1000)
            background = draw(torch.cat([(-h).clamp_min(0), h.clamp_min(0)]), k_weight, 1000)
            logit = torch.einsum("nc,nchw->nhw", foreground - background, z)
            total, square = total + logit.sum(0), square + logit.square().sum(0)
    mean, variance = total / n, square / n - (total / n).square()
    expected_mean, expected_variance = expected.mean[0, 0, 0], expected.variance[0, 0, 0]
    assert ((mean - expected_mean).abs() < 5 * expected_variance.sqrt() / math.sqrt(n)).all()
    assert (variance / expected_variance).mean() == pytest.approx(1, abs=0.02)


def _energy(features, h, cv2):
    return torch.einsum("bpkc,bpchw->bpkhw", h.square() * cv2, features.pixels.square())


def test_mutual_information_of_the_factors_samples_is_the_closed_form_where_deviations_are_small(features):
    """And less where they are large: the product of the factors has longer tails than the normal distribution taken for it."""
    head = ExactHead(C, D)
    features = features.select(torch.zeros(B, P, 1, dtype=torch.long))
    found = []
    for log_deviation in (0.0, 2.0):
        head.influence.bias.data[2] += log_deviation / head.PACE
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            sampled = monte_carlo(lambda n, g=generator: head.sample(features, n, g), 4000, 100).mutual_information
            found.append((sampled.mean().item(), head(features).epistemic().mean().item()))
    (small, closed_small), (large, closed_large) = found
    assert small == pytest.approx(closed_small, rel=0.05)
    assert 0.4 < large / closed_large < 0.9


def test_paper_heads_moments_are_the_general_identity(features):
    """Var[z·Δw] = Σ E[z²]E[Δw²] - E[z]²E[Δw]² with E[Δw²] = E[w_fg²] + E[w_bg²] - 2 E[w_fg] E[w_bg], term by term."""
    head = trained_like(PaperHead(C, D)).double()
    features = features.map(torch.Tensor.double)
    z, k_pixel, (fg, bg), k_weight = head.factors(features)
    assert z.min() >= 0
    assert min(fg.min(), bg.min()) >= 0
    z2 = z.square() * (1 + squared_variation(k_pixel))
    fg2, bg2 = (part.square() * (1 + squared_variation(k_weight)) for part in (fg, bg))
    delta, delta2 = fg - bg, fg2 + bg2 - 2 * fg * bg
    each = torch.einsum("bpkc,bpchw->bpkhw", delta2, z2) - torch.einsum("bpkc,bpchw->bpkhw", delta.square(), z.square())
    distribution = head(features)
    torch.testing.assert_close(distribution.variance, each, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(distribution.mean, torch.einsum("bpkc,bpchw->bpkhw", delta, z))


@pytest.mark.parametrize("kind", ["exact", "paper"])
def test_gradients_are_right_in_double_precision(kind):
    torch.manual_seed(0)
    head = trained_like(make_head(kind, 3, 4)).double()

    def moments(pixels, weights, tokens):
        iou = torch.zeros(1, 1, 2, dtype=torch.float64)
        distribution = head(DecoderFeatures(pixels, weights, tokens, iou, None))
        return distribution.mean, distribution.variance

    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((1, 1, 3, 4, 4), (1, 1, 2, 3), (1, 1, 2, 4))]
    assert torch.autograd.gradcheck(moments, inputs)


@pytest.mark.parametrize("kind", ["exact", "paper"])
def test_variance_is_finite_and_not_negative_whatever_the_features(features, kind):
    head = make_head(kind, C, D)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=10.0)
    for factor in (0.0, 1e-3, 1.0, 30.0):
        variance = head(features.map(lambda value: value * factor)).variance  # noqa: B023  called at once
        assert torch.isfinite(variance).all()
        assert (variance >= 0).all()
        assert torch.isfinite(head.sample(features.map(lambda value: value * factor), 2)).all()  # noqa: B023


def test_variation_range_is_that_of_the_concentrations():
    low, high = (squared_variation(torch.tensor(k, dtype=torch.float64)).item() for k in reversed(CONCENTRATION_RANGE))
    assert pytest.approx((low, high)) == VARIATION_RANGE


@pytest.mark.parametrize("kind", list(HEADS))
def test_selecting_a_token_commutes_with_the_head(features, kind):
    head = trained_like(make_head(kind, C, D))
    index = torch.tensor([[[0], [3], [1]], [[2], [2], [0]]])
    chosen, everything = head(features.select(index)), head(features)
    for name in ("mean", "variance"):
        picked = getattr(everything, name).gather(2, index[..., None, None].expand(B, P, 1, H, W))
        torch.testing.assert_close(getattr(chosen, name), picked, rtol=1e-4, atol=1e-5)


def test_a_pixel_surer_than_its_neighbours_is_doubted_more(features):
    """On a flat map with one high logit: nothing but the roughness tells that pixel from the others."""
    pixels = torch.ones(1, 1, C, H, W)
    pixels[..., 4, 6] = 4
    flat = DecoderFeatures(pixels, torch.full((1, 1, 1, C), 0.1), torch.zeros(1, 1, 1, D), torch.zeros(1, 1, 1), None)
    distribution = ExactHead(C, D)(flat)
    shrinkage = (distribution.scaled_mean() / distribution.mean)[0, 0, 0]
    assert shrinkage[4, 6] < shrinkage[0, 0] - 0.02
    assert shrinkage[4, 5] > shrinkage[0, 0]


def test_a_hedge_keeps_a_share_of_the_deviations_and_of_the_surroundings_and_every_mean(features):
    head = trained_like(ExactHead(C, D))
    before = head(features)
    head.hedge(0.5, 1.0)
    halved = head(features)
    assert torch.equal(halved.mean, before.mean)
    torch.testing.assert_close(halved.variance, before.variance / 4)
    head.hedge(1.0, 1e-4)
    hushed = head(features)
    head.surroundings[-1].weight.data.zero_()
    head.surroundings[-1].bias.data.zero_()
    torch.testing.assert_close(hushed.variance, head(features).variance, rtol=1e-3, atol=0)
    assert not torch.allclose(hushed.variance, halved.variance, rtol=1e-2)


@pytest.mark.parametrize("kind", ["exact", "paper"])
def test_extra_parameters_of_a_standard_sam_are_few(kind):
    extra = sum(p.numel() for p in make_head(kind, SAM_CHANNELS, SAM_WIDTH).parameters())
    assert 1_000 < extra < LARGEST_SHARE * SAM2_TINY_ENCODER


def test_unknown_head_is_refused_by_name():
    with pytest.raises(ValueError, match="no head 'bayes': choose one of exact, paper, plain"):
        make_head("bayes", C, D)
