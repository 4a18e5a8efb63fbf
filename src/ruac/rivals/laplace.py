"""Last-layer Laplace approximation: a normal posterior around the decoder's last product, after training, without training.

The weights of that product, h, are made anew for every object by the hypernetworks, so they have no posterior of their own. What
all objects share is a linear map between the two factors, logit = h · (x + A x), whose mode A = 0 is the decoder as it is. Its
derivative by A is the outer product of h and x, so the Gauss-Newton matrix of an object's pixels, Σ p (1 - p) (h xᵀ)(h xᵀ)ᵀ, is the
Kronecker product of hhᵀ and a C x C matrix: all C⁴ numbers of the full one are had in one pass, in constant memory (Daxberger et al.
2021, "Laplace Redux"; for segmentation, UncertSAM names it the best post-hoc method).

Two numbers have no gradient. Neighbouring pixels are no independent observations, so n of them count as many times fewer; and the
prior has a precision. The marginal likelihood cannot choose it: it grows with the prior's precision for ever, because the mode is
zero by construction. Both are chosen by the likelihood of held-out labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.data.folder import FolderSet
from ruac.distribution import MaskDistribution
from ruac.evaluate.averaging import chosen_features
from ruac.evaluate.question import Method, Picture, Question, Reading
from ruac.features import DecoderFeatures
from ruac.heads import PlainHead
from ruac.model import RuacModel
from ruac.rivals import store
from ruac.rivals.lessons import Lesson, Lessons, require_held_out, stream

NAME = "laplace"
# of the prior's precision, in units of the mean curvature of a direction, and of the posterior as a whole
RELATIVE_PRECISIONS = tuple(10.0**n for n in range(-4, 3))
SCALES = tuple(10.0 ** (n / 3) for n in range(-21, 7))


@dataclass(frozen=True)
class Curvature:
    """matrix: [C², C²] float64, the Gauss-Newton matrix by A, flattened row by row; pixels: how many were added up."""

    matrix: Tensor
    pixels: float

    @staticmethod
    def of(lesson: Lesson) -> Curvature:
        features = lesson.features.map(Tensor.double)
        doubt = PlainHead()(features).mean.sigmoid()
        weight = (doubt * (1 - doubt) * lesson.valid).flatten(-2)  # (B, P, K, HW)
        x, h = features.pixels.flatten(-2).unsqueeze(2), features.weights  # (B, P, 1, C, HW), (B, P, K, C)
        inner = (weight.unsqueeze(3) * x) @ x.mT
        outer = torch.einsum("bpki,bpkj->bpkij", h, h)
        full = torch.einsum("bpkij,bpkcd->icjd", outer, inner)
        pixels = lesson.valid.expand(*doubt.shape).sum().item()
        return Curvature(full.flatten(0, 1).flatten(1), pixels)

    def __add__(self, other: Curvature) -> Curvature:
        return Curvature(self.matrix + other.matrix, self.pixels + other.pixels)


@dataclass(frozen=True)
class Posterior:
    """covariance: [C², C²] of A, flattened row by row."""

    covariance: Tensor

    def variance(self, features: DecoderFeatures) -> Tensor:
        """Of the logits, [B, P, K, H, W]."""
        c = features.pixels.shape[2]
        covariance = self.covariance.to(features.pixels).view(c, c, c, c)
        h, x = features.weights, features.pixels.flatten(-2)
        within = torch.einsum("bpki,icjd,bpkj->bpkcd", h, covariance, h)  # of the pixel's part, for this object
        each = [((part @ x) * x).sum(-2) for part in within.unbind(2)]  # a mask at a time, to save memory
        return torch.stack(each, 2).clamp_min(0).unflatten(-1, features.pixels.shape[-2:])

    def distribution(self, features: DecoderFeatures) -> MaskDistribution:
        """The decoder's own logits, and how little is known about each."""
        return MaskDistribution(PlainHead()(features).mean, self.variance(features))


@dataclass(frozen=True)
class Choice:
    """posterior: with the least negative log-likelihood, nll, of held-out labels in nats; precision: of the prior; observations: as
    how many the pixels of the training pictures were counted."""

    posterior: Posterior
    nll: float
    precision: float
    observations: float


def accumulate(lessons: Iterable[Lesson]) -> Curvature:
    """Of all lessons together. Raises ValueError when there is none."""
    total: Curvature | None = None
    for lesson in lessons:
        part = Curvature.of(lesson)
        total = part if total is None else total + part
    if total is None:
        raise ValueError("laplace: no picture to learn from; give it at least one step")
    return total


def choose(curvature: Curvature, held_out: Iterable[Lesson]) -> Choice:
    """The posterior under which the held-out labels are likeliest: by MacKay's probability, over a grid, in one pass."""
    values, vectors = torch.linalg.eigh(curvature.matrix / curvature.pixels)
    values = values.clamp_min(0)
    mean = values.mean().item()
    posteriors = [Posterior((vectors / (values + r * mean)) @ vectors.T) for r in RELATIVE_PRECISIONS]
    scales = torch.tensor(SCALES)
    loss, pixels = torch.zeros(len(posteriors), len(SCALES), dtype=torch.float64), 0.0
    for lesson in held_out:
        logit = PlainHead()(lesson.features).mean
        counted = lesson.valid.expand_as(logit)
        pixels += counted.sum().item()
        for i, posterior in enumerate(posteriors):
            variance = posterior.variance(lesson.features)
            for j, scale in enumerate(scales):
                scaled = MaskDistribution(logit, scale * variance).scaled_mean()
                each = F.binary_cross_entropy_with_logits(scaled, lesson.target, reduction="none")
                loss[i, j] += (each * counted).sum().double()
    if not pixels:
        raise ValueError("laplace: no held-out pixel to choose the prior on")
    i, j = divmod(int(loss.argmin()), len(SCALES))
    scale = SCALES[j]
    covariance = (scale * posteriors[i].covariance).float()
    return Choice(
        Posterior(covariance), loss[i, j].item() / pixels, precision=RELATIVE_PRECISIONS[i] * mean / scale, observations=1 / scale
    )


def laplace(posterior: Posterior) -> Method:
    """MacKay's probability of the decoder's logits with the posterior's variance, both enlarged to the picture's resolution."""

    def of(picture: Picture) -> Reading:
        def read(question: Question) -> Tensor:
            low = posterior.distribution(chosen_features(question.decoded, question.token))
            return low.resize(picture.frame, picture.model.side).scaled_mean()[0, :, 0]

        return read

    return of


def fit_laplace(model: RuacModel, sets: Sequence[FolderSet], out: Path, lessons: Lessons) -> Path:
    """One pass over the training pictures and a tenth of one over held-out ones; the posterior is written to `out`."""
    require_held_out(sets)
    curvature = accumulate(stream(model, sets, lessons))
    chosen = choose(curvature, stream(model, sets, lessons.brief(), held_out=True))
    facts = {"nll": f"{chosen.nll:.5f}", "precision": f"{chosen.precision:.3g}", "observations": f"{chosen.observations:.3g}"}
    return store.write(out, store.Stored(NAME, {"covariance": chosen.posterior.covariance}, facts), model)


def open_laplace(stored: store.Stored, model: RuacModel) -> Method:
    """Raises ValueError for a posterior of another width."""
    covariance = stored.tensors["covariance"]
    size = model.family.channels**2
    if covariance.shape != (size, size):
        raise ValueError(f"laplace: a posterior of {tuple(covariance.shape)} numbers, but this model's has {size} x {size}")
    return laplace(Posterior(covariance))
