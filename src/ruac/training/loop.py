"""Training: pictures in, a model folder out. `ruac train --config configs/nano.yaml`.

One flat loop. Every picture, click and choice is a function of (seed, stage, step), so a run that was killed goes on from its last
checkpoint exactly as if nothing had happened, also on another number of processes:

    accelerate launch --num_processes 8 -m ruac train --config configs/sam2.1-bplus-mose.yaml
"""

from __future__ import annotations

import copy
import errno
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import gather_object
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from ruac.data.folder import FolderSet
from ruac.errors import RoomError, WorkError
from ruac.evaluate.protocol import LabelledImage, Protocol, evaluate_image
from ruac.heads import ExactHead
from ruac.machine import describe_machine
from ruac.model import RuacModel
from ruac.training.checkpoint import (
    Position,
    Saved,
    copied,
    kept,
    load_checkpoint,
    remove_leftovers,
    restore_optimizer,
    save_checkpoint,
    state_of,
)
from ruac.training.config import TrainConfig
from ruac.training.groups import attacking_parameters, parameter_groups
from ruac.training.model_folder import write_model
from ruac.training.objective import Chance, Objective, Outcome, Pending
from ruac.training.records import StepLog, write_validation
from ruac.training.sources import TrainingPool, open_sources
from ruac.training.start import resized, start_model, stretches
from ruac.training.stream import Batch, SceneStream, batches
from ruac.training.variant import PLAIN, Variant, Watch
from ruac.writing import only_writer, write_whole


@dataclass(frozen=True)
class Run:
    """What does not change while a run goes on."""

    config: TrainConfig
    variant: Variant
    accelerator: Accelerator
    sets: Sequence[FolderSet]
    pool: TrainingPool
    watch: Watch | None


def train(config: TrainConfig, variant: Variant = PLAIN, watch: Watch | None = None) -> Path:
    """Train a model; run the same command again to go on after an interruption. Returns the folder of the model.

    watch: what it raises ends the run, whose last checkpoint stays.

    On several GPUs: accelerate launch --num_processes 8 -m ruac train --config FILE, or torchrun --nproc_per_node 8 -m ruac train
    --config FILE. The pictures of a step are then divided among the processes, and the result is the same.

    Example: ruac train --config configs/nano.yaml
    """
    # some outputs have no loss, and attackers come in late
    handler = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[handler])
    with _denormals_flushed(), _full_disk_reported(config):
        sets = open_sources(config.data)
        run = Run(config, variant, accelerator, sets, TrainingPool(sets, config.scenes.weights), watch)
        with only_writer(config.out) if accelerator.is_main_process else nullcontext():
            return _train(run)


def _train(run: Run) -> Path:
    config, accelerator = run.config, run.accelerator
    if accelerator.is_main_process:
        config.out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(config.out)
        settings = {**asdict(config), "machine": describe_machine(), "processes": accelerator.num_processes}
        write_whole(config.out / "settings.json", (json.dumps(settings, indent=1, default=str) + "\n").encode())
    accelerator.wait_for_everyone()
    model = start_model(config, run.variant.adapt)
    saved = load_checkpoint(config)
    if saved is not None:
        if saved.model.keys() != model.state_dict().keys():
            raise ValueError(f"{config.out}: belongs to a run of another kind of model; choose another --out or remove it")
        model.load_state_dict(saved.model)
    model.to(device=accelerator.device)  # pyright: ignore[reportCallIssue]  hidden by transformers' signature
    averages = {name: p.detach().clone() for name, p in model.named_parameters()}
    if saved is None:
        saved = Saved()
    else:
        averages.update({name: value.to(accelerator.device) for name, value in saved.ema.items()})
    for number in range(saved.at.stage, len(config.stages)):
        model = _run_stage(run, number, model, averages, saved)
        saved = Saved(Position(number + 1), attack=saved.attack)
    if accelerator.is_main_process:
        _write_model(run, model, averages)
    accelerator.wait_for_everyone()
    return config.out / "model"


