"""What methods that ask several times share: the plain decoder's logits, and the mean of many probabilities."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.distribution import MaskDistribution
from ruac.features import DecoderFeatures, Frame
from ruac.heads import PlainHead


def chosen_features(decoded: DecoderFeatures, token: Tensor) -> DecoderFeatures:
    """Of one mask token an object, [1, P], in full precision whatever the model's."""
    return decoded.select(token[..., None]).map(lambda value: value.to(torch.promote_types(value.dtype, torch.float32)))


def plain_logits(decoded: DecoderFeatures, token: Tensor) -> Tensor:
    """Logits [P, H, W] without a head, on the decoder's grid."""
    return PlainHead()(chosen_features(decoded, token)).mean[0, :, 0]


def at_original(logits: Tensor, frame: Frame, side: int) -> Tensor:
    """[P, H, W] at the image's own resolution, padding cut off: [P, height, width]. side: of the network input."""
    inside = MaskDistribution(logits, logits).crop(frame, side).mean
    return F.interpolate(inside[None], size=frame.original, mode="bilinear")[0]


def mean_logit(logits: Iterable[Tensor]) -> Tensor:
    """Logit of the mean probability; one tensor lives at a time. Raises ValueError when there is none."""
    foreground = background = None
    for x in logits:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        # 1 - p has no digits left where p rounds to one, so both shares are added up
        p, q = torch.sigmoid(x), torch.sigmoid(-x)
        foreground, background = (p, q) if foreground is None or background is None else (foreground.add_(p), background.add_(q))
    if foreground is None or background is None:
        raise ValueError("no logits to average")
    tiny = torch.finfo(foreground.dtype).tiny
    return foreground.clamp_min(tiny).log() - background.clamp_min(tiny).log()
