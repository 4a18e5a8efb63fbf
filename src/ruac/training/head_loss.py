"""What a head learns from when the Segment Anything model is frozen: the likelihood of the labels, and the order of the errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from ruac.distribution import grown
from ruac.features import DecoderFeatures
from ruac.heads import ExactHead, PlainHead
from ruac.losses import error_pairs, harm, likelihood, ranking
from ruac.training.config import Stage


@dataclass(frozen=True)
class HeadLoss:
    """total: the loss, with its graph; nll in nats, rank, harm: its parts without their weights."""

    total: Tensor
    nll: float
    rank: float
    harm: float


def head_loss(
    head: ExactHead, decoded: DecoderFeatures, target: Tensor, valid: Tensor, stage: Stage, generator: torch.Generator
) -> HeadLoss:
    """Of the answers to B x P objects.

    decoded: of the returned token alone, [B, P, 1, ...]; target: [B, P, 1, h, w] share of foreground; valid: [B, P or 1, 1, h, w],
    1 where pixels count; generator: draws the pixels that are compared.
    """
    size = (target.shape[-2], target.shape[-1])
    logit, plain = head(decoded).grown(size).scaled_mean(), grown(PlainHead()(decoded).mean, size)
    nll = likelihood(logit, target, valid)
    order, worse = _error_order(logit, plain, target, valid, generator)
    return HeadLoss(nll + stage.ranking * order + stage.harmless * worse, nll.item(), order.item(), worse.item())


def fitted_parameters(head: ExactHead) -> dict[str, Parameter]:
    """What is fitted, by name: all but the residual of the mask weights, which would change masks."""
    return {name: value for name, value in head.named_parameters() if name != "weight_residual.weight"}


def keep_masks(head: ExactHead) -> None:
    """Let the residual A move along the identity alone: all logits then grow or shrink together, and no mask changes.

    To be called between backward pass and step. Variance can only take confidence away; where a decoder is not sure enough, it needs
    this to be right on average.
    """
    gradient = head.pixel_residual.weight.grad
    if gradient is not None:
        identity = torch.eye(len(gradient), dtype=gradient.dtype, device=gradient.device)
        gradient.copy_(gradient.diagonal().mean() * identity)


def _error_order(
    logit: Tensor, plain: Tensor, target: Tensor, valid: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`ranking` and `harm` within each picture, averaged over those in which some pixels are right and some wrong."""
    each = []
    for i in range(len(logit)):
        here = [maps[i : i + 1] for maps in (logit, plain)]
        pairs = error_pairs(here[0].detach(), target[i : i + 1], valid[i : i + 1], generator)
        if pairs is not None:
            each.append(torch.stack([ranking(here[0], pairs), harm(here[0], here[1], pairs)]))
    mean = torch.stack(each).mean(0) if each else logit.new_zeros(2)
    return mean[0], mean[1]
