"""What one branch of the objective, clean or attacked, is told: the losses of decoded objects, one number a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor, nn

from ruac.distribution import MaskDistribution, grown
from ruac.features import DecoderFeatures
from ruac.heads import PlainHead
from ruac.losses import (
    alignment,
    best_of_many,
    calibration_error,
    dice,
    divergence,
    error_pairs,
    harm,
    normalised_focal,
    ranking,
)
from ruac.model import chosen_token
from ruac.training.config import Stage
from ruac.training.variant import Judged


def losses(
    judged: Judged,
    counts: Mapping[str, float],
    own: Callable[[Judged], Tensor] | None,
    rngs: Sequence[np.random.Generator],
) -> dict[str, Tensor]:
    """Every term by its name, [B] each and without its weight; "iou" among them, of the masks that would be returned.

    counts: what `weights` says; terms that count nothing may be left out. own: a loss in place of those of masks and
    uncertainty; rngs: one a picture.
    """
    # half the pixels of a bfloat16 mask would be ties
    with torch.autocast(judged.truth.device.type, enabled=False):
        if own is not None:
            return {"loss": own(judged)}
        found = _of_the_head(judged, rngs) if judged.stage.train == "head" else _of_masks(judged, counts)
        diverged = divergence(judged.model.head, judged.decoded.map(Tensor.float)) if counts["kl"] else None
        return found if diverged is None else {**found, "kl": diverged}


def weights(stage: Stage, attacked: bool, done: float) -> dict[str, float]:
    """What each term of `losses` counts in its branch, when this share of the stage has passed."""
    kl = stage.kl_at(done)
    if stage.train == "head":
        order = {"rank": stage.ranking, "harm": stage.harmless, "ece": stage.calibration}
        return {"nll": 1.0, "align": 1.0, "loss": 1.0, **order, "kl": kl}
    aligned = stage.alignment != "none" and (attacked or stage.alignment_of == "all")
    return {"loss": 1.0, "align": stage.alignment_weight if aligned else 0.0, "kl": kl}


def _of_masks(judged: Judged, counts: Mapping[str, float]) -> dict[str, Tensor]:
    """All candidates learn; the uncertainty of the one that would be returned is aligned with its errors."""
    stage, decoded, size = judged.stage, judged.decoded, _size(judged.truth)
    distribution = judged.model(decoded)
    token = chosen_token(decoded, judged.prompts, judged.model.stability)
    logits = distribution.grown(size).scaled_mean() if stage.alignment == "none" else grown(distribution.prompt, size)
    loss, iou = best_of_many(logits, decoded.iou.float(), judged.truth, judged.valid, stage.focal)
    found = {"loss": loss.mean(1), "iou": iou.gather(2, token).mean((1, 2))}
    if counts["align"] and stage.alignment != "none":
        logit = _pick(distribution, token).grown(size).scaled_mean()
        found["align"] = _each(partial(alignment, kind=stage.alignment), logit, judged.truth, judged.valid)
    return found


def _of_the_head(judged: Judged, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
    chosen = judged.decoded.select(chosen_token(judged.decoded, judged.prompts, judged.model.stability)).map(Tensor.float)
    return of_chosen(judged.model.head, chosen, judged.truth, judged.valid, judged.stage, rngs)


def of_chosen(
    head: nn.Module, decoded: DecoderFeatures, truth: Tensor, valid: Tensor, stage: Stage, rngs: Sequence[np.random.Generator]
) -> dict[str, Tensor]:
    """What a head alone learns from, of masks that do not change: every term by its name, [B].

    decoded: of the returned token alone, [B, P, 1, ...]; truth: [B, P, 1, h, w]; valid: [B, 1, 1, h, w]; rngs: one a picture, to draw
    the pixels that are compared.
    """
    size = _size(truth)
    logit, plain = head(decoded).grown(size).scaled_mean(), grown(PlainHead()(decoded).mean, size)
    if stage.alignment == "none":
        found = {"loss": (normalised_focal(logit, truth, valid, stage.focal) + dice(logit, truth, valid)).mean((1, 2))}
    else:
        name = "nll" if stage.alignment == "proper" else "align"
        found = {name: _each(partial(alignment, kind=stage.alignment), logit, truth, valid)}
    each = []
    for i, rng in enumerate(rngs):
        one = slice(i, i + 1)
        each.append(_error_order(logit[one], plain[one], truth[one], valid[one], rng))
    order, worse = torch.stack(each, 1)
    return {**found, "rank": order, "harm": worse, "ece": _each(calibration_error, logit, truth, valid)}


def _error_order(logit: Tensor, plain: Tensor, truth: Tensor, valid: Tensor, rng: np.random.Generator) -> Tensor:
    """`ranking` and `harm` within a picture, [2]; nothing where all is right or all is wrong."""
    pairs = error_pairs(logit.detach(), truth, valid, Generator().manual_seed(int(rng.integers(2**31))))
    if pairs is None:
        return logit.new_zeros(2)
    return torch.stack([ranking(logit, pairs), harm(logit, plain, pairs)])


def _each(loss: Callable[[Tensor, Tensor, Tensor], Tensor], logit: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """A loss that is one number, picture by picture: a process may have any of them."""
    pictures = zip(logit, truth, valid, strict=True)
    return torch.stack([loss(a[None], b[None], c[None]) for a, b, c in pictures])


def _pick(distribution: MaskDistribution, token: Tensor) -> MaskDistribution:
    """The moments of the tokens [B, P, 1]."""
    index = token[..., None, None].expand(*token.shape, *distribution.mean.shape[-2:])
    return MaskDistribution(distribution.mean.gather(2, index), distribution.variance.gather(2, index))


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]
