"""Training: pictures in, a model folder out. `ruac train --config configs/nano.yaml`.

One flat loop. Every picture, click and choice is a function of (seed, stage, step), so a run that was killed goes on from its last
checkpoint exactly as if nothing had happened.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ruac.data.folder import FolderSet, object_ids
from ruac.data.prompts import first_click, jittered_box, next_click
from ruac.data.scenes import MIN_PIXELS, Pool, Scene, SceneConfig, compose
from ruac.distribution import MaskDistribution
from ruac.families.nano import NanoConfig, NanoModel
from ruac.features import BACKGROUND, FOREGROUND, NO_POINT, DecoderFeatures, ImageFeatures, Prompts, box_points
from ruac.losses import best_of_many, likelihood
from ruac.model import RuacConfig, RuacModel, chosen_token, load

# how many clicks an object of the second half of a batch has had, 2 to 8 (up to 7 corrections), and how often
CLICKS = np.arange(2, 9)
CLICK_SHARE = np.array([0.27, 0.22, 0.17, 0.13, 0.09, 0.07, 0.05])


@dataclass(frozen=True)
class Stage:
    """One part of a training run.

    steps: optimiser steps; image_size: side of the training pictures in pixels; images: pictures a step; objects: prompted objects a
    picture; rate: peak learning rate; encoder_rate: that of the image encoder; train: all weights on the segmentation losses, or
    the head's concentrations alone on the likelihood; warmup: steps of linear warm-up before the cosine to a twentieth.
    """

    steps: int
    image_size: int = 256
    images: int = 8
    objects: int = 3
    rate: float = 1e-3
    encoder_rate: float = 3e-4
    train: Literal["all", "head"] = "all"
    warmup: int = 200


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    data: folder of sets, or sets, in the folder format; out: where checkpoints, logs and the model go; stages: run in this order;
    start: a model to go on from, or none for nano on ImageNet weights; image_size: input side of the model that is written.
    """

    data: list[Path]
    out: Path
    stages: list[Stage]
    start: str | None = None
    image_size: int = 512
    scenes: SceneConfig = field(default_factory=SceneConfig)
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    checkpoint_minutes: float = 3.0
    workers: int = 1


@dataclass(frozen=True)
class Batch:
    """images: [B, 3, S, S] uint8; ids: [B, S, S] uint8; chosen: [B, P] the ids of the prompted objects."""

    images: Tensor
    ids: Tensor
    chosen: Tensor


class SceneStream(Dataset[Scene]):
    """The scenes of one stage: item i is a function of (seed, stage, i)."""

    def __init__(self, pool: Pool, config: SceneConfig, stage: Stage, key: tuple[int, int]):
        self.pool, self.config, self.stage, self.key = pool, config, stage, key

    def __len__(self) -> int:
        return self.stage.steps * self.stage.images

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        cv2.setNumThreads(0)
        for attempt in range(100):
            seed = (*self.key, index, attempt)
            scene = compose(self.pool, self.config, self.stage.image_size, seed)
            ids = [i for i in object_ids(scene.ids) if (scene.ids == i).sum() >= MIN_PIXELS]
            if ids:
                rng = np.random.default_rng((*seed, 1))
                chosen = rng.choice(ids, self.stage.objects, replace=len(ids) < self.stage.objects)
                image = torch.from_numpy(scene.image).permute(2, 0, 1)
                return image, torch.from_numpy(scene.ids), torch.from_numpy(chosen)
        raise ValueError("no object in 100 training pictures in a row: the masks are empty or the objects too small")


