"""Training: pictures in, a model folder out. `ruac train --config configs/nano.yaml`.

One flat loop. Every picture, click and choice is a function of (seed, stage, step), so a run that was killed goes on from its last
checkpoint exactly as if nothing had happened.
"""

from __future__ import annotations

import copy
import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ruac.data.folder import IGNORE, FolderSet, find_sets, object_ids
from ruac.data.restyle import restyle
from ruac.data.scenes import MIN_PIXELS, Pool, Scene, SceneConfig, compose, letterbox
from ruac.distribution import grown
from ruac.evaluate.protocol import Protocol, evaluate_image, read
from ruac.families.nano import NanoConfig, NanoModel
from ruac.heads import ExactHead, PlainHead
from ruac.loading import read as read_model
from ruac.losses import best_of_many, error_pairs, harm, likelihood, ranking
from ruac.machine import describe_machine
from ruac.model import RuacConfig, RuacModel, channels_last, chosen_token
from ruac.training.annotator import simulate
from ruac.training.checkpoint import Position, StepLog, load_checkpoint, restore_optimizer, save_checkpoint
from ruac.training.config import Stage, TrainConfig

# how many clicks an object of the second half of a batch has had, 2 to 8 (up to 7 corrections), and how often
CLICKS = np.arange(2, 9)
CLICK_SHARE = np.array([0.27, 0.22, 0.17, 0.13, 0.09, 0.07, 0.05])


@dataclass(frozen=True)
class Batch:
    """images: [B, 3, S, S] uint8; ids: [B, S, S] uint8; chosen: [B, P] the ids of the prompted objects."""

    images: Tensor
    ids: Tensor
    chosen: Tensor


