"""What an adversarial step costs, against a plain training step of the embedded model: `python benchmarks/attack_cost.py [--quick]`.

Side by side in one run, in turn, medians, all through the training loop's own step. An adversarial step is what a step with an attack
takes more than one without: the slope of the clean loss, the attack, its forward and backward pass. Exits 1 unless that of the
cooperative attack costs at most 1.3 times the plain step, and that of ten steps of PGD at least three times as much as either. The
step trains all weights; one that trains the head alone goes back through less of the model, and the same attack is a larger multiple
of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate import Accelerator

from ruac.attack.pixels import GradientAscent
from ruac.families.nano import NanoConfig
from ruac.machine import describe_machine
from ruac.model import RuacConfig, RuacModel, channels_last
from ruac.training.config import Attacking, Stage
from ruac.training.loop import training_step
from ruac.training.objective import Chance, Objective
from ruac.training.stream import Batch

IMAGES, OBJECTS, SIDE, STEPS = 8, 3, 256, 10
LARGEST_RATIO, LEAST_PGD_RATIO = 1.3, 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under 50 s")
    rounds = 3 if parser.parse_args().quick else 11
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    model = channels_last(RuacModel(RuacConfig(sam=NanoConfig.of_size(SIDE).to_dict())))
    accelerator = Accelerator()
    ids = torch.zeros(IMAGES, SIDE, SIDE, dtype=torch.uint8)
    for k in range(OBJECTS):
        ids[:, 20 + 70 * k : 80 + 70 * k, 30 + 50 * k : 120 + 50 * k] = k + 1
    chosen = torch.arange(1, OBJECTS + 1).expand(IMAGES, OBJECTS)
    images = torch.randint(0, 256, (IMAGES, 3, SIDE, SIDE), dtype=torch.uint8)
    batch = Batch(images, ids, chosen, torch.arange(IMAGES))

    def step(attack: str | None) -> Callable[[], object]:
        attacking = None if attack is None else Attacking(kind=attack, begins=0.0)
        stage = Stage(steps=1, image_size=SIDE, images=IMAGES, objects=OBJECTS, attack=attacking)
        objective = Objective(model, stage, seed=0)
        if isinstance(objective.attack, GradientAscent):
            objective.attack = replace(objective.attack, steps=STEPS)

        def way() -> None:
            objective.zero_grad()
            training_step(objective, [batch], Chance(0, 0, 0), 1.0, accelerator)

        return way

    ways = {"plain": step(None), "cooperative": step("cooperative"), "pgd": step("pgd")}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio, pgd_ratio = (median[name] / median["plain"] - 1 for name in ("cooperative", "pgd"))
    reached = ratio <= LARGEST_RATIO and pgd_ratio >= LEAST_PGD_RATIO * max(1.0, ratio)
    figures = {
        "seconds": {name: round(value, 3) for name, value in median.items()},
        "cooperative_over_plain": round(ratio, 3),
        "largest": LARGEST_RATIO,
        "pgd_over_plain": round(pgd_ratio, 3),
        "least_pgd": LEAST_PGD_RATIO,
        "pgd_over_cooperative": round(pgd_ratio / ratio, 3),
        "rounds": rounds,
        "ok": reached,
        "machine": describe_machine(),
    }
    print(json.dumps(figures))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
