"""Losses of masks: each takes candidate masks and returns one number a candidate, so that callers can pick the best of several."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.distribution import bernoulli_entropy


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

    logits: [B, P, K, H, W], iou: [B, P, K] predicted. Returns the mean loss and the true IoU [B, P, K].
    """
    each = normalised_focal(logits, target, valid, gamma) + dice(logits, target, valid)
    true_iou = mask_iou(logits, target, valid)
    quality = (iou - true_iou).abs().mean()
    return each[..., 0].mean() + each[..., 1:].amin(-1).mean() + quality, true_iou


def ranking(logit: Tensor, target: Tensor, valid: Tensor, generator: torch.Generator | None = None, pairs: int = 4000) -> Tensor:
    """How often a wrong pixel is surer of itself than a right one, smoothed: a surrogate of 1 - AUROC of error detection. A scalar.

    Sureness is log |logit|, so that only its order over the pixels of the batch matters, not its scale. Arguments as in
    `normalised_focal`; pairs: drawn at random. Zero where there are no wrong pixels, or no right ones.
    """
    wrong = ((logit > 0) != (target > 0.5)) & (valid > 0)
    right = ~wrong & (valid > 0).expand_as(wrong)
    sureness = torch.log(logit.abs() + 0.05)
    sure_wrong, sure_right = sureness[wrong], sureness[right]
    if not len(sure_wrong) or not len(sure_right):
        return logit.sum() * 0
    drawn_wrong, drawn_right = (torch.randint(len(s), (pairs,), generator=generator) for s in (sure_wrong, sure_right))
    return F.softplus(2 * (sure_wrong[drawn_wrong] - sure_right[drawn_right])).mean()


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