class SceneStream(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The scenes of one stage: item i is a function of (seed, stage, i)."""

    def __init__(self, pool: Pool, config: SceneConfig, stage: Stage, key: tuple[int, int]):
        self.pool, self.config, self.stage, self.key = pool, config, stage, key

    def __len__(self) -> int:
        return self.stage.steps * self.stage.images

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        cv2.setNumThreads(0)
        for attempt in range(100):
            seed = (*self.key, index, attempt)
            scene = self._picture(seed)
            ids = [i for i in object_ids(scene.ids) if (scene.ids == i).sum() >= MIN_PIXELS]
            if ids:
                rng = np.random.default_rng((*seed, 1))
                chosen = rng.choice(ids, self.stage.objects, replace=len(ids) < self.stage.objects)
                image = torch.from_numpy(scene.image).permute(2, 0, 1)
                return image, torch.from_numpy(scene.ids), torch.from_numpy(chosen)
        raise ValueError("no object in 100 training pictures in a row: the masks are empty or the objects too small")

    def _picture(self, seed: tuple[int, ...]) -> Scene:
        if self.stage.pictures == "scenes":
            return compose(self.pool, self.config, self.stage.image_size, seed)
        rng = np.random.default_rng(seed)
        scene = letterbox(*self.pool.draw(rng), self.stage.image_size)
        return scene if rng.random() < 0.5 else Scene(restyle(scene.image, rng), scene.ids)


def train(config: TrainConfig) -> Path:
    """Train a model; run the same command again to go on after an interruption. Returns the folder of the model.

    Example: ruac train --config configs/nano.yaml
    """
    with _denormals_flushed():
        return _train(config)


def _train(config: TrainConfig) -> Path:
    accelerator = Accelerator()
    sets = find_sets(config.data)
    pool = Pool(sets, config.scenes.weights)
    config.out.mkdir(parents=True, exist_ok=True)
    settings = {**asdict(config), "machine": describe_machine()}
    (config.out / "settings.json").write_text(json.dumps(settings, indent=1, default=str) + "\n")
    model = _start_model(config)
    averages = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = load_checkpoint(config, model, averages)
    for number, stage in enumerate(config.stages):
        if number < state.stage:
            continue
        model = resized(model, stage.image_size)
        if stage.train == "head":
            model.config.head_trained = True
        if not state.step:
            model.load_state_dict(averages, strict=False)  # buffers have no average
        optimizer = torch.optim.AdamW(_groups(model, stage, config.weight_decay), betas=(0.9, 0.98), foreach=True)
        if state.optimizer:
            restore_optimizer(optimizer, model, state.optimizer)
        first = state.step
        stream = SceneStream(pool, config.scenes, stage, (config.seed, number))
        model, optimizer = accelerator.prepare(model, optimizer)
        batches = accelerator.prepare(_loader(stream, stage, first, config.workers))
        with _progress() as progress, StepLog(config.out / "log.csv", number, first) as log:
            task = progress.add_task(f"stage {number + 1}/{len(config.stages)}", total=stage.steps, completed=first, note="")
            saved = validated = time.monotonic()
            for step, (images, ids, chosen) in enumerate(batches, start=first):
                rng = np.random.default_rng((config.seed, number, step, 7))
                figures = training_step(model, Batch(images, ids, chosen), stage, rng, accelerator)
                if stage.train == "head":
                    _keep_masks(model)
                norm = accelerator.clip_grad_norm_(model.parameters(), config.clip)
                if not torch.isfinite(torch.as_tensor(norm)):
                    raise FloatingPointError(
                        f"the gradient of step {step} of stage {number + 1} is not finite: lower its learning rate"
                    )
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * rate_factor(step, stage)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                # young averages forget fast, so that a short stage is not outvoted by where it started
                _average(averages, model, min(config.ema, (step + 1) / (step + 10)))
                log.add(number, step, figures)
                progress.update(task, advance=1, note=" ".join(f"{k} {v:.3f}" for k, v in figures.items()))
                if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                    save_checkpoint(config, model, averages, optimizer, Position(number, step + 1))
                    saved = time.monotonic()
                if time.monotonic() - validated > 60 * config.validate_minutes:
                    validate(config, model, averages, sets, Position(number, step + 1))
                    validated = time.monotonic()
        validate(config, model, averages, sets, Position(number, stage.steps))
        state = Position(number + 1, 0)
        save_checkpoint(config, model, averages, None, state)
    return _write_model(config, model, averages)


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Moments of tiny gradients are denormal numbers, which cost some processors half their speed. A setting of the whole process."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def rate_factor(step: int, stage: Stage) -> float:
    """Linear warm-up, then a cosine from 1 to 1/20."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * min(1.0, done)))


def _keep_masks(model: RuacModel) -> None:
    """Let the residual A move along the identity alone: all logits then grow or shrink together, and no mask changes.

    Variance can only take confidence away; where a decoder is not sure enough, it needs this to be right on average.
    """
    gradient = cast(ExactHead, model.head).pixel_residual.weight.grad
    if gradient is not None:
        identity = torch.eye(len(gradient), dtype=gradient.dtype, device=gradient.device)
        gradient.copy_(gradient.diagonal().mean() * identity)


def validate(
    config: TrainConfig, model: RuacModel, averages: Mapping[str, Tensor], sets: Sequence[FolderSet], at: Position
) -> None:
    """IoU after 1, 3 and 5 clicks on held-out pictures, set by set, of the averaged weights; a row each in validation.csv."""
    judged = copy.deepcopy(model).eval()
    judged.load_state_dict(averages, strict=False)
    protocol = Protocol(clicks=(1, 3, 5), max_objects=4)
    with (config.out / "validation.csv").open("a", newline="") as file:
        for part in sets:
            samples = [sample for sample in part.samples if sample.held_out][: config.validation_images]
            results = [evaluate_image(judged, read(sample), protocol) for sample in samples]
            results = [result for result in results if result.objects]
            if results:
                iou = [np.mean([q.iou for r in results for q in r.after[clicks].quality]) for clicks in protocol.clicks]
                csv.writer(file).writerow([at.stage, at.step, part.name, len(results), *(f"{value:.4f}" for value in iou)])


def training_step(
    model: RuacModel, batch: Batch, stage: Stage, rng: np.random.Generator, accelerator: Accelerator
) -> dict[str, float]:
    """Forward and backward of one batch. Half the pictures are clicked once, the other half two to eight times."""
    model.train()
    truth = (batch.ids[:, None] == batch.chosen[..., None, None]).float()  # (B, P, S, S)
    valid = (batch.ids != IGNORE).float()[:, None]  # (B, 1, S, S)
    # clicks and losses at half the input's resolution, twice the logits': a quarter of the work
    truth, valid = (F.avg_pool2d(m, 2) for m in (truth, valid))
    valid = (valid > 0.99).float()
    frozen_sam = stage.train == "head"
    with torch.set_grad_enabled(not frozen_sam):
        features = model.encode(batch.images, ())
    half = max(1, len(batch.images) // 2)
    rounds = 1 if len(batch.images) < 2 else int(rng.choice(CLICKS, p=CLICK_SHARE))
    loss, figures = torch.zeros(()), {}
    for name, part, clicks in (("1", slice(0, half), 1), (">1", slice(half, None), rounds)):
        if not len(batch.images[part]):
            continue
        some = features.part(part)
        prompts = simulate(model, some, truth[part], valid[part], clicks, rng)
        with torch.set_grad_enabled(not frozen_sam):
            decoded = model.decode(some, prompts)
        if frozen_sam:
            decoded = decoded.select(chosen_token(decoded, prompts, model.stability))
        distribution = model(decoded)
        target, weight = truth[part][:, :, None], valid[part][:, :, None]
        size = (target.shape[-2], target.shape[-1])
        if frozen_sam:
            logit, plain = distribution.grown(size).scaled_mean(), grown(PlainHead()(decoded).mean, size)
            part_loss = likelihood(logit, target, weight)
            figures[f"nll{name}"] = part_loss.item()
            order, worse = _error_order(logit, plain, target, weight, torch.Generator().manual_seed(int(rng.integers(2**31))))
            figures[f"rank{name}"], figures[f"harm{name}"] = order.item(), worse.item()
            part_loss = part_loss + stage.ranking * order + stage.harmless * worse
        else:
            mean = grown(distribution.mean, size)
            part_loss, iou = best_of_many(mean, decoded.iou, target, weight, stage.focal)
            figures[f"loss{name}"] = part_loss.item()
            figures[f"iou{name}"] = iou.gather(2, chosen_token(decoded, prompts, model.stability)).mean().item()
        loss = loss + 0.5 * part_loss
    accelerator.backward(loss)
    return figures


def _error_order(
    logit: Tensor, plain: Tensor, target: Tensor, valid: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`ranking` and `harm` within each picture, averaged over those in which some pixels are right and some wrong."""
    each = []
    for i in range(len(logit)):
        here = [maps[i : i + 1] for maps in (logit, plain)]
        pairs = error_pairs(here[0].detach(), target[i : i + 1], valid[i : i + 1], generator)
        if pairs is not None:
            each.append(torch.stack([ranking(here[0], pairs), harm(here[0], here[1], pairs)]))
    mean = torch.stack(each).mean(0) if each else torch.zeros(2)
    return mean[0], mean[1]


def _start_model(config: TrainConfig) -> RuacModel:
    if config.start is not None:
        return channels_last(read_model(config.start))
    torch.manual_seed(config.seed)
    model = RuacModel(RuacConfig(sam=NanoConfig.of_size(config.image_size).to_dict(), head="exact", head_trained=False))
    model.sam.vision_encoder.backbone.load_imagenet()
    return channels_last(model)


def resized(model: RuacModel, image_size: int) -> RuacModel:
    """The same weights for another input size: nothing in nano depends on it but the grid."""
    if model.side == image_size:
        return model
    sam = NanoConfig.of_size(image_size, model.sam.token_width).to_dict()
    other = RuacModel(RuacConfig(sam=sam, head=model.config.head, head_trained=model.config.head_trained))
    other.load_state_dict(model.state_dict())
    return channels_last(other)


def _groups(model: RuacModel, stage: Stage, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups with their rates; what the stage does not train gets no gradient."""
    model.requires_grad_(stage.train == "all")
    if stage.train == "head":
        trained = [p for n, p in model.head.named_parameters() if n != "weight_residual.weight"]
        for p in trained:
            p.requires_grad_(True)
        return [{"params": trained, "peak": stage.rate, "weight_decay": 0.0}]
    # the plain losses say nothing about the spread, and the residual maps would only repeat the decoder's own layers
    model.head.requires_grad_(False)
    sam: NanoModel = model.sam
    sam.vision_encoder.backbone.freeze_early()
    encoder = {id(p) for p in sam.vision_encoder.backbone.parameters()}
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for p in model.parameters():
        if p.requires_grad:
            rate = stage.encoder_rate if id(p) in encoder else stage.rate
            groups.setdefault((rate, weight_decay if p.ndim > 1 else 0.0), []).append(p)
    return [{"params": ps, "peak": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]


def _loader(stream: SceneStream, stage: Stage, first: int, workers: int) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    order = range(first * stage.images, len(stream))
    return DataLoader(
        stream,
        batch_size=stage.images,
        sampler=order,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        drop_last=True,
    )


@torch.no_grad()
def _average(averages: dict[str, Tensor], model: RuacModel, decay: float) -> None:
    """Exponential moving average of the weights, in place."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            averages[name].lerp_(parameter, 1 - decay)


def _write_model(config: TrainConfig, model: RuacModel, averages: dict[str, Tensor]) -> Path:
    """The averaged weights in half precision, as a model folder."""
    final = resized(model, config.image_size)
    final.load_state_dict({**final.state_dict(), **averages})
    folder = config.out / "model"
    final.half().save_pretrained(folder)
    return folder


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
