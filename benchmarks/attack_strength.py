"""Do the learned attacks hurt the alignment of uncertainty and error more than random noise of the same size does?

    python benchmarks/attack_strength.py [--quick] [--out FILE.md]

Each attacker learns for 50 steps against the frozen embedded model at 256 px on training pictures, to make one of the two alignment
losses large, whose slope at the clean picture it is shown as in training; then held-out pictures are attacked. For every picture,
noise has the same root mean square change of its pixels as the attack. Three seeds; bootstrap intervals over pictures. Exits 1 unless
every attack raises its loss more than noise does, the interval of the difference above zero (--quick: two steps on few pictures, only
to see that it runs).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from ruac.attack import AttackSettings, LabelledBatch, make_attack
from ruac.attack.others import add_noise
from ruac.attack.trial import answer, labelled_batch, misalignment, with_slope
from ruac.data.folder import FolderSet, find_sets
from ruac.data.scenes import letterbox
from ruac.distribution import MaskDistribution
from ruac.evaluate.protocol import Protocol, choose_objects, read
from ruac.evaluate.results import write_text
from ruac.loading import load
from ruac.machine import describe_machine
from ruac.model import RuacModel
from ruac.training.loop import resized

SIDE, OBJECTS, BATCH, RATE = 256, 3, 8, 1e-3
KINDS = ("style", "deformation", "cooperative")
Alignment = Literal["paper", "proper"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("RUAC_DATA", "../shared/data")) / "train"
    parser.add_argument("--data", type=Path, default=default, help="folder of sets")
    parser.add_argument("--quick", action="store_true", help="two steps on few pictures, under 50 s")
    parser.add_argument("--out", type=Path, help="where to write the table as Markdown")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    steps, seeds, per_set = (2, 1, 1) if options.quick else (50, 3, 64)
    sets = find_sets([options.data])
    learn, judge = (batches(sets, held_out, per_set) for held_out in (False, True))
    model = resized(load("nano"), SIDE).eval().requires_grad_(False)
    runs = [(kind, loss, seed) for kind in KINDS for loss in ("proper", "paper") for seed in range(seeds)]
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for kind, loss, seed in track(runs, "attacking", console=Console(stderr=True)):
        torch.manual_seed(seed)
        attack = make_attack(kind, AttackSettings(model.family.token_width, torch.Generator().manual_seed(seed)))
        train(model, cast(nn.Module, attack), learn, cast(Alignment, loss), steps, seed)
        rows = [judged(model, cast(nn.Module, attack), batch, cast(Alignment, loss), seed) for batch in judge]
        found.setdefault((kind, loss), []).append(np.concatenate(rows))
    table = [summary(kind, loss, np.stack(each)) for (kind, loss), each in found.items()]
    if options.out:
        write_text(options.out, markdown(table, steps, seeds))
    reached = options.quick or all(row["beyond_noise"][1] > 0 for row in table)
    figures = {"table": table, "steps": steps, "seeds": seeds, "quick": options.quick, "ok": reached}
    print(json.dumps({**figures, "machine": describe_machine()}))
    return 0 if reached else 1


def batches(sets: Sequence[FolderSet], held_out: bool, per_set: int) -> list[LabelledBatch]:
    """Pictures of every set, at most so many of each, mixed."""
    scenes, chosen = [], []
    protocol = Protocol(max_objects=OBJECTS)
    for part in sets:
        for sample in [sample for sample in part.samples if sample.held_out == held_out][:per_set]:
            labelled = read(sample)
            scene = letterbox(labelled.image, labelled.ids, SIDE)
            ids = [i for i in choose_objects(labelled.ids, labelled.id, protocol) if (scene.ids == i).any()]
            if ids:
                scenes.append(scene)
                chosen.append(ids)
    order = np.random.default_rng(0).permutation(len(scenes))
    groups = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    return [labelled_batch([scenes[i] for i in group], [chosen[i] for i in group]) for group in groups]


def train(model: RuacModel, attack: nn.Module, data: Sequence[LabelledBatch], loss: Alignment, steps: int, seed: int) -> None:
    """The reversed gradient makes of the optimiser's minimum the attacker's maximum."""
    optimizer = torch.optim.Adam(attack.parameters(), lr=RATE)
    rng = np.random.default_rng(seed)
    attack.train()
    for _ in range(steps):
        batch = data[int(rng.integers(len(data)))]
        with torch.no_grad():
            features = model.encode(batch.images, ())
        attacked = attack(shown(model, batch, loss), features)
        optimizer.zero_grad()
        misalignment(answer(model, attacked), attacked, loss).backward()
        optimizer.step()


def shown(model: RuacModel, batch: LabelledBatch, loss: Alignment) -> LabelledBatch:
    return with_slope(batch, lambda changed: misalignment(answer(model, changed), changed, loss))


@torch.no_grad()
def judged(model: RuacModel, attack: nn.Module, batch: LabelledBatch, loss: Alignment, seed: int) -> np.ndarray:
    """A row a picture: the loss on it clean, with noise, attacked; the root mean square change; its share of folded pixels."""
    attacked = attack.eval()(shown(model, batch, loss), model.encode(batch.images, ()))
    change = (attacked.images - batch.images) * batch.counted
    rms = (change.square().sum((1, 2, 3)) / (3 * batch.counted.sum((1, 2, 3)))).sqrt()
    noisy = add_noise(batch, rms, torch.Generator().manual_seed(seed))
    columns = [each_picture(model, version, loss) for version in (batch, noisy, attacked)]
    return torch.stack([*columns, rms, attacked.magnitudes["folded"]], 1).numpy()


def each_picture(model: RuacModel, batch: LabelledBatch, loss: Alignment) -> Tensor:
    distribution = answer(model, batch)
    one = [slice(i, i + 1) for i in range(len(batch.images))]
    return torch.stack(
        [
            misalignment(
                MaskDistribution(distribution.mean[i], distribution.variance[i]),
                replace(batch, masks=batch.masks[i], ignore=batch.ignore[i], present=batch.present[i]),
                loss,
            )
            for i in one
        ]
    )


def summary(kind: str, loss: str, rows: np.ndarray) -> dict[str, Any]:
    """rows: [seeds, pictures, 5]. The interval is over pictures, each averaged over the seeds."""
    clean, noise, attacked, rms, folded = rows.mean((0, 1))
    beyond = (rows[..., 2] - rows[..., 1]).mean(0)
    rng = np.random.default_rng(0)
    means = beyond[rng.integers(len(beyond), size=(2000, len(beyond)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "attack": kind,
        "loss": loss,
        "clean": round(float(clean), 5),
        "noise": round(float(noise), 5),
        "attacked": round(float(attacked), 5),
        "beyond_noise": [round(float(v), 5) for v in (beyond.mean(), low, high)],
        "by_seed": [round(float(v), 5) for v in (rows[..., 2] - rows[..., 1]).mean(1)],
        "rms": round(float(rms), 2),
        "folded": round(float(folded), 5),
        "pictures": rows.shape[1],
    }


def markdown(table: Sequence[dict[str, Any]], steps: int, seeds: int) -> str:
    lines = [
        "# How much the attacks hurt",
        "",
        f"`python benchmarks/attack_strength.py --out docs/attack_strength.md` on {describe_machine()}: {steps} steps against the",
        f"frozen embedded model at {SIDE} px, {seeds} seeds, {table[0]['pictures']} held-out pictures of the training sets, one click",
        "an object. Noise has, picture by picture, the same root mean square change (in grey levels) as the attack. 'Beyond noise' is",
        "the rise of the loss beyond that by noise, with its 95 % bootstrap interval over pictures. The attackers are shown the",
        "slope of this very loss at the clean picture, as in training, where it is at hand; noise is not.",
        "",
        "| attack | alignment loss | clean | noise | attacked | beyond noise | each seed | change | folded |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table:
        mean, low, high = row["beyond_noise"]
        seeds_text = ", ".join(f"{value:.4f}" for value in row["by_seed"])
        lines.append(
            f"| {row['attack']} | {row['loss']} | {row['clean']:.4f} | {row['noise']:.4f} | {row['attacked']:.4f} "
            f"| {mean:.4f} [{low:.4f}, {high:.4f}] | {seeds_text} | {row['rms']:.1f} | {100 * row['folded']:.2f} % |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