def train(config: TrainConfig) -> Path:
    """Train a model; run the same command again to go on after an interruption. Returns the folder of the model.

    Example: ruac train --config configs/nano.yaml
    """
    # moments of tiny gradients and the tails of the click disks are denormal numbers, which cost these processors half their speed
    torch.set_flush_denormal(True)
    accelerator = Accelerator()
    sets = open_sets(config.data)
    pool = Pool(sets, config.scenes.weights)
    config.out.mkdir(parents=True, exist_ok=True)
    model = _start_model(config)
    averages = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = _load_checkpoint(config, model, averages)
    for number, stage in enumerate(config.stages):
        if number < state.stage:
            continue
        model = _resized(model, stage.image_size)
        optimizer = torch.optim.AdamW(_groups(model, stage, config.weight_decay), betas=(0.9, 0.98), foreach=True)
        if state.optimizer:
            _restore_optimizer(optimizer, model, state.optimizer)
        first = state.step
        stream = SceneStream(pool, config.scenes, stage, (config.seed, number))
        model, optimizer = accelerator.prepare(model, optimizer)
        batches = accelerator.prepare(_loader(stream, stage, first, config.workers))
        with _progress() as progress, _Log(config.out / "log.csv", number, first) as log:
            task = progress.add_task(f"stage {number + 1}/{len(config.stages)}", total=stage.steps, completed=first, note="")
            saved = time.monotonic()
            for step, (images, ids, chosen) in enumerate(batches, start=first):
                rng = np.random.default_rng((config.seed, number, step, 7))
                figures = _step(model, Batch(images, ids, chosen), stage, rng, accelerator)
                norm = accelerator.clip_grad_norm_(model.parameters(), config.clip)
                if not torch.isfinite(torch.as_tensor(norm)):
                    raise FloatingPointError(
                        f"the gradient of step {step} of stage {number + 1} is not finite: lower its learning rate"
                    )
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * rate_factor(step, stage)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                _average(averages, model, min(config.ema, (step + 1) / (step + 10)) if number == 0 else config.ema)
                log.add(number, step, figures)
                progress.update(task, advance=1, note=" ".join(f"{k} {v:.3f}" for k, v in figures.items()))
                if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                    _save_checkpoint(config, model, averages, optimizer, _Progress(number, step + 1))
                    saved = time.monotonic()
        state = _Progress(number + 1, 0)
        _save_checkpoint(config, model, averages, None, state)
    return _write_model(config, model, averages)


def open_sets(paths: list[Path]) -> list[FolderSet]:
    """Every path is a set, or a folder of sets. Raises FileNotFoundError or ValueError naming what is wrong."""
    sets = []
    for path in paths:
        inner = [p for p in sorted(path.iterdir()) if (p / "images").is_dir()] if path.is_dir() else []
        sets += [FolderSet.open(p) for p in (inner if inner and not (path / "images").is_dir() else [path])]
    return sets


