"""Losses against plain references."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import jaccard_score

from ruac.distribution import bernoulli_entropy
from ruac.evaluate.error_detection import histograms
from ruac.features import DecoderFeatures
from ruac.heads import ExactHead, PaperHead, PlainHead
from ruac.losses import (
    LEAST_COVERAGE,
    LEAST_DOUBTED,
    alignment,
    best_of_many,
    calibration_error,
    dice,
    divergence,
    error_pairs,
    harm,
    likelihood,
    mask_iou,
    normalised_focal,
    ranking,
)
from ruac.weibull import SCALE_FLOOR, concentration_of, mean_factor

B, P, K, H, W = 2, 2, 4, 6, 7


@pytest.fixture
def masks() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    return {
        "logits": torch.randn(B, P, K, H, W, generator=g) * 3,
        "target": (torch.rand(B, P, 1, H, W, generator=g) > 0.6).float(),
        "valid": (torch.rand(B, 1, 1, H, W, generator=g) > 0.2).float(),
    }


def test_iou_equals_scikit_learns_on_the_pixels_that_count(masks):
    iou = mask_iou(**masks)
    for b in range(B):
        counts = masks["valid"][b, 0, 0] > 0
        for p in range(P):
            for k in range(K):
                found, there = masks["logits"][b, p, k][counts] > 0, masks["target"][b, p, 0][counts] > 0.5
                assert iou[b, p, k].item() == pytest.approx(jaccard_score(there, found), abs=1e-6)


def test_focal_without_focus_is_the_mean_cross_entropy(masks):
    flat = normalised_focal(**masks, gamma=0.0)
    each = F.binary_cross_entropy_with_logits(masks["logits"], masks["target"].expand(B, P, K, H, W), reduction="none")
    weight = masks["valid"].expand(B, P, K, H, W)
    torch.testing.assert_close(flat, (each * weight).sum((-2, -1)) / weight.sum((-2, -1)))


def test_focal_weighs_a_small_object_like_a_large_one():
    small, large = torch.zeros(1, 1, 1, 64, 64), torch.zeros(1, 1, 1, 64, 64)
    small[..., :4, :4] = 1
    large[..., :32, :32] = 1
    valid = torch.ones(1, 1, 1, 64, 64)
    missed = torch.full((1, 1, 1, 64, 64), -9.0)
    values = [normalised_focal(missed, t, valid).item() for t in (small, large)]
    assert values[0] == pytest.approx(values[1], rel=0.25)
    assert values[0] > 7


def test_dice_is_zero_for_the_truth_and_near_one_for_its_opposite(masks):
    sure = (masks["target"] * 2 - 1).expand(B, P, K, H, W) * 100
    assert dice(sure, masks["target"], masks["valid"]).abs().max() < 1e-6
    assert dice(-sure, masks["target"], masks["valid"]).min() > 0.9


def test_pixels_that_do_not_count_change_nothing(masks):
    changed = masks | {"logits": torch.where(masks["valid"] > 0, masks["logits"], -7.0)}
    for f in (normalised_focal, dice, mask_iou):
        torch.testing.assert_close(f(**masks), f(**changed))
    torch.testing.assert_close(
        likelihood(masks["logits"], masks["target"], masks["valid"]),
        likelihood(changed["logits"], masks["target"], masks["valid"]),
    )


def test_only_token_zero_and_the_best_multimask_token_learn(masks):
    logits = masks["logits"].requires_grad_()
    loss, _ = best_of_many(logits, torch.rand(B, P, K), masks["target"], masks["valid"])
    assert loss.shape == (B, P)
    loss.sum().backward()
    learns = logits.grad.abs().sum((-2, -1)) > 0
    assert learns[..., 0].all()
    assert (learns[..., 1:].sum(-1) == 1).all()


def test_the_loss_of_an_object_is_its_own(masks):
    iou = torch.rand(B, P, K, generator=torch.Generator().manual_seed(0))
    loss, true_iou = best_of_many(masks["logits"], iou, masks["target"], masks["valid"])
    one, _ = best_of_many(masks["logits"][1:, :1], iou[1:, :1], masks["target"][1:, :1], masks["valid"][1:])
    torch.testing.assert_close(loss[1, 0], one[0, 0])
    torch.testing.assert_close(true_iou, mask_iou(**masks))


def test_likelihood_is_least_at_the_true_frequency():
    target = torch.zeros(1, 1, 1, 10, 10)
    target.flatten()[:30] = 1
    valid = torch.ones_like(target)
    at = {
        p: likelihood(torch.full_like(target, torch.logit(torch.tensor(p)).item()), target, valid).item() for p in (0.2, 0.3, 0.4)
    }
    assert at[0.3] < min(at[0.2], at[0.4])


def test_ranking_is_least_when_wrong_pixels_are_the_unsure_ones():
    target = (torch.arange(100) % 2).float().reshape(1, 1, 1, 10, 10)
    wrong = (torch.arange(100) < 20).reshape(1, 1, 1, 10, 10)
    sign = (target * 2 - 1) * torch.where(wrong, -1.0, 1.0)
    pairs = error_pairs(sign, target, torch.ones_like(target))
    honest, blind, inverted = (sign * torch.where(wrong, a, b) for a, b in ((0.5, 5.0), (2.0, 2.0), (5.0, 0.5)))
    assert ranking(honest, pairs) < ranking(blind, pairs) < ranking(inverted, pairs)
    assert ranking(blind, pairs).item() == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-6)
    assert ranking(100 * blind, pairs).item() == pytest.approx(ranking(blind, pairs).item(), abs=1e-6)


def test_harm_is_done_only_where_the_order_is_worse_than_the_plain_one():
    target = (torch.arange(100) % 2).float().reshape(1, 1, 1, 10, 10)
    wrong = (torch.arange(100) < 20).reshape(1, 1, 1, 10, 10)
    sign = (target * 2 - 1) * torch.where(wrong, -1.0, 1.0)
    pairs = error_pairs(sign, target, torch.ones_like(target))
    good, bad = (sign * torch.where(wrong, a, b) for a, b in ((0.5, 5.0), (5.0, 0.5)))
    assert harm(good, bad, pairs).item() == 0
    assert harm(bad, good, pairs).item() > 0.9
    plain = bad.clone().requires_grad_()
    harm(bad.requires_grad_(), plain * 0.1, pairs).backward()
    assert plain.grad is None  # the plain logits are only compared with


def test_error_pairs_are_a_wrong_and_a_right_pixel_that_count():
    g = torch.Generator().manual_seed(0)
    logit, target = torch.randn(2, 1, 1, 8, 8, generator=g), (torch.rand(2, 1, 1, 8, 8, generator=g) > 0.5).float()
    valid = (torch.rand(2, 1, 1, 8, 8, generator=g) > 0.5).float()
    pairs = error_pairs(logit, target, valid, g)
    wrong, right = pairs.wrong, pairs.right
    is_wrong = ((logit > 0) != (target > 0.5)).flatten()
    assert is_wrong[wrong].all()
    assert not is_wrong[right].any()
    assert valid.flatten()[torch.cat([wrong, right])].all()
    assert error_pairs((target * 2 - 1) * 3, target, valid) is None


def test_weights_of_error_pairs_are_the_slopes_of_aurc_and_of_the_precision():
    g = torch.Generator().manual_seed(0)
    logit, target = 4 * torch.randn(1, 1, 1, 40, 40, generator=g), (torch.rand(1, 1, 1, 40, 40, generator=g) > 0.3).float()
    pairs = error_pairs(logit, target, torch.ones_like(target), g, 500)
    assert pairs is not None
    sure = logit.abs().flatten()
    surer = (sure[None] >= sure[pairs.wrong, None]).float().mean(1)  # of all pixels, by brute force
    expected = torch.stack([1 / surer.clamp_min(LEAST_COVERAGE), 1 / (1 - surer + LEAST_DOUBTED)])
    torch.testing.assert_close(pairs.weights, expected / expected.mean(1, keepdim=True), rtol=1e-2, atol=0)


def test_descending_the_ranking_lowers_the_area_under_the_risk_coverage_curve():
    g = torch.Generator().manual_seed(0)
    target = (torch.rand(1, 1, 1, 30, 30, generator=g) > 0.5).float()
    right = torch.rand(1, 1, 1, 30, 30, generator=g) > 0.2
    sign, size = (2 * target - 1) * torch.where(right, 1.0, -1.0), torch.rand(1, 1, 1, 30, 30, generator=g).requires_grad_()

    def aurc() -> float:
        order = size.detach().flatten().argsort(descending=True)
        errors = (~right).flatten()[order].float().cumsum(0)
        return (errors / torch.arange(1, len(order) + 1)).mean().item()

    before = aurc()
    for _ in range(20):
        pairs = error_pairs(sign * size.exp(), target, torch.ones_like(target), g)
        assert pairs is not None
        (slope,) = torch.autograd.grad(ranking(sign * size.exp(), pairs), size)
        size = (size.detach() - 300 * slope).requires_grad_()
    assert aurc() < 0.5 * before


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_calibration_error_is_that_of_the_evaluation_and_falls_along_its_gradient(share):
    g = torch.Generator().manual_seed(0)
    logit = 3 * torch.randn(1, 2, 1, 50, 50, generator=g)
    wrong = torch.rand(1, 2, 1, 50, 50, generator=g) < share
    target = ((logit > 0) != wrong).float()
    valid = (torch.rand(1, 1, 1, 50, 50, generator=g) > 0.2).float()
    scale = torch.ones(()).requires_grad_()
    error = calibration_error(scale * logit, target, valid)
    counted, nowhere = valid.bool().expand_as(logit), torch.zeros(50, 50, dtype=torch.bool)
    each = [
        histograms(logit[0, i, 0], logit[0, i, 0] > 0, target[0, i, 0] > 0.5, counted[0, i, 0], nowhere).image for i in range(2)
    ]
    assert error.item() == pytest.approx((each[0] + each[1]).read().ece, abs=1e-3)
    error.backward()
    step = scale.detach() - 0.05 * scale.grad.sign()
    assert calibration_error(step * logit, target, valid) < error


def test_papers_alignment_is_its_formula_and_its_gradient_stops_where_it_should():
    g = torch.Generator().manual_seed(0)
    logit = (3 * torch.randn(1, 1, 1, 6, 7, generator=g, dtype=torch.float64)).requires_grad_()
    target = (torch.rand(1, 1, 1, 6, 7, generator=g) > 0.5).double()
    valid = (torch.rand(1, 1, 1, 6, 7, generator=g) > 0.2).double()
    loss = alignment(logit, target, valid, "paper")
    (gradient,) = torch.autograd.grad(loss, logit)
    p = logit.detach().sigmoid()
    e, u = (p - target).abs(), bernoulli_entropy(logit.detach())
    once = e * torch.exp(-u) + (1 - e) * torch.exp(u)
    assert loss.item() == pytest.approx((2 * once * valid).sum().item() / valid.sum().item())
    d_error = torch.where(target > 0.5, -1.0, 1.0) * p * (1 - p)
    d_uncertainty = -logit.detach() * p * (1 - p) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    # error is rewarded where the model is unsure: e^-u - e^u = -2 sinh u
    expected = -2 * torch.sinh(u) * d_error + (-e * torch.exp(-u) + (1 - e) * torch.exp(u)) * d_uncertainty
    torch.testing.assert_close(gradient, expected * valid / valid.sum(), rtol=1e-6, atol=1e-9)


def test_papers_mirror_tells_pixels_wrong_in_two_of_five_to_be_certain():
    """Of the mirror alone: sg(e) exp(-u) + (1 - sg(e)) exp(u) is least at u = 0 for every e below a half."""
    u = torch.linspace(0, 1, 101)
    for error, best in ((0.1, 0.0), (0.4, 0.0), (0.7, 0.42), (0.95, 1.0)):
        mirror = error * torch.exp(-u) + (1 - error) * torch.exp(u)
        assert u[mirror.argmin()].item() == pytest.approx(best, abs=0.01)


def test_proper_alignment_is_least_at_the_true_frequency():
    target = torch.tensor([1.0, 1, 1, 0]).view(1, 1, 1, 2, 2)  # three of four
    logits = torch.linspace(-3, 3, 601)
    losses = [alignment(x.expand(1, 1, 1, 2, 2), target, torch.ones(1, 1, 1, 2, 2), "proper").item() for x in logits]
    assert logits[int(torch.tensor(losses).argmin())].sigmoid().item() == pytest.approx(0.75, abs=0.005)


@pytest.fixture
def decoded() -> DecoderFeatures:
    g = torch.Generator().manual_seed(5)
    shapes = {"pixels": (B, P, 8, H, W), "weights": (B, P, K, 8), "tokens": (B, P, K, 16), "iou": (B, P, K)}
    return DecoderFeatures(**{name: torch.randn(shape, generator=g) for name, shape in shapes.items()}, object_logit=None)


def of_distributions(mean: torch.Tensor, concentration: torch.Tensor) -> torch.Tensor:
    """By torch.distributions, summed over the elements of each picture."""
    scale = (mean / mean_factor(concentration)).clamp_min(SCALE_FLOOR)
    weibull = torch.distributions.Weibull(scale, concentration.expand_as(scale))
    return torch.distributions.kl_divergence(weibull, torch.distributions.Gamma(1.0, 3.0)).flatten(1).sum(1)


def test_divergence_of_the_papers_head_is_that_of_both_factors(decoded):
    torch.manual_seed(0)
    head = PaperHead(8, 16)
    pixels, k_pixel, (foreground, background), k_weight = head.factors(decoded)
    expected = of_distributions(pixels, k_pixel) + of_distributions(foreground, k_weight) + of_distributions(background, k_weight)
    found = divergence(head, decoded)
    torch.testing.assert_close(found, expected)
    assert found.shape == (B,)
    assert (found > 100).all()
    found.sum().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_divergence_of_the_exact_head_is_that_of_its_four_split_weights(decoded):
    head = ExactHead(8, 16)
    concentration = torch.full((B, P, K, 8), concentration_of(torch.tensor(head.LOGARITHMS[1]).exp()).item())
    positive, negative = decoded.weights.clamp_min(0), (-decoded.weights).clamp_min(0)
    expected = 2 * (of_distributions(positive, concentration) + of_distributions(negative, concentration))
    torch.testing.assert_close(divergence(head, decoded), expected)
    assert divergence(PlainHead(), decoded) is None
