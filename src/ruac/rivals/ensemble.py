"""A deep ensemble (Lakshminarayanan et al. 2017): the mean probability of models, or of heads on one decoder, from other seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ruac.adapter import load_head
from ruac.distribution import MaskDistribution
from ruac.evaluate.averaging import mean_logit
from ruac.evaluate.question import Method, Picture, Question, Reading
from ruac.features import ImageFeatures
from ruac.loading import read
from ruac.model import RuacModel, channels_last, chosen_token

NAME = "ensemble"


def members(model: RuacModel, paths: Sequence[Path]) -> list[RuacModel]:
    """The model itself and those at the paths: folders of models, or files of heads for this model's decoder.

    Raises ValueError without a path, for a head that does not fit, and for a model whose input or decoder has another size;
    FileNotFoundError where there is none.
    """
    if not paths:
        raise ValueError("ensemble: one model agrees with itself; name more")
    others = [_with_head(model, path) if path.is_file() else _opened(path, model.device) for path in paths]
    for path, other in zip(paths, others, strict=True):
        if (other.side, other.grid) != (model.side, model.grid):
            raise ValueError(f"{path}: takes {other.side} px, but the others of the ensemble {model.side}")
    return [model, *others]


def ensemble(models: Sequence[RuacModel]) -> Method:
    """Each model looks at the picture once, is told the same, mask prompt and all, and answers with the token that it would return."""

    def of(picture: Picture) -> Reading:
        judged = picture.model
        # heads on one decoder share what it has seen
        seen = [None if each.sam is judged.sam else _encoded(each, picture) for each in models]

        def answers(question: Question) -> Iterator[Tensor]:
            for model, features in zip(models, seen, strict=True):
                if features is None:
                    low: MaskDistribution = model(question.decoded.select(question.token[..., None]))
                else:
                    decoded = model.decode(features, question.prompts)
                    low = model(decoded.select(chosen_token(decoded, question.prompts, model.stability)))
                yield low.resize(picture.frame, judged.side).scaled_mean()[0, :, 0]

        return lambda question: mean_logit(answers(question))

    return of


def _encoded(model: RuacModel, picture: Picture) -> ImageFeatures:
    image, frame = model.prepare(picture.image)
    return model.encode(image[None], (frame,))


def _opened(path: Path, device: torch.device) -> RuacModel:
    model = read(path).eval()
    model.to(device=device)  # pyright: ignore[reportCallIssue]  hidden by transformers' signature
    return channels_last(model)


def _with_head(model: RuacModel, file: Path) -> RuacModel:
    other = RuacModel.around(model.sam)
    load_head(other, file)
    return other
