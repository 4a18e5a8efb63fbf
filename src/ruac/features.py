"""The seam between a Segment Anything model and an uncertainty head.

Letters used everywhere: B images, P prompts (objects) an image, K mask tokens, N clicks an object, C decoder channels, D width of
a mask token, H and W the decoder's output grid, S the side of the square network input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

NO_POINT, BACKGROUND, FOREGROUND, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = -1, 0, 1, 2, 3


@dataclass(frozen=True)
class Frame:
    """Where an image lies in the square network input: scaled, at the top left, padded on the right and below.

    original: (height, width) of the image; inside: (height, width) it takes of the input, both multiples of the grid's stride.
    """

    original: tuple[int, int]
    inside: tuple[int, int]

    @staticmethod
    def fit(height: int, width: int, side: int, stride: int) -> Frame:
        """The frame of an image in a `side` x `side` input. The aspect ratio is kept to within half a stride."""
        scale = side / max(height, width)
        rows, columns = (max(stride, min(side, round(n * scale / stride) * stride)) for n in (height, width))
        return Frame((height, width), (rows, columns))

    def to_input(self, points: Tensor) -> Tensor:
        """Original pixel coordinates (x, y) [..., 2] to input coordinates."""
        return (points + 0.5) * self._scale(points) - 0.5

    def to_original(self, points: Tensor) -> Tensor:
        """Input coordinates (x, y) [..., 2] to original pixel coordinates."""
        return (points + 0.5) / self._scale(points) - 0.5

    def _scale(self, like: Tensor) -> Tensor:
        (height, width), (rows, columns) = self.original, self.inside
        return torch.tensor([columns / width, rows / height], dtype=like.dtype, device=like.device)


@dataclass(frozen=True)
class Prompts:
    """What a person says about P objects in each of B images, in the coordinates of the network input.

    points: [B, P, N, 2] (x, y); labels: [B, P, N], 1 foreground, 0 background, 2 and 3 the corners of a box, -1 nothing, so that
    objects with different numbers of clicks share a batch: no decoder looks at those; mask_logits: [B, P, H, W], an earlier mask
    to refine, or None.
    """

    points: Tensor
    labels: Tensor
    mask_logits: Tensor | None = None

    @staticmethod
    def none(images: int, objects: int, device: torch.device | str = "cpu") -> Prompts:
        """No word about any object yet."""
        return Prompts(
            torch.zeros(images, objects, 0, 2, device=device),
            torch.zeros(images, objects, 0, dtype=torch.long, device=device),
        )

    @staticmethod
    def pad(each: Sequence[Prompts]) -> Prompts:
        """Prompts of single images, [1, P_i, N_i, 2], as one batch [B, max P_i, max N_i, 2]; `present` says which are real.

        Raises ValueError where some come with masks and some without.
        """
        masks = [prompts.mask_logits for prompts in each if prompts.mask_logits is not None]
        if masks and len(masks) < len(each):
            raise ValueError(f"{len(masks)} of {len(each)} prompts come with masks: decode those with and those without apart")
        objects, clicks = (max(prompts.labels.shape[axis] for prompts in each) for axis in (1, 2))

        def grown(prompts: Prompts) -> tuple[Tensor, Tensor]:
            rows, columns = objects - prompts.labels.shape[1], clicks - prompts.labels.shape[2]
            points = F.pad(prompts.points, (0, 0, 0, columns, 0, rows))
            return points, F.pad(prompts.labels, (0, columns, 0, rows), value=NO_POINT)

        points, labels = zip(*(grown(prompts) for prompts in each), strict=True)
        logits = [F.pad(mask, (0, 0, 0, 0, 0, objects - mask.shape[1])) for mask in masks]
        return Prompts(torch.cat(points), torch.cat(labels), torch.cat(logits) if logits else None)

    @property
    def present(self) -> Tensor:
        """[B, P], objects about which a word is said."""
        return (self.labels >= BACKGROUND).any(-1)

    def with_points(self, points: Tensor, labels: Tensor) -> Prompts:
        """These prompts and further points [B, P, M, 2] with labels [B, P, M]."""
        return replace(self, points=torch.cat([self.points, points], 2), labels=torch.cat([self.labels, labels], 2))

    def with_mask(self, mask_logits: Tensor | None) -> Prompts:
        """These prompts with another mask to refine, [B, P, H, W]."""
        return replace(self, mask_logits=mask_logits)


def box_points(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes [B, P, 4] (x0, y0, x1, y1) as the two labelled points a prompt encoder takes: [B, P, 2, 2] and [B, P, 2]."""
    labels = torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], device=boxes.device).expand(*boxes.shape[:2], 2)
    return boxes.unflatten(-1, (2, 2)), labels


@dataclass(frozen=True)
class ImageFeatures:
    """What the image encoder leaves for all later clicks.

    levels: feature maps, finest first, [B, C_i, H_i, W_i]; frames: of each image, or empty where they do not matter;
    position: [1, D, h, w], positional encoding of the coarsest level.
    """

    levels: tuple[Tensor, ...]
    frames: tuple[Frame, ...]
    position: Tensor

    def part(self, images: slice) -> ImageFeatures:
        """Only these images of the batch."""
        return replace(self, levels=tuple(level[images] for level in self.levels), frames=self.frames[images])

    def detach(self) -> ImageFeatures:
        """The same without a gradient."""
        return replace(self, levels=tuple(level.detach() for level in self.levels), position=self.position.detach())

    def expand(self, objects: int) -> tuple[Tensor, ...]:
        """The levels repeated for every object of an image: [B * P, C_i, H_i, W_i]."""
        if objects == 1:
            return self.levels
        # indexing keeps channels-last memory, repeat_interleave does not: a tenth of the decoder's time
        index = torch.arange(len(self.levels[0]), device=self.levels[0].device).repeat_interleave(objects)
        return tuple(level[index] for level in self.levels)


@dataclass(frozen=True)
class DecoderFeatures:
    """All that an uncertainty head may look at.

    pixels: [B, P, C, H, W] upscaled, prompt-conditioned pixel features; weights: [B, P, K, C] hypernetwork outputs, so that a plain
    decoder's logits are weights · pixels; tokens: [B, P, K, D] mask tokens; iou: [B, P, K] predicted IoU;
    object_logit: [B, P] that there is an object at all, None of a family that does not say.
    """

    pixels: Tensor
    weights: Tensor
    tokens: Tensor
    iou: Tensor
    object_logit: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> DecoderFeatures:
        """The same change to every field."""
        fields = {name: None if value is None else change(value) for name, value in vars(self).items()}
        return DecoderFeatures(**fields)  # pyright: ignore[reportArgumentType]  None where it was None

    def select(self, index: Tensor) -> DecoderFeatures:
        """Only the mask tokens of index [B, P, k]: everything with K becomes k."""
        return replace(
            self,
            weights=self.weights.gather(2, index[..., None].expand(*index.shape, self.weights.shape[-1])),
            tokens=self.tokens.gather(2, index[..., None].expand(*index.shape, self.tokens.shape[-1])),
            iou=self.iou.gather(2, index),
        )
