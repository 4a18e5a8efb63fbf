"""The training pictures of a stage: each a function of (seed, stage, number), whichever process makes it, and for whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ruac.data.folder import IGNORE, object_ids
from ruac.data.restyle import restyle
from ruac.data.scenes import MIN_PIXELS, Ids, Image, Pool, Scene, SceneConfig, compose, letterbox
from ruac.training.config import Stage


@dataclass(frozen=True)
class Batch:
    """images: [B, 3, S, S] uint8; ids: [B, S, S] uint8; chosen: [B, P] the ids of the prompted objects; numbers: [B], ascending,
    of the pictures among those of their step."""

    images: Tensor
    ids: Tensor
    chosen: Tensor
    numbers: Tensor

    def to(self, device: torch.device) -> Batch:
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


class SceneStream(Dataset[Batch]):
    """The pictures of one stage, one at a time, in a `Batch` without the first axis: item i is a function of (seed, stage, i)."""

    def __init__(self, pool: Pool, config: SceneConfig, stage: Stage, key: tuple[int, int], stretch: bool = False):
        """stretch: whether the model takes photographs stretched to a square, not padded."""
        self.pool, self.config, self.stage, self.key, self.stretch = pool, config, stage, key, stretch

    def __len__(self) -> int:
        return self.stage.steps * self.stage.images

    def __getitem__(self, index: int) -> Batch:
        cv2.setNumThreads(0)
        for attempt in range(100):
            seed = (*self.key, index, attempt)
            scene = self._picture(seed)
            ids = [i for i in object_ids(scene.ids) if (scene.ids == i).sum() >= MIN_PIXELS]
            if ids:
                rng = np.random.default_rng((*seed, 1))
                chosen = torch.from_numpy(rng.choice(ids, self.stage.objects, replace=len(ids) < self.stage.objects))
                image = torch.from_numpy(scene.image).permute(2, 0, 1)
                return Batch(image, torch.from_numpy(scene.ids), chosen, torch.tensor(index % self.stage.images))
        raise ValueError("no object in 100 training pictures in a row: the masks are empty or the objects too small")

    def _picture(self, seed: tuple[int, ...]) -> Scene:
        if self.stage.pictures == "scenes":
            return compose(self.pool, self.config, self.stage.image_size, seed)
        rng = np.random.default_rng(seed)
        scene = (stretched if self.stretch else letterbox)(*self.pool.draw(rng), self.stage.image_size)
        if self.stage.pictures == "untouched" or rng.random() < 0.5:
            return scene
        return Scene(restyle(scene.image, rng), scene.ids)


def stretched(image: Image, ids: Ids, size: int) -> Scene:
    """A picture as SAM 2 and its successors see it at inference: stretched to a square."""
    shrinking = size < max(ids.shape)
    resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    return Scene(
        resized.astype(np.uint8, copy=False),
        cv2.resize(ids, (size, size), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8, copy=False),
    )


def batches(stream: SceneStream, first: int, workers: int, process: int = 0, processes: int = 1) -> Iterator[Batch]:
    """The pictures that a process takes, pass after pass, from the step `first` on.

    The pictures of a step are dealt out in turn, so that a step sees the same ones whatever the number of processes and passes.
    Raises ValueError when they do not divide.
    """
    stage = stream.stage
    hands = processes * stage.accumulation
    if stage.images % hands:
        raise ValueError(
            f"stages.images: {stage.images} pictures a step do not divide among {processes} processes and "
            f"{stage.accumulation} passes; give a multiple of {hands}"
        )
    order = [
        range(step * stage.images + turn * processes + process, (step + 1) * stage.images, hands)
        for step in range(first, stage.steps)
        for turn in range(stage.accumulation)
    ]
    loader = DataLoader(
        stream,
        batch_sampler=order,  # pyright: ignore[reportArgumentType]  a range is as good as a list
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        collate_fn=_stacked,
    )
    return iter(loader)


def _stacked(pictures: list[Batch]) -> Batch:
    return Batch(*(torch.stack([getattr(picture, name) for picture in pictures]) for name in vars(pictures[0])))


def masks_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """The prompted objects [B, P, S, S] and the pixels that count [B, 1, S, S], 0 or 1 each."""
    return (batch.ids[:, None] == batch.chosen[..., None, None]).float(), (batch.ids != IGNORE).float()[:, None]
