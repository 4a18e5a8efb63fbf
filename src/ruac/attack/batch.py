"""What goes into an attack and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from ruac.features import ImageFeatures, Prompts


@dataclass(frozen=True)
class Slope:
    """Where up is: the gradient, at the clean batch, of what the attack is to make large. images: [B, 3, S, S]; masks: [B, P, S, S].

    The backward pass of a training step's clean branch gives it for next to nothing. Only its direction matters, picture by picture.
    """

    images: Tensor
    masks: Tensor


@dataclass(frozen=True)
class LabelledBatch:
    """Pictures, the objects in them, and what was said about the objects.

    images: [B, 3, S, S] float in 0..255; masks: [B, P, S, S], the share of each pixel that is the object, mostly 0 or 1;
    ignore: [B, 1, S, S], 1 where pixels must not count (padding, unlabelled); prompts: in coordinates of the network input;
    present: [B, P] bool, False for objects that only fill the batch up; slope: None where it is not known.
    """

    images: Tensor
    masks: Tensor
    ignore: Tensor
    prompts: Prompts
    present: Tensor
    slope: Slope | None = field(default=None, kw_only=True)

    @property
    def objects(self) -> Tensor:
        """The masks, empty for objects that are not there."""
        return self.masks * self.present[..., None, None]

    @property
    def counted(self) -> Tensor:
        """[B, 1, S, S], 1 where pixels count."""
        return 1 - self.ignore


@dataclass(frozen=True)
class AttackedBatch(LabelledBatch):
    """A batch after an attack: to be learnt from like any other.

    styles: [B, P + 1, 6] of every region, the background first: what was added to the mean of its three channels, in normalised
    units, and by what their standard deviations were multiplied; None where no style was changed.
    flow: [B, 2, S, S], (x, y) in input pixels: pixel q shows what was at q + flow(q); None where nothing moved.
    magnitudes: how much was changed, [B] each. `rms` and `peak` of the change of the pixels in 0..255, before anything moves;
    `mean_displacement` over the pixels of the objects and `max_displacement`, both lengths in pixels; `folded`, see `warp.folded`.
    """

    styles: Tensor | None
    flow: Tensor | None
    magnitudes: dict[str, Tensor]


class Attack(Protocol):
    """Changes pictures so that a model errs on them, and their labels with them."""

    def __call__(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        """features: of the clean images. Not a gradient goes back into them."""
        ...


# something to be made large, summed over the images of a batch
Objective = Callable[[LabelledBatch], Tensor]


def untouched(batch: LabelledBatch) -> AttackedBatch:
    """The batch as it is, whatever was done to it before."""
    zero = batch.images.new_zeros(len(batch.images))
    names = ("rms", "peak", "mean_displacement", "max_displacement", "folded")
    same = {part.name: getattr(batch, part.name) for part in fields(LabelledBatch) if part.name != "slope"}
    return AttackedBatch(**same, styles=None, flow=None, magnitudes=dict.fromkeys(names, zero))


def repainted(batch: LabelledBatch, images: Tensor, styles: Tensor | None = None) -> AttackedBatch:
    """The batch with other pixels, cut off at 0 and 255."""
    images = images.clamp(0, 255)
    with torch.no_grad():
        change = (images - batch.images) * batch.counted
        values = 3 * batch.counted.sum((1, 2, 3)).clamp_min(1)
        rms = (change.square().sum((1, 2, 3)) / values).sqrt()
        peak = change.abs().amax((1, 2, 3))
    clean = untouched(batch)
    return replace(clean, images=images, styles=styles, magnitudes=clean.magnitudes | {"rms": rms, "peak": peak})