def rate_factor(step: int, stage: Stage) -> float:
    """Linear warm-up, then a cosine from 1 to 1/20."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * min(1.0, done)))


def _step(model: RuacModel, batch: Batch, stage: Stage, rng: np.random.Generator, accelerator: Accelerator) -> dict[str, float]:
    """Forward and backward of one batch. Half the pictures are clicked once, the other half two to eight times."""
    model.train()
    truth = (batch.ids[:, None] == batch.chosen[..., None, None]).float()  # (B, P, S, S)
    valid = (batch.ids != 255).float()[:, None]  # (B, 1, S, S)
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
        some = ImageFeatures(tuple(level[part] for level in features.levels), ())
        prompts = simulate(model, some, truth[part], valid[part], clicks, rng)
        with torch.set_grad_enabled(not frozen_sam):
            decoded = model.decode(some, prompts)
        if frozen_sam:
            decoded = decoded.select(chosen_token(decoded, prompts))
        distribution = model(decoded)
        target, weight = truth[part][:, :, None], valid[part][:, :, None]
        if frozen_sam:
            part_loss = likelihood(_upsampled(distribution, target).scaled_mean(), target, weight)
            figures[f"nll{name}"] = part_loss.item()
        else:
            mean = F.interpolate(distribution.mean.flatten(0, 1), size=target.shape[-2:], mode="bilinear").unflatten(
                0, target.shape[:2]
            )
            part_loss, iou = best_of_many(mean, decoded.iou, target, weight)
            figures[f"loss{name}"] = part_loss.item()
            figures[f"iou{name}"] = iou.gather(2, chosen_token(decoded, prompts)).mean().item()
        loss = loss + 0.5 * part_loss
    accelerator.backward(loss)
    return figures


def simulate(
    model: RuacModel, features: ImageFeatures, truth: Tensor, valid: Tensor, clicks: int, rng: np.random.Generator | None
) -> Prompts:
    """What an annotator has said after `clicks` clicks, each correcting the model's answer to those before. No gradient.

    truth: [B, P, h, w] and valid: [B, 1, h, w] at any resolution. Without an rng every click is the most interior one.
    """
    targets = (truth > 0.5).numpy()
    counted = (valid > 0).numpy()[:, 0]
    images, objects, side = truth.shape[0], truth.shape[1], truth.shape[-1]
    scale = model.side / side
    prompts = _first_prompts(targets, scale, rng)
    detached = ImageFeatures(tuple(level.detach() for level in features.levels), ())
    for _ in range(clicks - 1):
        with torch.no_grad():
            decoded = model.decode(detached, prompts)
            mean = model(decoded.select(chosen_token(decoded, prompts))).mean[:, :, 0]
            found = (F.interpolate(mean, size=(side, side), mode="bilinear") > 0).numpy()
        points, labels = np.zeros((images, objects, 1, 2), np.float32), np.full((images, objects, 1), NO_POINT)
        for b, p in np.ndindex(images, objects):
            inside = rng if rng is not None and rng.random() < 0.4 else None
            click = next_click(found[b, p], targets[b, p], counted[b], inside)
            if click is not None:
                points[b, p, 0], labels[b, p, 0] = click[:2], click[2]
        prompts = prompts.with_points(_to_input(points, scale), torch.from_numpy(labels)).with_mask(mean)
    return prompts


def _first_prompts(targets: NDArray[np.bool_], scale: float, rng: np.random.Generator | None) -> Prompts:
    """A click on every object or, for one object in seven, a box; one in six gets a click beside the object as well."""
    images, objects = targets.shape[:2]
    points = np.zeros((images, objects, 2, 2), np.float32)
    labels = np.full((images, objects, 2), NO_POINT)
    for b, p in np.ndindex(images, objects):
        mask = targets[b, p]
        if not mask.any():
            continue
        kind = 1.0 if rng is None else rng.random()
        if rng is not None and kind < 0.15:
            box = np.array(jittered_box(mask, rng), np.float32).reshape(2, 2)
            points[b, p], labels[b, p] = box, (2, 3)
            continue
        points[b, p, 0] = first_click(mask, rng if rng is not None and rng.random() < 0.5 else None)
        labels[b, p, 0] = FOREGROUND
        if rng is not None and kind > 0.83:
            near = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool) & ~mask
            if near.any():
                points[b, p, 1], labels[b, p, 1] = first_click(near, rng), BACKGROUND
    return Prompts(_to_input(points, scale), torch.from_numpy(labels))


def _to_input(points: NDArray[np.float32], scale: float) -> Tensor:
    return torch.from_numpy((points + 0.5) * scale - 0.5).float()


def _upsampled(distribution: MaskDistribution, target: Tensor) -> MaskDistribution:
    def up(maps: Tensor) -> Tensor:
        return F.interpolate(maps.flatten(0, 1), size=target.shape[-2:], mode="bilinear").unflatten(0, maps.shape[:2])

    return MaskDistribution(up(distribution.mean), up(distribution.variance))


def _start_model(config: TrainConfig) -> RuacModel:
    if config.start is not None:
        return load(config.start)
    torch.manual_seed(config.seed)
    model = RuacModel(RuacConfig(sam=NanoConfig.of_size(config.image_size).to_dict(), head="exact"))
    model.sam.vision_encoder.backbone.load_imagenet()
    return model.to(memory_format=torch.channels_last)


def _resized(model: RuacModel, image_size: int) -> RuacModel:
    """The same weights for another input size: nothing in nano depends on it but the grid."""
    if model.side == image_size:
        return model
    sam = NanoConfig.of_size(image_size, model.sam.token_width).to_dict()
    other = RuacModel(RuacConfig(sam=sam, head=model.config.head))
    other.load_state_dict(model.state_dict())
    return other.to(memory_format=torch.channels_last)


def _groups(model: RuacModel, stage: Stage, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups with their rates; what the stage does not train gets no gradient."""
    concentrations = [p for n, p in model.head.named_parameters() if "concentration" in n]
    model.requires_grad_(stage.train == "all")
    if stage.train == "head":
        for p in concentrations:
            p.requires_grad_(True)
        return [{"params": concentrations, "peak": stage.rate, "weight_decay": 0.0}]
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
    order: Iterator[int] | range = range(first * stage.images, len(stream))
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
    live = [(averages[n], p.detach()) for n, p in model.named_parameters() if p.requires_grad]
    torch._foreach_lerp_([a for a, _ in live], [p for _, p in live], 1 - decay)


