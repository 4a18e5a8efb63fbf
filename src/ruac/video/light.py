"""Tracking without a trained memory, for every model that segments single images, such as nano.

The labels of a few remembered frames go to the new one along the likeness of the encoder's features. What arrives and the mask of the
frame before, half each, are the earlier mask that the mask decoder is given, and a click in their middle; it draws the outline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.families.nano import NanoModel
from ruac.features import FOREGROUND, Frame, ImageFeatures, Prompts
from ruac.model import RuacModel
from ruac.predictor import Prediction, Prompt, join, parse
from ruac.quality.expected import Quality
from ruac.regions import Mask, interior_point
from ruac.video.affinity import Remembered, propagate, unit_features
from ruac.video.frames import Frames
from ruac.video.tracker import GIVEN_LOGIT, check_mask, given, pack, unpack
from ruac.video.trust import Signs, jump, support

MEMORY = 4  # frames before the current one that are remembered
ANCHORS = 4  # frames with prompts, the nearest ones
FAINTEST, BOLDEST = 1e-3, 1 - 1e-3  # labels, before they become logits


class LightTracker:
    """image: any RuacModel; encoded: of frames of the same video, where there are any, which is added to; features: how many frames
    stay encoded, for who goes over the same frames again."""

    def __init__(self, image: RuacModel, encoded: dict[int, ImageFeatures], features: int = 1):
        self.image, self.quality = image, Quality.of(image.config.quality)
        self._encoded, self._kept = encoded, features
        # by frame: its features and, by object, its probability on their grid, [h, w], and on the decoder's, [H, W]
        self._features: dict[int, Tensor] = {}
        self._labels: dict[int, dict[int, Tensor]] = {}
        self._masks: dict[int, dict[int, Tensor]] = {}
        self._told: dict[int, dict[int, Prediction]] = {}
        self._objects: list[int] = []
        # by frame and object, the largest jump of the mask since the prompt
        self._jumps: dict[int, dict[int, float]] = {}
        self.signs: dict[int, Signs] = {}

    @property
    def objects(self) -> tuple[int, ...]:
        return tuple(self._objects)

    @torch.inference_mode()
    def tell(self, frames: Frames, frame: int, number: int, said: Prompt | Mask) -> dict[int, Prediction]:
        image = self._encode(frames, frame)
        if isinstance(said, np.ndarray):
            check_mask(said, frames.size)
            answer = given(
                (2 * self._on_grid(said, image.frames[0]) - 1) * GIVEN_LOGIT, image.frames[0], self.image.side, self.quality
            )
        else:
            answer = self._decode(image, join([parse(said, image.frames[0], self.image.grid)], self.image.device))[0]
        if number not in self._objects:
            self._objects.append(number)
        self._told.setdefault(frame, {})[number] = answer
        self._jumps.setdefault(frame, {})[number] = 0.0
        self._remember(frame, image, {number: answer})
        others = [i for i in self._objects if i != number]
        return self._on_frame(image, frame, False, others) | {number: answer}

    @torch.inference_mode()
    def step(self, frames: Frames, frame: int, reverse: bool) -> dict[int, Prediction]:
        return self._on_frame(self._encode(frames, frame), frame, reverse, self._objects)

    def _on_frame(self, image: ImageFeatures, frame: int, reverse: bool, numbers: Sequence[int]) -> dict[int, Prediction]:
        answers = {number: self._told[frame][number] for number in numbers if number in self._told.get(frame, {})}
        wanted = [number for number in numbers if number not in answers]
        self.signs = {}
        if wanted:
            now = unit_features(image.levels[-1])
            arriving = torch.stack([self._arriving(now, frame, number, reverse) for number in wanted])
            answers |= dict(zip(wanted, self._draw(image, arriving), strict=True))
            self._remember(frame, image, {number: answers[number] for number in wanted})
            self.signs = {number: self._judge(now, frame, number, reverse) for number in wanted}
        self._forget(frame)
        return answers

    def _anchors(self, frame: int, number: int) -> list[int]:
        """The frames with prompts about an object that are nearest to a frame."""
        return sorted((n for n, told in self._told.items() if number in told), key=lambda n: abs(n - frame))[:ANCHORS]

    def _propagate(self, now: Tensor, number: int, anchors: Sequence[int], recent: Sequence[int]) -> Tensor:
        """[1, h, w], what the labels of these frames become on this one."""
        memory = [Remembered(self._features[n], n in anchors) for n in (*anchors, *recent)]
        return propagate(now, memory, [self._labels[n][number][None] for n in (*anchors, *recent)])

    def _judge(self, now: Tensor, frame: int, number: int, reverse: bool) -> Signs:
        recognised = self._propagate(now, number, self._anchors(frame, number), [])[0]
        last, largest = frame + 1 if reverse else frame - 1, 0.0
        if number in self._masks.get(last, {}):
            largest = max(self._jumps[last][number], jump(self._masks[last][number], self._masks[frame][number]))
        self._jumps.setdefault(frame, {})[number] = largest
        return Signs(support(self._labels[frame][number], recognised), largest)

    def _arriving(self, now: Tensor, frame: int, number: int, reverse: bool) -> Tensor:
        """[H, W], where the object is likely to be, as the memory sees it."""
        anchors = self._anchors(frame, number)
        before = range(frame + 1, frame + MEMORY + 1) if reverse else range(frame - MEMORY, frame)
        recent = [n for n in before if n not in anchors and number in self._labels.get(n, {})]
        labels = self._propagate(now, number, anchors, recent)
        alike = F.interpolate(labels[None], size=(self.image.grid,) * 2, mode="bilinear")[0, 0]
        last = self._masks.get(frame + 1 if reverse else frame - 1, {}).get(number)
        return alike if last is None else (alike + last) / 2

    def _draw(self, image: ImageFeatures, arriving: Tensor) -> list[Prediction]:
        """The decoder's masks of what arrives, [P, H, W]."""
        grid = self.image.grid
        rows, columns = (n * grid // self.image.side for n in image.frames[0].inside)
        inside = arriving[:, :rows, :columns].cpu()
        # where nothing is more likely than not, what is likeliest
        places = [interior_point((seen >= seen.max().clamp_max(0.5)).numpy()) for seen in inside]
        stride = self.image.side // grid
        points = torch.tensor(places, device=arriving.device, dtype=torch.float32)[None, :, None] * stride + (stride - 1) / 2
        words = torch.full(points.shape[:3], FOREGROUND, device=arriving.device)
        return self._decode(image, Prompts(points, words, torch.logit(arriving.clamp(FAINTEST, BOLDEST))[None]))

    def _decode(self, image: ImageFeatures, prompts: Prompts) -> list[Prediction]:
        # an earlier mask says which of the candidates is meant
        answer = self.image.answer(image, prompts, False, None if prompts.mask_logits is None else 0)
        # nano has never seen a picture without the object that it was asked for: its object score means nothing
        scores = None if isinstance(self.image.sam, NanoModel) else answer.object_score
        return [
            Prediction(
                answer.distribution.map(lambda values, i=i: values[i]),
                image.frames[0],
                self.image.side,
                iou.numpy(),
                None if scores is None else float(scores[i]),
                quality=self.quality,
            )
            for i, iou in enumerate(answer.iou)
        ]

    def _encode(self, frames: Frames, frame: int) -> ImageFeatures:
        if frame not in self._encoded:
            while len(self._encoded) >= self._kept:
                del self._encoded[next(iter(self._encoded))]
            pixels, where = self.image.prepare(torch.from_numpy(frames[frame]).permute(2, 0, 1))
            self._encoded[frame] = self.image.encode(pixels[None].to(self.image.device), (where,))
        return self._encoded[frame]

    def _on_grid(self, mask: Mask, where: Frame) -> Tensor:
        """Share of the object in each cell of the decoder's grid, [H, W], padding empty."""
        rows, columns = (n * self.image.grid // self.image.side for n in where.inside)
        whole = torch.from_numpy(mask).float()[None, None]
        inside = F.interpolate(whole, size=(rows, columns), mode="bilinear", antialias=True)[0, 0]
        return F.pad(inside, (0, self.image.grid - columns, 0, self.image.grid - rows))

    def _remember(self, frame: int, image: ImageFeatures, answers: Mapping[int, Prediction]) -> None:
        level = image.levels[-1]
        self._features[frame] = unit_features(level)
        for number, answer in answers.items():
            probability = answer.distribution.probability().to(level.device)
            self._masks.setdefault(frame, {})[number] = probability[0]
            self._labels.setdefault(frame, {})[number] = F.adaptive_avg_pool2d(probability, (level.shape[-2], level.shape[-1]))[0]

    def _forget(self, frame: int) -> None:
        """All but the frames that one of the next steps, forward or back, looks at."""
        for far in [n for n in self._features if n not in self._told and abs(n - frame) > MEMORY]:
            del self._features[far], self._labels[far]
        for far in [n for n in self._masks if n not in self._told and abs(n - frame) > 1]:
            del self._masks[far], self._jumps[far]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"features/{n}": value.contiguous() for n, value in self._features.items()}
        for kind, kept in (("label", self._labels), ("mask", self._masks)):
            tensors |= {f"{kind}/{n}/{i}": value.contiguous() for n, of_frame in kept.items() for i, value in of_frame.items()}
        told = pack({(i, n): v for n, told in self._told.items() for i, v in told.items()})
        jumps = [[n, i, value] for n, of_frame in self._jumps.items() for i, value in of_frame.items()]
        return tensors | told, {"objects": list(self._objects), "jumps": jumps}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self._objects = list(values["objects"])
        for frame, number, value in values["jumps"]:
            self._jumps.setdefault(frame, {})[number] = value
        for key, value in tensors.items():
            kind, *place = key.split("/")
            if kind == "features":
                self._features[int(place[0])] = value.to(self.image.device)
            elif kind in ("label", "mask"):
                kept = self._labels if kind == "label" else self._masks
                kept.setdefault(int(place[0]), {})[int(place[1])] = value.to(self.image.device)
        for (number, frame), answer in unpack(tensors, self.image.side, self.quality).items():
            self._told.setdefault(frame, {})[number] = answer
