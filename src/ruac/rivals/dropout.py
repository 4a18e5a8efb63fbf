"""Monte Carlo dropout (Gal & Ghahramani 2016): the mean of many answers, each without some of the mask weights.

What is dropped out are the channels of the decoder's last product, logit = h · x, by way of its weights h: the same channels at all
pixels, as in a network of fewer channels. The answers of 20 networks are one product then, where dropping out pixels one by one would
draw 20 · C · H · W numbers. The same 20 thinned networks answer for every object.

It can be had without training, its rate chosen on held-out pictures ("dropout injection", Ledda et al. 2023), and of a model that
was trained with it (`dropout_training`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.data.folder import FolderSet
from ruac.evaluate.averaging import at_original, chosen_features, mean_logit
from ruac.evaluate.baselines import SAMPLES
from ruac.evaluate.question import Method, Picture, Reading
from ruac.features import DecoderFeatures
from ruac.model import RuacModel
from ruac.rivals import store
from ruac.rivals.lessons import Lesson, Lessons, require_held_out, stream
from ruac.training.variant import Variant

NAME = "dropout"
RATES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


def thinned(features: DecoderFeatures, rate: float, samples: int = SAMPLES) -> Tensor:
    """Logits [samples, B, P, K, H, W] of as many thinned networks, the same for all objects."""
    channels = features.weights.shape[-1]
    generator = torch.Generator().manual_seed(0)  # drawn where every machine draws the same numbers
    kept = (torch.rand(samples, 1, 1, 1, channels, generator=generator) >= rate) / (1 - rate)
    weights = (features.weights * kept.to(features.weights)).movedim(0, 3).flatten(2, 3)  # (B, P, K * samples, C)
    logits = (weights @ features.pixels.flatten(-2)).unflatten(2, (-1, samples)).movedim(3, 0)
    return logits.unflatten(-1, features.pixels.shape[-2:])


def dropout(rate: float, samples: int = SAMPLES) -> Method:
    """The mean probability of the thinned networks, each enlarged to the picture's resolution as logits."""

    def of(picture: Picture) -> Reading:
        def answers(chosen: DecoderFeatures) -> Iterator[Tensor]:
            for logits in thinned(chosen, rate, samples):
                yield at_original(logits[0, :, 0], picture.frame, picture.model.side)

        return lambda question: mean_logit(answers(chosen_features(question.decoded, question.token)))

    return of


def choose_rate(held_out: Iterable[Lesson], rates: Sequence[float] = RATES) -> tuple[float, float]:
    """The rate with the least negative log-likelihood of the labels, and that, in nats. Raises ValueError without a pixel."""
    loss, pixels = torch.zeros(len(rates), dtype=torch.float64), 0.0
    for lesson in held_out:
        counted = lesson.valid.expand_as(lesson.target)
        pixels += counted.sum().item()
        for i, rate in enumerate(rates):
            logit = mean_logit(thinned(lesson.features, rate))
            each = F.binary_cross_entropy_with_logits(logit, lesson.target, reduction="none")
            loss[i] += (each * counted).sum().double()
    if not pixels:
        raise ValueError("dropout: no held-out pixel to choose the rate on")
    best = int(loss.argmin())
    return rates[best], loss[best].item() / pixels


def fit_dropout(model: RuacModel, sets: Sequence[FolderSet], out: Path, lessons: Lessons) -> Path:
    """A tenth of the lessons, on held-out pictures; the rate is written to `out`."""
    require_held_out(sets)
    rate, nll = choose_rate(stream(model, sets, lessons.brief(), held_out=True))
    return store.write(out, store.Stored(NAME, {"rate": torch.tensor(rate)}, {"rate": str(rate), "nll": f"{nll:.5f}"}), model)


def open_dropout(stored: store.Stored, model: RuacModel) -> Method:
    """Raises ValueError for what is no rate."""
    rate = stored.tensors["rate"]
    if rate.numel() != 1 or not 0 < rate.item() < 1:
        raise ValueError(f"dropout: a rate between 0 and 1 is wanted, not {rate.flatten()[:3].tolist()}")
    return dropout(rate.item())


def dropout_training(rate: float) -> Variant:
    """Training with that share of the mask weights dropped out. Raises ValueError for a rate outside 0 .. 1."""
    if not 0 < rate < 1:
        raise ValueError(f"the rate of dropout must lie between 0 and 1, not {rate}")

    def drop(module: nn.Module, _: Any, weights: Tensor) -> Tensor:
        return F.dropout(weights, rate, module.training)

    def adapt(model: RuacModel) -> None:
        for network in model.sam.mask_decoder.output_hypernetworks_mlps:
            network.register_forward_hook(drop)

    return Variant(adapt=adapt, name=f"dropout at {rate}")
