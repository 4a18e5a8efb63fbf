"""The objective of one pass: a clean branch and, once the curriculum is there, an attacked one (RUAC, method section 4).

    total = (1 - w) · clean + w · attacked, each the segmentation loss + λ · alignment + β · divergence

Attackers look at the clean features, from which their gradient is cut off, and reverse it on its way from the attacked branch to them:
what the model descends they climb, in the same backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.attack import Attack, AttackSettings, LabelledBatch, make_attack
from ruac.attack.batch import Slope
from ruac.features import NO_POINT, ImageFeatures, Prompts
from ruac.model import RuacModel
from ruac.training import branch
from ruac.training.annotator import simulate
from ruac.training.config import Stage
from ruac.training.recompute import sparing
from ruac.training.stream import Batch, masks_of
from ruac.training.variant import PLAIN, Judged, Variant

# how many clicks an object of the second half of a step's pictures has had, 2 to 8 (up to 7 corrections), and how often
CLICKS = np.arange(2, 9)
CLICK_SHARE = np.array([0.27, 0.22, 0.17, 0.13, 0.09, 0.07, 0.05])


@dataclass(frozen=True)
class Chance:
    """All that is left to chance in a step, a function of (seed, stage, step) and of the number of a picture."""

    seed: int
    stage: int
    step: int

    def clicks(self) -> int:
        """Of the pictures that are clicked more than once: the same for all."""
        return int(np.random.default_rng((self.seed, self.stage, self.step, 7)).choice(CLICKS, p=CLICK_SHARE))

    def of(self, numbers: Tensor) -> list[np.random.Generator]:
        """A generator for each picture."""
        return [np.random.default_rng((self.seed, self.stage, self.step, 7, 1 + number)) for number in numbers.tolist()]

    def seed_of(self, numbers: Tensor) -> int:
        """For what is drawn for all pictures of a pass at once."""
        drawn = np.random.default_rng((self.seed, self.stage, self.step, 8, *numbers.tolist()))
        return int(drawn.integers(2**31))


@dataclass(frozen=True)
class Part:
    """Pictures of a batch whose objects have been clicked equally often; name: ends the names of what is logged of them."""

    name: str
    pictures: slice
    prompts: Prompts


@dataclass(frozen=True)
class Asked(LabelledBatch):
    """A labelled batch and how it falls into parts; rngs: one a picture; done: share of the stage that has passed."""

    parts: tuple[Part, ...]
    rngs: list[np.random.Generator]
    done: float


@dataclass(frozen=True)
class Pending:
    """A batch whose clean branch is done, to be attacked; features: of its clean pictures, without their graph.

    The backward pass of the clean branch leaves the slope of its loss in `asked.images.grad` and `asked.masks.grad`.
    """

    numbers: Tensor
    asked: Asked
    features: ImageFeatures


@dataclass(frozen=True)
class Outcome:
    """loss: to be descended, weighted as its branch counts; figures: to be logged, by name; pending: what is left to do, or None."""

    loss: Tensor
    figures: dict[str, Tensor]
    pending: Pending | None


class Objective(nn.Module):
    """The model and its attackers as one module, so that their gradients are averaged over processes together.

    attack: a submodule where the attack learns. All random numbers come from `Chance`.
    """

    def __init__(self, model: RuacModel, stage: Stage, seed: int, variant: Variant = PLAIN, precision: str = "no"):
        super().__init__()
        self.model, self.stage, self.variant, self.precision = model, stage, variant, precision
        self.generator = torch.Generator().manual_seed(seed)
        self.attack: Attack | None = None
        if stage.attack is not None:
            torch.manual_seed(seed)
            settings = AttackSettings(
                channels=model.sam.get_image_wide_positional_embeddings().shape[1],
                generator=self.generator,
                style_epsilon=stage.attack.style_epsilon,
                deformation_epsilon=stage.attack.deformation_epsilon,
                rms=stage.attack.rms,
                objective=self._to_climb,
            )
            self.attack = make_attack(stage.attack.kind, settings)

    def forward(self, work: Batch | Pending, chance: Chance, done: float) -> Outcome:
        """One branch: the clean one of a batch or, after its backward pass, the attacked one that it has left to do.

        One after the other because the graph of one is gone before the other's is built. done: share of the stage that has passed.
        """
        self.model.train()
        seed = chance.seed_of(work.numbers) + isinstance(work, Pending)
        torch.manual_seed(seed)  # of dropout
        self.generator.manual_seed(seed)
        return self._attacked(work) if isinstance(work, Pending) else self._clean(work, chance, done)

    def _clean(self, batch: Batch, chance: Chance, done: float) -> Outcome:
        attacking = self.stage.attack_at(done)
        truth, valid = masks_of(batch)
        images = batch.images.float()
        if attacking is not None and attacking.slope and isinstance(self.attack, nn.Module):
            images, truth = images.requires_grad_(), truth.requires_grad_()
        features = self._encoded(images)
        rngs = chance.of(batch.numbers)
        parts = self._simulated(batch, features, truth, valid, chance.clicks(), rngs)
        present = torch.ones(truth.shape[:2], dtype=torch.bool, device=truth.device)
        asked = Asked(images, truth, 1 - valid, _joined(parts), present, parts, rngs, done)
        loss, figures = self._branch(asked, features, attacked=False)
        if attacking is None:
            return Outcome(loss.mean(), figures, None)
        return Outcome((1 - attacking.weight) * loss.mean(), figures, Pending(batch.numbers, asked, features.detach()))

    def _attacked(self, pending: Pending) -> Outcome:
        attacking = self.stage.attack
        if attacking is None or self.attack is None:
            raise ValueError("nothing attacks in this stage")
        asked = pending.asked
        slope = None if asked.images.grad is None or asked.masks.grad is None else Slope(asked.images.grad, asked.masks.grad)
        asked = replace(asked, images=asked.images.detach(), masks=asked.masks.detach(), slope=slope)
        changed = self.attack(asked, pending.features)
        same = {field.name: getattr(changed, field.name) for field in fields(LabelledBatch)}
        loss, figures = self._answered(replace(asked, **same))
        return Outcome(attacking.weight * loss.mean(), {f"attacked_{name}": value for name, value in figures.items()}, None)

    def _simulated(
        self, batch: Batch, features: ImageFeatures, truth: Tensor, valid: Tensor, clicks: int, rngs: list[np.random.Generator]
    ) -> tuple[Part, ...]:
        """The first half of a step's pictures clicked once, the rest `clicks` times."""
        once = int((batch.numbers < max(1, self.stage.images // 2)).sum())
        truth, valid = _halved(truth, valid)
        found = []
        for name, pictures, number in (("1", slice(0, once), 1), (">1", slice(once, len(truth)), clicks)):
            if pictures.start < pictures.stop:
                with self._autocast():
                    some = features.part(pictures)
                    prompts = simulate(self.model, some, truth[pictures], valid[pictures], number, rngs[pictures])
                found.append(Part(name, pictures, prompts))
        return tuple(found)

    def _answered(self, asked: Asked) -> tuple[Tensor, dict[str, Tensor]]:
        """The attacked branch from its pictures on, see `_branch`."""
        return self._branch(asked, self._encoded(asked.images), attacked=True)

    def _encoded(self, images: Tensor) -> ImageFeatures:
        learns = self.stage.train == "all" or images.requires_grad
        spare = sparing(self.model) if learns and self.stage.recompute else nullcontext()
        with torch.set_grad_enabled(learns), self._autocast(), spare:
            return self.model.encode(images, ())

    def _branch(self, asked: Asked, features: ImageFeatures, attacked: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of every picture, [B], and the means of its terms over each part."""
        truth, valid = _halved(asked.masks, asked.counted)
        learns = self.stage.train != "head" or features.levels[-1].requires_grad
        counts = branch.weights(self.stage, attacked, asked.done)
        totals, figures = [], {}
        for part in asked.parts:
            with torch.set_grad_enabled(learns), self._autocast():
                prompts = _prompts_of(part, asked.prompts)
                decoded = self.model.decode(features.part(part.pictures), prompts)
            judged = Judged(
                self.model, decoded, prompts, truth[part.pictures][:, :, None], valid[part.pictures][:, :, None], self.stage
            )
            terms = branch.losses(judged, counts, self.variant.loss, asked.rngs[part.pictures])
            counted = [counts[name] * values for name, values in terms.items() if counts.get(name)]
            totals.append(torch.stack(counted).sum(0))
            figures |= {f"{name}{part.name}": values.detach().mean() for name, values in terms.items()}
        return torch.cat(totals), figures

    def _to_climb(self, batch: LabelledBatch) -> Tensor:
        """What PGD makes large: the loss of the attacked branch, summed over the pictures."""
        assert isinstance(batch, Asked)
        return self._answered(batch)[0].sum()

    def _autocast(self) -> torch.autocast:
        """Not accelerate's, which would take the losses into half precision as well."""
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def _halved(truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Masks [B, P, S, S] and the pixels that count [B, 1, S, S] at half the input's resolution, twice the logits': a quarter of the
    work of clicks and losses."""
    return F.avg_pool2d(truth, 2), (F.avg_pool2d(valid, 2) > 0.99).float()


def _joined(parts: Sequence[Part]) -> Prompts:
    """The prompts of all pictures of a batch, to be moved by an attack; an empty mask where there was none."""
    words = max(part.prompts.labels.shape[-1] for part in parts)
    masks = [part.prompts.mask_logits for part in parts]
    shape = next((mask.shape[1:] for mask in masks if mask is not None), None)
    points, labels, logits = [], [], []
    for part, mask in zip(parts, masks, strict=True):
        more = words - part.prompts.labels.shape[-1]
        points.append(F.pad(part.prompts.points, (0, 0, 0, more)))
        labels.append(F.pad(part.prompts.labels, (0, more), value=NO_POINT))
        if shape is not None:
            logits.append(points[-1].new_zeros(len(points[-1]), *shape) if mask is None else mask)
    return Prompts(torch.cat(points), torch.cat(labels), torch.cat(logits) if logits else None)


def _prompts_of(part: Part, joined: Prompts) -> Prompts:
    """The prompts of a part out of `_joined`, as many words and with a mask only where it had one."""
    words = part.prompts.labels.shape[-1]
    mask = None if part.prompts.mask_logits is None or joined.mask_logits is None else joined.mask_logits[part.pictures]
    return Prompts(joined.points[part.pictures, :, :words], joined.labels[part.pictures, :, :words], mask)
