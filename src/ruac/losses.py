"""Losses of masks: each takes candidate masks and returns one number a candidate, so that callers can pick the best of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.distribution import bernoulli_entropy
from ruac.features import DecoderFeatures
from ruac.heads import ExactHead, PaperHead
from ruac.weibull import concentration_of, kl_to_gamma

# shape and rate of the Gamma prior of every random factor; the released settings call the second number a scale and use it as a rate
PRIOR = 1.0, 3.0
# where the weights of error pairs stop: shares of the pixels that are surer than an error, and that are more doubtful
LEAST_COVERAGE, LEAST_DOUBTED = 0.02, 0.002


def normalised_focal(logits: Tensor, target: Tensor, valid: Tensor, gamma: float = 1.0) -> Tensor:
    """Cross-entropy averaged with the focal weights (1 - p_t)^γ (normalised focal loss, Sofiiuk et al. 2019).

    logits: [B, P, K, H, W]; target: [B, P, 1, H, W] share of foreground in [0, 1]; valid: [B, P or 1, 1, H, W], 1 where pixels count.
    Returns [B, P, K]. Being an average, it weighs a small object's few hard pixels like a large one's many.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    with torch.no_grad():
        weight = (logits.sigmoid() - target).abs().pow(gamma) * valid
        weight = weight / weight.sum((-2, -1), keepdim=True).clamp_min(1e-3)
    return (weight * cross_entropy).sum((-2, -1))


