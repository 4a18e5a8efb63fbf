"""What the frozen decoder makes of training pictures: the features and labels that every method is fitted on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ruac.data.folder import FolderSet
from ruac.data.scenes import SceneConfig
from ruac.features import DecoderFeatures
from ruac.model import RuacModel, chosen_token
from ruac.training.annotator import simulate
from ruac.training.config import Stage
from ruac.training.objective import Chance
from ruac.training.sources import TrainingPool
from ruac.training.start import stretches
from ruac.training.stream import SceneStream, batches, masks_of

VALIDATION_SHARE = 10  # one step of fitting in so many is made up for on held-out pictures, to choose what has no gradient


@dataclass(frozen=True)
class Lessons:
    """What a method is fitted on.

    stage: its pictures, objects, steps and rates; the pictures are of the model's own input size, whatever the stage's; scenes: how
    they are made; seed: what all draws depend on; workers: processes that make pictures.
    """

    stage: Stage
    scenes: SceneConfig = field(default_factory=SceneConfig)
    seed: int = 0
    workers: int = 0

    def brief(self) -> Lessons:
        """As many as it takes to choose a number on held-out pictures."""
        return replace(self, stage=replace(self.stage, steps=max(1, self.stage.steps // VALIDATION_SHARE)))


@dataclass(frozen=True)
class Lesson:
    """Objects that were clicked equally often, and the masks that answered.

    features: of the returned mask tokens alone, K = 1, in full precision; target: [B, P, 1, H, W], share of foreground; valid:
    [B, 1, 1, H, W], 1 where pixels count; both on the decoder's grid.
    """

    features: DecoderFeatures
    target: Tensor
    valid: Tensor


def require_held_out(sets: Sequence[FolderSet]) -> None:
    """Raises ValueError where no picture is held out to choose a number on."""
    pictures = [sample for part in sets for sample in part.samples]
    if not any(sample.held_out for sample in pictures):
        raise ValueError(f"--data: none of {len(pictures)} pictures is held out (one in twenty is, by its name); give more")


def stream(model: RuacModel, sets: Sequence[FolderSet], lessons: Lessons, held_out: bool = False) -> Iterator[Lesson]:
    """Two lessons a step: half of the pictures clicked once, the other half as often as in training. No gradient.

    held_out: of the validation part of the sets. Raises ValueError where there is nothing to draw from.
    """
    key = (lessons.seed, int(held_out))
    stage = replace(lessons.stage, image_size=model.side, accumulation=1)
    pool = TrainingPool(sets, lessons.scenes.weights, held_out)
    pictures = SceneStream(pool, lessons.scenes, stage, key, stretches(model))
    console, which = Console(stderr=True), "held-out" if held_out else "training"
    shown = track(
        batches(pictures, 0, lessons.workers),
        f"{which} pictures",
        stage.steps,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for step, batch in enumerate(shown):
        chance, half = Chance(*key, step), max(1, stage.images // 2)
        rngs = chance.of(batch.numbers)
        batch = batch.to(model.device)
        (truth, valid), images = masks_of(batch), batch.images
        for part, clicks in ((slice(0, half), 1), (slice(half, None), chance.clicks())):
            if len(images[part]):
                yield _lesson(model, images[part], truth[part], valid[part], clicks, rngs[part])


@torch.no_grad()
def _lesson(
    model: RuacModel, images: Tensor, truth: Tensor, valid: Tensor, clicks: int, rngs: Sequence[np.random.Generator]
) -> Lesson:
    """images: [B, 3, S, S]; truth: [B, P, S, S], of the prompted objects; valid: [B, 1, S, S]."""
    features = model.encode(images, ())
    # at the resolution at which the training loop simulates its clicks
    prompts = simulate(model, features, F.avg_pool2d(truth, 2), (F.avg_pool2d(valid, 2) > 0.99).float(), clicks, rngs)
    decoded = model.decode(features, prompts)
    decoded = decoded.select(chosen_token(decoded, prompts, model.stability)).map(lambda value: value.float())
    target, share = (F.adaptive_avg_pool2d(maps, (model.grid, model.grid)) for maps in (truth, valid))
    return Lesson(decoded, target[:, :, None], (share > 0.99).float()[:, None])
