"""What an uncertainty method is given: one picture, and what was asked and answered about its objects.

A method is a function of the picture, called once an image (a place for what all clicks share, such as encoding flipped copies),
that returns a function of the question, called at every click. Whatever the method thinks of the picture, the masks that are judged
are those of the model's own head: methods are compared on equal masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ruac.distribution import MaskDistribution
from ruac.features import DecoderFeatures, Frame, ImageFeatures, Prompts
from ruac.model import RuacModel


@dataclass(frozen=True)
class Picture:
    """image: uint8 [3, height, width] on the model's device; features: of it, a batch of one."""

    model: RuacModel
    image: Tensor
    features: ImageFeatures

    @property
    def frame(self) -> Frame:
        (frame,) = self.features.frames
        return frame


@dataclass(frozen=True)
class Question:
    """P objects after the same number of prompts.

    prompts: of all objects, [1, P, ...], the mask prompt of the click before among them; decoded: every mask token's features, token:
    [1, P], which of them is returned; low: moments of the returned masks' logits, [1, P, 1, H, W], on the decoder's grid; full, plain:
    [1, P, 1, height, width] at the image's own resolution, by the model's head and by the decoder without it.
    """

    prompts: Prompts
    decoded: DecoderFeatures
    token: Tensor
    low: MaskDistribution
    full: MaskDistribution
    plain: MaskDistribution


# logits [P, height, width] of the probability that a pixel belongs to the object
Reading = Callable[[Question], Tensor]
Method = Callable[[Picture], Reading]