def dice(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 - soft Dice coefficient, [B, P, K]; arguments as in `normalised_focal`. One cell is added to both sums for tiny objects."""
    p = logits.sigmoid() * valid
    target = target * valid
    overlap = (p * target).sum((-2, -1))
    total = p.sum((-2, -1)) + target.sum((-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


def mask_iou(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """IoU of the masks logits > 0 with target > 1/2, [B, P, K]; arguments as in `normalised_focal`. No gradient."""
    with torch.no_grad():
        found, there = (logits > 0) & (valid > 0), (target > 0.5) & (valid > 0)
        union = (found | there).sum((-2, -1))
        return (found & there).sum((-2, -1)) / union.clamp_min(1)


def best_of_many(logits: Tensor, iou: Tensor, target: Tensor, valid: Tensor, gamma: float = 1.0) -> tuple[Tensor, Tensor]:
    """The segmentation loss of SAM: token 0 always learns; of the multimask tokens 1.. the one with the least loss does.

    logits: [B, P, K, H, W], iou: [B, P, K] predicted. Returns the loss of every object [B, P] and the true IoU [B, P, K].
    """
    each = normalised_focal(logits, target, valid, gamma) + dice(logits, target, valid)
    true_iou = mask_iou(logits, target, valid)
    quality = (iou - true_iou).abs().mean(-1)
    return each[..., 0] + each[..., 1:].amin(-1) + quality, true_iou


@dataclass(frozen=True)
class ErrorPairs:
    """Wrong pixels of flattened maps, each with a right one that ought to be surer of itself. wrong, right: [pairs] places.

    weights: [2, pairs], what a pair counts, 1 on average in each row. With c the share of all pixels at least as sure as the wrong
    one, rows are 1 / c and 1 / (1 - c): the slopes of -ln c, of which the area under the risk-coverage curve is the mean over the
    wrong pixels, and of the logarithm of the precision there, whose mean is average precision. One makes much of sure errors, the
    other of right pixels among the doubtful ones; AUROC, in which all pairs are alike, lies between.
    """

    wrong: Tensor
    right: Tensor
    weights: Tensor

    def surer(self, logit: Tensor) -> Tensor:
        """By how much the wrong pixels are surer, [pairs]: in log |logit|, so that only the order matters, not the scale."""
        flat = logit.flatten()
        return _sureness(flat[self.wrong]) - _sureness(flat[self.right])


@torch.no_grad()
def error_pairs(
    logit: Tensor, target: Tensor, valid: Tensor, generator: torch.Generator | None = None, pairs: int = 8000
) -> ErrorPairs | None:
    """Drawn at random from all maps together; None when there are not both wrong and right pixels.

    Arguments as in `normalised_focal`.
    """
    counted = (valid > 0).expand_as(logit)
    is_wrong = ((logit > 0) != (target > 0.5)) & counted
    places = [flags.flatten().nonzero().squeeze(1) for flags in (is_wrong, ~is_wrong & counted)]
    if not all(map(len, places)):
        return None
    wrong, right = (all_[torch.randint(len(all_), (pairs,), generator=generator)] for all_ in places)
    sureness = _sureness(logit.flatten())
    order = sureness[counted.flatten()].sort().values
    surer = 1 - torch.searchsorted(order, sureness[wrong]) / len(order)
    weights = torch.stack([1 / surer.clamp_min(LEAST_COVERAGE), 1 / (1 - surer + LEAST_DOUBTED)])
    return ErrorPairs(wrong, right, weights / weights.mean(1, keepdim=True))


def ranking(logit: Tensor, pairs: ErrorPairs) -> Tensor:
    """How often, and by how much, a wrong pixel is surer of itself than a right one, mean of both weights. A scalar."""
    return (pairs.weights * F.softplus(2 * pairs.surer(logit))).mean()


def harm(logit: Tensor, plain: Tensor, pairs: ErrorPairs) -> Tensor:
    """By how much the order of wrong and right pixels is worse than that of the plain logits, and zero where it is better. A scalar.

    Summed over both weights. The order is smoothed, a step of finite width: errors that are hopeless do not outvote the rest.
    """
    ours, theirs = ((pairs.weights * torch.sigmoid(4 * pairs.surer(which))).mean(1) for which in (logit, plain.detach()))
    return F.relu(ours - theirs).sum()


def calibration_error(logit: Tensor, target: Tensor, valid: Tensor, bins: int = 15) -> Tensor:
    """Expected calibration error of all maps together: bins of equal width of the confidence, from 1/2 to 1. A scalar.

    Arguments as in `normalised_focal`. No proper score (a constant confidence can have none): to be used beside one. The gradient is
    that of the confidences within their bins.
    """
    confidence = torch.sigmoid(logit.abs())
    counted = valid.expand_as(logit)
    excess = (confidence - ((logit > 0) == (target > 0.5)).to(confidence.dtype)) * counted
    cells = (2 * bins * (confidence.detach() - 0.5)).long().clamp(0, bins - 1)
    total = excess.new_zeros(bins).index_add(0, cells.flatten(), excess.flatten())
    return total.abs().sum() / counted.sum().clamp_min(1)


def _sureness(logit: Tensor) -> Tensor:
    return torch.log(logit.abs() + 0.05)


def likelihood(logit: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Negative log-likelihood of the labels in nats, averaged over the pixels that count: a strictly proper score. A scalar."""
    each = F.binary_cross_entropy_with_logits(logit, target.expand_as(logit), reduction="none") * valid
    return each.sum() / valid.expand_as(each).sum().clamp_min(1)


def alignment(logit: Tensor, target: Tensor, valid: Tensor, kind: Literal["paper", "proper"] = "proper") -> Tensor:
    """How badly uncertainty and error go together, averaged over the pixels that count. A scalar.

    logit: of the probability (`MaskDistribution.scaled_mean`); arguments else as in `normalised_focal`.

    paper: with e = |p - y| and u the entropy of p in bits, e exp(-sg u) + (1 - e) exp(sg u) and its mirror, where sg stops the
    gradient (RUAC, eq. 5 and the released code). The mirror is no proper score: a pixel whose error is 0.4 does best with u = 0.
    proper: `likelihood`, the logarithmic score of the expected error against the error, whose minimum is the truth.
    """
    if kind == "proper":
        return likelihood(logit, target, valid)
    uncertainty, error = bernoulli_entropy(logit), (logit.sigmoid() - target).abs()
    u, e = uncertainty.detach(), error.detach()
    each = error * torch.exp(-u) + (1 - error) * torch.exp(u) + e * torch.exp(-uncertainty) + (1 - e) * torch.exp(uncertainty)
    return (each * valid).sum() / valid.expand_as(each).sum().clamp_min(1)


def divergence(head: nn.Module, features: DecoderFeatures) -> Tensor | None:
    """Divergence of the head's Weibull factors from their prior in nats, summed over the elements of each picture: [B].

    Of form A both factors, pixels and weights. Of form B the weights alone, all four split parts: the concentration of its pixels is
    no parameter but follows from the variance. None for a head without such factors.
    """
    if isinstance(head, PaperHead):
        pixels, k_pixel, weights, k_weight = head.factors(features)
        parts = [kl_to_gamma(pixels, k_pixel, *PRIOR), *(kl_to_gamma(weight, k_weight, *PRIOR) for weight in weights)]
    elif isinstance(head, ExactHead):
        weights, variation = head.weights(features)
        concentration = concentration_of(variation)
        # [h+, h-] of the foreground and [h-, h+] of the background
        parts = 2 * [kl_to_gamma(part, concentration, *PRIOR) for part in (F.relu(weights), F.relu(-weights))]
    else:
        return None
    return torch.stack([part.flatten(1).sum(1) for part in parts]).sum(0)
