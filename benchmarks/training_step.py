"""What the recipes' steps cost, against a plain step of the embedded model: `python benchmarks/training_step.py [--quick]`.

Side by side in one run, in turn, medians, on the same made-up pictures; a step simulates its clicks. Every way also runs in a process
of its own, whose largest memory is given. Then a step of `ruac train --method head`, with the model's answers on disk, against one
that makes them. Exits 1 unless a step of RUAC costs at most 2.3 times a plain one, and the answers on disk make a step at least five
times as fast.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from ruac.data.folder import FolderSet
from ruac.families.nano import NanoConfig
from ruac.loading import load
from ruac.machine import describe_machine
from ruac.model import RuacConfig, RuacModel, channels_last
from ruac.training.config import Attacking, Stage
from ruac.training.fit_speed import StepTimes, step_times
from ruac.training.groups import parameter_groups
from ruac.training.loop import training_step
from ruac.training.objective import Chance, Objective
from ruac.training.stream import Batch
from ruac.training.variant import PLAIN

IMAGES, OBJECTS, SIDE, PICTURES = 8, 3, 256, 4
LARGEST_RATIO, LEAST_GAIN = 2.3, 5.0
STAGE = Stage(steps=1, image_size=SIDE, images=IMAGES, objects=OBJECTS)
RUAC = replace(STAGE, alignment_weight=0.1, kl_weight=5e-13, kl_begins=0.0, attack=Attacking(begins=0.0))
WAYS = {
    "plain": STAGE,
    "aligned": replace(RUAC, attack=None),
    "ruac": RUAC,
    "ruac without slope": replace(RUAC, attack=Attacking(begins=0.0, slope=False)),
    "ruac of the decoder": replace(RUAC, train="decoder"),
    "plain head": replace(STAGE, train="head"),
    "ruac of the head": replace(RUAC, train="head"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under 50 s")
    parser.add_argument(
        "--memory-of", choices=WAYS, help="only two steps of one way, and the largest memory of the process in MB"
    )
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    if options.memory_of:
        step = stepper(WAYS[options.memory_of])
        step()
        step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return 0
    rounds = 2 if options.quick else 21
    names = ["plain", "ruac"] if options.quick else list(WAYS)
    # before this process is large: a child's largest memory counts what it was born with
    megabytes = {name: memory_of(name) for name in names}
    seconds = in_turn({name: stepper(WAYS[name]) for name in names}, rounds)
    head = cached_head(2 if options.quick else 20)
    ratio, gain = seconds["ruac"] / seconds["plain"], head.uncached / head.cached
    figures = {
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "over_plain": {name: round(value / seconds["plain"], 3) for name, value in seconds.items()},
        "largest_ruac_over_plain": LARGEST_RATIO,
        "megabytes": megabytes,
        "cached_head_seconds": round(head.cached, 3),
        "uncached_head_seconds": round(head.uncached, 3),
        "cached_head_faster": round(gain, 1),
        "least_cached_head_faster": LEAST_GAIN,
        "rounds": rounds,
        "ok": ratio <= LARGEST_RATIO and gain >= LEAST_GAIN,
        "machine": describe_machine(),
    }
    print(json.dumps(figures))
    return 0 if figures["ok"] else 1


def stepper(stage: Stage) -> Callable[[], None]:
    """A training step of nano, with its optimiser, always on the same pictures and clicks."""
    torch.manual_seed(0)
    model = channels_last(RuacModel(RuacConfig(sam=NanoConfig.of_size(SIDE).to_dict())))
    objective, accelerator = Objective(model, stage, seed=0), Accelerator()
    optimizer = torch.optim.AdamW(parameter_groups(objective, PLAIN, 0.02), lr=1e-5, foreach=True)
    ids = torch.zeros(IMAGES, SIDE, SIDE, dtype=torch.uint8)
    for k in range(OBJECTS):
        ids[:, 20 + 70 * k : 80 + 70 * k, 30 + 50 * k : 120 + 50 * k] = k + 1
    chosen = torch.arange(1, OBJECTS + 1).expand(IMAGES, OBJECTS)
    images = torch.randint(0, 256, (IMAGES, 3, SIDE, SIDE), dtype=torch.uint8)
    batch = Batch(images, ids, chosen, torch.arange(IMAGES))

    def step() -> None:
        training_step(objective, [batch], Chance(0, 0, 0), 0.5, accelerator)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def in_turn(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each, one after the other so that all see the same machine; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def cached_head(rounds: int) -> StepTimes:
    """Of the embedded model at its own size, on made-up pictures of squares."""
    with tempfile.TemporaryDirectory() as name:
        root, rng = Path(name) / "squares", np.random.default_rng(0)
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        for i in range(PICTURES):
            ids = np.zeros((480, 640), np.uint8)
            for k in range(4):
                y, x = 20 + 110 * k, 40 + 130 * k
                ids[y : y + 100, x : x + 120] = k + 1
            picture = rng.integers(0, 120, (480, 640, 3)) + 30 * ids[..., None]
            Image.fromarray(picture.astype(np.uint8)).save(root / "images" / f"{i}.png")
            Image.fromarray(ids).save(root / "masks" / f"{i}.png")
        return step_times(load("nano"), FolderSet.open(root).samples, Path(name) / "answers", rounds)


def memory_of(name: str) -> int:
    command = [sys.executable, __file__, "--memory-of", name]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