def _run_stage(run: Run, number: int, model: RuacModel, averages: dict[str, Tensor], saved: Saved) -> RuacModel:
    """From the step where the stage stands to its end; the averages are changed in place, and the attackers in `saved`."""
    config, variant, accelerator, stage, first = (
        run.config,
        run.variant,
        run.accelerator,
        run.config.stages[number],
        saved.at.step,
    )
    model = resized(model, stage.image_size, variant.adapt)
    model.config.head_trained = model.config.head_trained or any(s.trains_head for s in config.stages[: number + 1])
    if not first:
        model.load_state_dict(averages, strict=False)  # buffers have no average
    objective = Objective(model, stage, config.seed, variant, config.precision)
    if isinstance(objective.attack, nn.Module) and _fits(objective.attack, saved.attack):
        objective.attack.load_state_dict(saved.attack)
    objective.to(accelerator.device)
    optimizer = torch.optim.AdamW(parameter_groups(objective, variant, config.weight_decay), betas=(0.9, 0.98), foreach=True)
    restore_optimizer(optimizer, objective, saved.optimizer)
    stream = SceneStream(run.pool, config.scenes, stage, (config.seed, number), stretches(model))
    pictures = batches(stream, first, config.workers, accelerator.process_index, accelerator.num_processes)
    shared = accelerator.prepare(objective)
    main = accelerator.is_main_process
    with _progress(main) as progress, StepLog(config.out / "log.csv", saved.at) if main else nullcontext() as log:
        task = progress.add_task(f"stage {number + 1}/{len(config.stages)}", total=stage.steps, completed=first, note="")
        written = validated = time.monotonic()
        judged_at = -1
        for step in range(first, stage.steps):
            passes = [next(pictures).to(accelerator.device) for _ in range(stage.accumulation)]
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * stage.factor(step)
            figures = training_step(shared, passes, Chance(config.seed, number, step), step / stage.steps, accelerator)
            trouble = _not_finite(figures) or _clip(objective, config.clip)
            if trouble:
                rates = ", ".join(f"{group['lr']:.2g}" for group in optimizer.param_groups)
                raise WorkError(
                    f"{config.out}: training has diverged in stage {number + 1} at step {step}: {trouble}; learning rates {rates}. "
                    f"Lower those of the stage, or --clip, and train to another --out; {kept(config)}"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            # young averages forget fast, so that a short stage is not outvoted by where it started
            _average(averages, model, min(config.ema, (step + 1) / (step + 10)))
            if log is None:
                continue
            log.add(number, step, figures)
            progress.update(task, advance=1, note=" ".join(f"{k} {v:.3f}" for k, v in figures.items()))
            at = Position(number, step + 1)
            if time.monotonic() - written > 60 * config.checkpoint_minutes or at.step == stage.steps:
                save_checkpoint(config, state_of(objective, averages, optimizer, at))
                written = time.monotonic()
            if run.watch is not None:
                run.watch(at, lambda: averaged(model, averages))
            if time.monotonic() - validated > 60 * config.validate_minutes:
                validate(run, model, averages, at)
                validated, judged_at = time.monotonic(), at.step
    if main and judged_at != stage.steps:
        validate(run, model, averages, Position(number, stage.steps))
    saved.attack.clear()
    saved.attack.update(copied(objective.attack.state_dict()) if isinstance(objective.attack, nn.Module) else {})
    if main:
        tensors = copied(model.state_dict()), copied(averages)
        save_checkpoint(config, Saved(Position(number + 1), *tensors, attack=saved.attack))
    accelerator.free_memory()
    return model


def training_step(
    objective: nn.Module, passes: Sequence[Batch], chance: Chance, done: float, accelerator: Accelerator
) -> dict[str, float]:
    """Forward and backward of a step's pictures, the gradients averaged over passes and processes. Returns the means of what to log.

    objective: an `Objective`, or what accelerate has made of it.
    """
    attacked = accelerator.unwrap_model(objective).stage.attack_at(done) is not None
    seen: list[dict[str, float]] = []
    for i, batch in enumerate(passes):
        work: Batch | Pending | None = batch
        while work is not None:
            # gradients are averaged over processes when the last of them is there
            last = i + 1 == len(passes) and (isinstance(work, Pending) or not attacked)
            with nullcontext() if last else accelerator.no_sync(objective):
                outcome: Outcome = objective(work, chance, done)
                accelerator.backward(outcome.loss / len(passes))
            seen.append(dict(zip(outcome.figures, torch.stack(list(outcome.figures.values())).tolist(), strict=True)))
            work = outcome.pending
    if accelerator.num_processes > 1:
        seen = gather_object(seen)
    names = dict.fromkeys(name for figures in seen for name in figures)
    return {name: float(np.mean([figures[name] for figures in seen if name in figures])) for name in names}


def validate(run: Run, model: RuacModel, averages: Mapping[str, Tensor], at: Position) -> None:
    """IoU after 1, 3 and 5 clicks on held-out pictures, set by set, of the averaged weights; a row each in validation.csv."""
    judged = averaged(model, averages)
    protocol = Protocol(clicks=(1, 3, 5), max_objects=4)
    rows: list[list[object]] = []
    for part in run.sets:
        # of a video one frame
        samples = list({sample.id: sample for sample in reversed(part.samples) if sample.held_out}.values())[::-1]
        images = [LabelledImage(s.id, *run.pool.read(s)) for s in samples[: run.config.validation_images]]
        results = [result for image in images if (result := evaluate_image(judged, image, protocol, {})).objects]
        if results:
            iou = [np.mean([q.iou for r in results for q in r.after[clicks].quality]) for clicks in protocol.clicks]
            rows.append([part.name, len(results), *(f"{value:.4f}" for value in iou)])
    write_validation(run.config.out / "validation.csv", at, rows)


def averaged(model: RuacModel, averages: Mapping[str, Tensor]) -> RuacModel:
    """A copy with the averaged weights, in evaluation mode."""
    other = copy.deepcopy(model).eval()
    other.load_state_dict(averages, strict=False)
    return other


def _not_finite(figures: Mapping[str, float]) -> str:
    """In words, which losses are not; empty when all is well."""
    names = [f"{name} is {value}" for name, value in figures.items() if not np.isfinite(value)]
    return f"the loss {', '.join(names)}" if names else ""


def _clip(objective: Objective, clip: float) -> str:
    """Clip the gradients of the model and, apart so that neither shrinks the other, the attackers'; in words, which is not finite."""
    attackers = attacking_parameters(objective)
    there = {id(p) for p in attackers}
    for of, parameters in (("model", [p for p in objective.parameters() if id(p) not in there]), ("attackers", attackers)):
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            names = {id(p): name for name, p in objective.named_parameters()}
            first = next(names[id(p)] for p in parameters if p.grad is not None and not torch.isfinite(p.grad).all())
            return f"the gradient of the {of} is not finite, first in {first}"
        nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    return ""


def _fits(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of such a module: attackers of the same kind and width go on from stage to stage."""
    return {name: value.shape for name, value in module.state_dict().items()} == {n: value.shape for n, value in tensors.items()}


@torch.no_grad()
def _average(averages: dict[str, Tensor], model: RuacModel, decay: float) -> None:
    """Exponential moving average of the weights, in place."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            averages[name].lerp_(parameter, 1 - decay)


def _write_model(run: Run, model: RuacModel, averages: dict[str, Tensor]) -> None:
    """The averaged weights in half precision, as a model folder that is there whole or not at all."""
    config = run.config
    final = resized(model, config.image_size, run.variant.adapt)
    final.config.head_trained = final.config.head_trained or any(stage.trains_head for stage in config.stages)
    final.load_state_dict({**final.state_dict(), **averages})
    if isinstance(final.head, ExactHead):
        final.head.hedge(**vars(config.hedge))
    run.variant.finish(final)
    write_model(final, config.out / "model", f"run the same command again, {kept(config)}")


@contextmanager
def _full_disk_reported(config: TrainConfig) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RoomError(
            f"{error.filename or config.out}: {error.strerror}; make room and run the same command again, {kept(config)}"
        ) from None


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Moments of tiny gradients are denormal numbers, which cost some processors half their speed. A setting of the whole process."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _progress(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=not shown,
    )
