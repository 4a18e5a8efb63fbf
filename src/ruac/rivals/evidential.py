"""Evidential segmentation: a Beta distribution over every pixel's probability, from one pass (Sensoy et al. 2018, for two classes).

The evidence for foreground and for background is e± = exp(g ± s μ / 2): μ the decoder's own logit, s its sharpness, g how much there
is to go by, learnt from the pixel's features and the mask token. With α = 1 + e₊ and β = 1 + e₋ the mean probability is above one
half exactly where μ > 0, so the masks stay the decoder's own; much evidence gives back σ(s μ), none gives one half.

The loss is Sensoy's: the expected squared error of a Beta-distributed probability, and the divergence of what evidence speaks for
the wrong label from none, its weight rising over the first half of the steps. Next to it stands what uncertainty-regularised
evidential regression adds (UR-ERN, Ye et al. 2024, eq. 17): -|error| · log(exp(e) - 1). There e = α - 1 is the softplus of the
network's output, so that the term is -|error| times that output and reaches pixels whose evidence, and so whose gradient, has died.
Theirs is a regression with a normal-inverse-gamma distribution, which says nothing of labels; here the output is g, and it counts
only where g < 0, for beyond that the term would reward errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.data.folder import FolderSet
from ruac.distribution import MaskDistribution
from ruac.evaluate.averaging import chosen_features
from ruac.evaluate.question import Method, Picture, Question, Reading
from ruac.features import DecoderFeatures
from ruac.heads import Head, PlainHead
from ruac.model import RuacModel
from ruac.rivals import store
from ruac.rivals.lessons import Lesson, Lessons, stream
from ruac.training.config import Stage

NAME = "evidential"
LARGEST_EVIDENCE = 10.0  # of g: e^10 pixels are as good as all
START = 3.0  # of g: nearly the decoder's own probabilities
PACE = 0.3  # of what the token says, which has hundreds of inputs where the rest has few
ANNEALING = 0.5  # share of the steps
REGULARISER = 0.01
SMALL_LOGIT = 1e-2


@dataclass(frozen=True)
class Evidence:
    """amount: g; logit: s μ; both [B, P, K, H, W]."""

    amount: Tensor
    logit: Tensor

    @property
    def foreground(self) -> Tensor:
        """α - 1."""
        return torch.exp(self.amount + self.logit / 2)

    @property
    def background(self) -> Tensor:
        """β - 1."""
        return torch.exp(self.amount - self.logit / 2)

    @property
    def mean_logit(self) -> Tensor:
        """The logit of the mean probability α / (α + β)."""
        return F.softplus(self.amount + self.logit / 2) - F.softplus(self.amount - self.logit / 2)

    def distribution(self) -> MaskDistribution:
        """The normal logit with mean s μ whose MacKay probability is the Beta's mean.

        The Beta's own logit has another mean, but the same sign; with this one no mask changes when moments are enlarged.
        """
        # |mean_logit| <= |s μ|; where both vanish their ratio tends to σ(g)
        small = self.logit.abs() < SMALL_LOGIT
        ratio = torch.where(small, self.amount.sigmoid(), self.mean_logit / torch.where(small, 1.0, self.logit))
        return MaskDistribution(self.logit, (8 / math.pi) * (ratio.square().reciprocal() - 1).clamp_min(0))


class EvidentialHead(Head):
    """What the evidence is made of."""

    HIDDEN = 16

    def __init__(self, channels: int, token_width: int):
        super().__init__()
        last = nn.Linear(self.HIDDEN, 1)
        self.pixel = nn.Sequential(nn.Linear(channels, self.HIDDEN), nn.GELU(), last)
        self.token = nn.Linear(token_width, 3)  # evidence of the mask, influence of the pixel, logarithm of the sharpness
        for layer in (last, self.token):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def evidence(self, features: DecoderFeatures) -> Evidence:
        pixel = self.pixel(features.pixels.movedim(2, -1)).movedim(-1, 2)  # (B, P, 1, H, W)
        of_mask, influence, sharpness = (PACE * self.token(features.tokens))[..., None, None].unbind(3)  # (B, P, K, 1, 1) each
        influence, sharpness = (value.clamp(-LARGEST_EVIDENCE, LARGEST_EVIDENCE).exp() for value in (influence, sharpness))
        # bent, not cut off: beyond a cut there is no gradient
        amount = LARGEST_EVIDENCE * torch.tanh((START + of_mask + influence * pixel) / LARGEST_EVIDENCE)
        return Evidence(amount, sharpness * PlainHead()(features).mean)

    def forward(self, features: DecoderFeatures) -> MaskDistribution:
        return self.evidence(features).distribution()

    def sample(self, features: DecoderFeatures, samples: int, generator: torch.Generator | None = None) -> Tensor:
        return self(features).sample(samples, generator)


def evidential_loss(evidence: Evidence, target: Tensor, valid: Tensor, divergence: float) -> Tensor:
    """A scalar, averaged over the pixels that count. target: [B, P, 1, H, W]; valid: [B, P or 1, 1, H, W]; divergence: its weight."""
    e_plus, e_minus = evidence.foreground, evidence.background
    p = evidence.mean_logit.sigmoid()
    error = (target - p).abs()
    risk = error.square() + p * (1 - p) / (3 + e_plus + e_minus)
    wrong = 1 + torch.where(target > 0.5, e_minus, e_plus)
    misled = wrong.log() - 1 + 1 / wrong  # KL(Beta(1, b) ‖ Beta(1, 1)), what speaks for the right label taken off
    revival = error.detach() * F.relu(-evidence.amount)
    each = (risk + divergence * misled + REGULARISER * revival) * valid
    return each.sum() / valid.expand_as(each).sum().clamp_min(1)


def train_evidential(head: EvidentialHead, lessons: Iterable[Lesson], stage: Stage) -> list[float]:
    """The losses, lesson after lesson; the head learns in place, two lessons a step, at the rates of the stage.

    Raises FloatingPointError when a gradient is not finite.
    """
    optimizer = torch.optim.AdamW(head.parameters(), lr=stage.rate, betas=(0.9, 0.98), weight_decay=0.0)
    losses = []
    for number, lesson in enumerate(lessons):
        step = number // 2
        divergence = min(1.0, (step + 1) / max(1.0, ANNEALING * stage.steps))
        loss = evidential_loss(head.evidence(lesson.features), lesson.target, lesson.valid, divergence)
        (loss / 2).backward()
        losses.append(loss.item())
        if number % 2:
            norm = nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"evidential: the gradient of step {step} is not finite: lower the learning rate")
            for group in optimizer.param_groups:
                group["lr"] = stage.rate * stage.factor(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return losses


def evidential(head: EvidentialHead) -> Method:
    """The Beta's mean probability."""

    def of(picture: Picture) -> Reading:
        def read(question: Question) -> Tensor:
            low = head(chosen_features(question.decoded, question.token))
            return low.resize(picture.frame, picture.model.side).scaled_mean()[0, :, 0]

        return read

    return of


def fit_evidential(model: RuacModel, sets: Sequence[FolderSet], out: Path, lessons: Lessons) -> Path:
    """The evidence of the frozen decoder's pixels, learnt over all lessons; the head is written to `out`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lessons.seed)
        head = EvidentialHead(model.family.channels, model.family.token_width)
    losses = train_evidential(head.to(model.device), stream(model, sets, lessons), lessons.stage)
    recent = losses[-max(1, len(losses) // 10) :]
    return store.write(out, store.Stored(NAME, head.state_dict(), {"loss": f"{sum(recent) / len(recent):.5f}"}), model)


def open_evidential(stored: store.Stored, model: RuacModel) -> Method:
    """Raises ValueError for a head of another width."""
    head = EvidentialHead(model.family.channels, model.family.token_width)
    try:
        head.load_state_dict(dict(stored.tensors))
    except RuntimeError:
        raise ValueError("evidential: a head for a decoder of another width; fit it to this model") from None
    return evidential(head.to(model.device).eval().requires_grad_(False))
