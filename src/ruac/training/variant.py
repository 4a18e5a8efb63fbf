"""What a method that is compared with changes in a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ruac.features import DecoderFeatures, Prompts
from ruac.model import RuacModel
from ruac.training.checkpoint import Position
from ruac.training.config import Stage
from ruac.training.start import Adapt, as_it_is


@dataclass(frozen=True)
class Judged:
    """What a loss may look at.

    decoded: every candidate of B pictures; prompts: what was asked, of the same pictures; truth: [B, P, 1, h, w] share of foreground;
    valid: [B, 1, 1, h, w], 1 where pixels count. Both are finer than the decoder's grid.
    """

    model: RuacModel
    decoded: DecoderFeatures
    prompts: Prompts
    truth: Tensor
    valid: Tensor
    stage: Stage


@dataclass(frozen=True)
class Variant:
    """Changes to a run; the default changes nothing.

    adapt: changes the modules of the model in place (low-rank layers, dropout, another head) before anything is loaded into them; it
    is called on nano's copies at other sizes as well. trains: the names of parameters that are trained, in place of what the stage
    says. loss: one number a picture, [B], in place of the losses of masks and uncertainty. finish: changes the model in place
    before it is written (merges low-rank layers, say), so that it can be read without the variant. name: what tells it from other
    variants, numbers and all; see `config.MethodConfig`.
    """

    adapt: Adapt = as_it_is
    trains: Callable[[str], bool] | None = None
    loss: Callable[[Judged], Tensor] | None = None
    finish: Adapt = as_it_is
    name: str = ""


PLAIN = Variant()

# told after every step: where the run stands, and what gives a copy of the model with its averaged weights, in evaluation mode
Watch = Callable[[Position, Callable[[], RuacModel]], None]
