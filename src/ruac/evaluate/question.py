"""What an uncertainty method is given: one picture, and what was asked and answered about its objects.

A method is a function of the picture, called once an image (a place for what all clicks share, such as encoding flipped copies),
that returns a function of the question, called at every click. Whatever the method thinks of the picture, the masks that are judged
are those of the model's own head: methods are compared on equal masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ruac.distribution import MaskDistribution
from ruac.evaluate.averaging import at_original, plain_logits
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
    """P objects of a picture after the same number of prompts; what is at the image's own resolution is made when first asked for.

    prompts: of all objects, [1, P, ...], the mask prompt of the click before among them; decoded: every mask token's features, token:
    [1, P], which of them is returned; low: moments of the returned masks' logits, [1, P, 1, H, W], on the decoder's grid.
    """

    picture: Picture
    prompts: Prompts
    decoded: DecoderFeatures
    token: Tensor
    low: MaskDistribution

    @cached_property
    def mean(self) -> Tensor:
        """[1, P, 1, height, width] of the logits: above zero is the mask."""
        return self._enlarged(self.low.mean)

    @cached_property
    def full(self) -> MaskDistribution:
        """[1, P, 1, height, width] by the model's head."""
        return replace(self.low, mean=self.mean, variance=self._enlarged(self.low.variance))

    @cached_property
    def plain(self) -> MaskDistribution:
        """[1, P, 1, height, width] by the decoder without its head."""
        logits = self._enlarged(plain_logits(self.decoded, self.token)[None, :, None])
        # a variance of zero need not be enlarged
        return MaskDistribution(logits, torch.zeros_like(logits))

    def part(self, objects: Sequence[int]) -> Question:
        """The question about some of its objects only."""
        if list(objects) == list(range(self.token.shape[1])):
            return self
        index = torch.tensor(objects, device=self.token.device)
        mask = self.prompts.mask_logits
        return Question(
            self.picture,
            Prompts(self.prompts.points[:, index], self.prompts.labels[:, index], None if mask is None else mask[:, index]),
            self.decoded.map(lambda value: value[:, index]),
            self.token[:, index],
            self.low.map(lambda value: value[:, index]),
        )

    def _enlarged(self, maps: Tensor) -> Tensor:
        return at_original(maps[0, :, 0], self.picture.frame, self.picture.model.side)[None, :, None]


# logits [P, height, width] of the probability that a pixel belongs to the object
Reading = Callable[[Question], Tensor]
Method = Callable[[Picture], Reading]