@dataclass(frozen=True)
class _Progress:
    """Where a run stands: the stage and step that come next, and the optimiser's moments by name."""

    stage: int
    step: int
    optimizer: dict[str, Tensor] = field(default_factory=dict)


def _save_checkpoint(
    config: TrainConfig, model: RuacModel, averages: dict[str, Tensor], optimizer: torch.optim.Optimizer | None, at: _Progress
) -> None:
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v.contiguous() for k, v in averages.items()}
    if optimizer is not None:
        names = {id(p): n for n, p in model.named_parameters()}
        for p, moments in optimizer.state.items():
            tensors |= {f"optimizer.{key}/{names[id(p)]}": value.contiguous() for key, value in moments.items()}
    path = config.out / "checkpoint.safetensors"
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, {"stage": str(at.stage), "step": str(at.step), "stages": _fingerprint(config)})
    os.replace(partial, path)


def _load_checkpoint(config: TrainConfig, model: RuacModel, averages: dict[str, Tensor]) -> _Progress:
    """Raises ValueError when the checkpoint in `out` is of a run with other stages."""
    path = config.out / "checkpoint.safetensors"
    if not path.is_file():
        return _Progress(0, 0)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        meta = file.metadata()
    if meta["stages"] != _fingerprint(config):
        raise ValueError(f"{path}: belongs to a run with other settings; choose another --config.out or remove it")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
    for name, tensor in load_file(path).items():
        kind, _, rest = name.partition(".")
        parts[kind][rest] = tensor
    model.load_state_dict(parts["model"])
    averages.update(parts["ema"])
    return _Progress(int(meta["stage"]), int(meta["step"]), parts["optimizer"])


def _fingerprint(config: TrainConfig) -> str:
    kept = {k: v for k, v in asdict(config).items() if k in ("stages", "seed", "scenes", "image_size", "start")}
    return json.dumps(kept, sort_keys=True)


def _restore_optimizer(optimizer: torch.optim.Optimizer, model: RuacModel, saved: dict[str, Tensor]) -> None:
    by_name = dict(model.named_parameters())
    for name, tensor in saved.items():
        key, _, parameter = name.partition("/")
        optimizer.state[by_name[parameter]][key] = tensor


def _write_model(config: TrainConfig, model: RuacModel, averages: dict[str, Tensor]) -> Path:
    """The averaged weights in half precision, as a model folder."""
    final = _resized(model, config.image_size)
    final.load_state_dict({**final.state_dict(), **averages})
    folder = config.out / "model"
    final.half().save_pretrained(folder)
    return folder


class _Log:
    """Figures of every step, appended to a CSV file: stage, step, time in seconds, figures as JSON.

    Rows of steps that a killed run had made after its last checkpoint are dropped: they are made again.
    """

    def __init__(self, path: Path, stage: int, step: int):
        if path.is_file():
            with path.open(newline="") as file:
                kept = [row for row in csv.reader(file) if len(row) == 4 and (int(row[0]), int(row[1])) < (stage, step)]
            with path.open("w", newline="") as file:
                csv.writer(file).writerows(kept)
        self.file = path.open("a", newline="", buffering=1)  # a line a step, readable while the run goes on
        self.writer = csv.writer(self.file)

    def add(self, stage: int, step: int, figures: dict[str, float]) -> None:
        self.writer.writerow([stage, step, f"{time.time():.1f}", json.dumps({k: round(v, 5) for k, v in figures.items()})])

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
