"""Test-time augmentation: the same question about the same picture, mirrored and smaller; the mean of the answers' probabilities.

The picture fills the network input already, so it can be shown smaller there, not larger: a larger one would have to be cut, and
objects and clicks with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.evaluate.averaging import at_original, mean_logit, plain_logits
from ruac.evaluate.question import Method, Picture, Question, Reading
from ruac.features import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, Frame, ImageFeatures, Prompts
from ruac.model import RuacModel

GREY = 116  # about ImageNet's mean, around which every family normalises


@dataclass(frozen=True)
class View:
    """scale: of the picture's sides in the network input, at most 1, the rest being grey; mirrored: left and right exchanged."""

    scale: float = 1.0
    mirrored: bool = False

    def frame(self, frame: Frame, side: int, grid: int) -> Frame:
        """Where the picture lies now, in whole pixels of the network input and of the decoder's grid."""
        step = side // math.gcd(side, grid)  # SAM 3 has 3.5 pixels to one of the grid
        rows, columns = (max(step, round(n * self.scale / step) * step) for n in frame.inside)
        return replace(frame, inside=(rows, columns))

    def pixels(self, prepared: Tensor, before: Frame, after: Frame) -> Tensor:
        """[3, S, S] in 0..255 as `RuacModel.prepare` makes them; what it padded with stays where the size does."""
        return self._moved(prepared.float(), before.inside, after.inside, prepared.new_full((3,), GREY).float())

    def prompts(self, prompts: Prompts, before: Frame, after: Frame, side: int) -> Prompts:
        """The same words about the same places; the earlier mask is empty where the picture ends."""
        points = after.to_input(before.to_original(prompts.points))
        if self.mirrored:
            points = _mirrored(points, prompts.labels, after.inside[1])
        mask = prompts.mask_logits
        if mask is not None:
            was, becomes = (_on_grid(frame, mask.shape[-1], side) for frame in (before, after))
            mask = self._moved(mask[0], was, becomes, mask[0].amin((-2, -1)))[None]
        return Prompts(points, prompts.labels, mask)

    def back(self, logits: Tensor) -> Tensor:
        """[..., height, width] at the image's own resolution as the image has it."""
        return logits.flip(-1) if self.mirrored else logits

    def _moved(self, maps: Tensor, before: tuple[int, int], after: tuple[int, int], outside: Tensor) -> Tensor:
        """Square maps [N, S, S] with their top left corner of one size brought to another; outside: [N], what surrounds it then."""
        inside = maps[:, : before[0], : before[1]]
        if after != before:
            inside = F.interpolate(inside[None], size=after, mode="bilinear", antialias=True)[0]
            maps = outside[:, None, None].expand_as(maps)
        moved = maps.clone()
        moved[:, : after[0], : after[1]] = inside.flip(-1) if self.mirrored else inside
        return moved


# next to the picture as it is
VIEWS = (View(mirrored=True), View(0.75), View(0.75, mirrored=True))


@dataclass(frozen=True)
class _Seen:
    """A picture seen in another way."""

    view: View
    features: ImageFeatures

    def answer(self, model: RuacModel, question: Question, before: Frame) -> Tensor:
        """Logits [P, height, width] of the same mask tokens by the plain decoder."""
        (frame,) = self.features.frames
        decoded = model.decode(self.features, self.view.prompts(question.prompts, before, frame, model.side))
        return self.view.back(at_original(plain_logits(decoded, question.token), frame, model.side))


def tta(views: Sequence[View] = VIEWS) -> Method:
    """The mean probability of the plain decoder over the picture as it is and these views of it.

    Every view is encoded once a picture and decoded at every click: each costs an encoder pass and as many decoder passes as the
    clicks.
    """

    def of(picture: Picture) -> Reading:
        seen = [_look(picture, view) for view in views]

        def read(question: Question) -> Tensor:
            def answers() -> Iterator[Tensor]:
                yield question.plain.mean[0, :, 0]
                for each in seen:
                    yield each.answer(picture.model, question, picture.frame)

            return mean_logit(answers())

        return read

    return of


def _look(picture: Picture, view: View) -> _Seen:
    model, before = picture.model, picture.frame
    prepared, _ = model.prepare(picture.image)
    after = view.frame(before, model.side, model.grid)
    pixels = view.pixels(prepared, before, after)
    return _Seen(view, model.encode(pixels[None], (after,)))


def _on_grid(frame: Frame, grid: int, side: int) -> tuple[int, int]:
    """Rows and columns that the picture takes of the decoder's grid."""
    rows, columns = frame.inside
    return rows * grid // side, columns * grid // side


def _mirrored(points: Tensor, labels: Tensor, columns: int) -> Tensor:
    """Input coordinates [..., N, 2] after left and right of a picture this wide are exchanged."""
    x, y = points.unbind(-1)
    x = columns - 1 - x
    # the left side of a box becomes its right side; the two corners follow each other
    x = torch.where(labels == BOX_TOP_LEFT, x.roll(-1, -1), torch.where(labels == BOX_BOTTOM_RIGHT, x.roll(1, -1), x))
    return torch.stack([x, y], -1)
