"""Do the guarantees of `ruac calibrate` hold on real pictures, are they worth something, and is it said when they may not hold?

    python benchmarks/conformal.py            # seven sets, prompted by clicks and by boxes: a quarter of an hour, resumable
    python benchmarks/conformal.py --quick    # two sets, boxes, 30 images each, under 50 s

A set's calibration part and the evaluation set of the same kind are pooled and split at random 200 times, in halves: one to
calibrate on, one to test. The mean test loss over the splits of the outer and of the inner mask must not be above alpha by more than
its standard error. Sizes of the masks are told beside it, for a mask of everything would keep every promise.
A warning of other pictures must come in at least 90 % of the trials in which the new pictures are of another set, for every set, and
in at most 10 % of those in which they are the other half of the same set. Losses are kept in --out and computed once.

The last line is one JSON object; the exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ruac.calibrate.measure import measure
from ruac.calibrate.policy import Kind, Policy
from ruac.calibrate.risk import HALF, PER_LOGIT, Losses, choose
from ruac.calibrate.shift import Traits, compare
from ruac.data.folder import FolderSet, Sample
from ruac.evaluate.protocol import read
from ruac.machine import describe_machine
from ruac.model import weights_sha256
from ruac.predictor import Predictor

POOLS = {
    "bbbc038_nuclei": "bbbc038_nuclei",
    "clothing": "clothing_ccp",
    "faces": "faces_celebamask",
    "labelme_facade": "labelme_facade",
    "pennfudan": "pennfudan_ped",
    "rooftop_solar": "rooftop_solar",
    "trashcan": "trashcan",
}
ALPHAS = (0.05, 0.1, 0.2)
SPLITS = 200
SAME_TRIALS, OTHER_TRIALS = 100, 20  # of every set, of every pair of sets
FIRES_ON_OTHERS, FIRES_ON_THE_SAME = 0.9, 0.1
QUICK_IMAGES = 30


@dataclass(frozen=True, eq=False)
class Curves:
    """Of every image of a pool: losses and area [images, thresholds], and its traits."""

    missed: NDArray[np.float64]
    wrong: NDArray[np.float64]
    area: NDArray[np.float64]
    traits: tuple[Traits, ...]

    def sum(self, images: NDArray[np.int64]) -> Losses:
        return Losses(len(images), *(curve[images].sum(0) for curve in (self.missed, self.wrong, self.area)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("RUAC_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default, help="folder with calibration/ and eval/")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path, default=Path("runs/conformal"), help="where losses are kept, and gone on from")
    parser.add_argument("--quick", action="store_true", help="two sets and boxes alone, under 50 s")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    predictor = Predictor(options.model)
    folder = options.out / weights_sha256(predictor.model)[:12]
    names = ["bbbc038_nuclei", "trashcan"] if options.quick else list(POOLS)
    kinds: list[Kind] = ["box"] if options.quick else ["point", "box"]
    figures: dict[str, Any] = {}
    for kind in kinds:
        policy = Policy(kind, max_objects=3 if options.quick else 10)
        pools = {name: curves_of(predictor, name, options.data, policy, folder, options.quick) for name in names}
        guarantees = {name: check_guarantee(curves) for name, curves in pools.items()}
        figures[kind] = {"guarantee": guarantees, "shift": check_shift(pools)}
        show(kind, guarantees)
    missed = [line for kind in kinds for line in misses(kind, figures[kind])]
    targets = {"test_risk": "alpha + standard error", "fires_on_others": FIRES_ON_OTHERS, "fires_on_the_same": FIRES_ON_THE_SAME}
    told = {"figures": figures, "targets": targets, "missed": missed, "quick": options.quick, "machine": describe_machine()}
    print(json.dumps(told))
    return 1 if missed else 0


def curves_of(predictor: Predictor, name: str, data: Path, policy: Policy, folder: Path, quick: bool) -> Curves:
    """Of the set's calibration part and the evaluation set together, from the cache where they are there."""
    parts = [FolderSet.open(data / "calibration" / name), FolderSet.open(data / "eval" / POOLS[name])]
    samples: list[Sample] = [sample for part in parts for sample in part.samples[: QUICK_IMAGES // 2 if quick else None]]
    file = folder / f"{name}.{policy.prompt}.{policy.max_objects}.{len(samples)}.npz"
    if not file.is_file():
        shown = track(samples, f"{name}, {policy.prompt}", console=Console(stderr=True), transient=True)
        found = [each for each in (measure(predictor, read(sample), policy) for sample in shown) if each is not None]
        arrays = {kind: np.stack([getattr(each.losses, kind) for each in found]) for kind in ("missed", "wrong", "area")}
        arrays |= {kind: np.array([getattr(each.traits[0], kind) for each in found]) for kind in ("look", "doubt")}
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_suffix(".tmp.npz")
        np.savez(whole, allow_pickle=False, **arrays)
        whole.replace(file)
    stored = np.load(file, allow_pickle=False)
    traits = (Traits(tuple(a), tuple(b)) for a, b in zip(stored["look"].tolist(), stored["doubt"].tolist(), strict=True))
    return Curves(stored["missed"], stored["wrong"], stored["area"], tuple(traits))


def check_guarantee(curves: Curves) -> dict[str, dict[str, float]]:
    """By alpha: mean test loss over the splits, its standard error, and mean size of the masks, the object's being 1."""
    rng, n = np.random.default_rng(0), len(curves.missed)
    rows: dict[float, list[tuple[float, ...]]] = {alpha: [] for alpha in ALPHAS}
    for _ in range(SPLITS):
        order = rng.permutation(n)
        fitted, tested = order[: n // 2], order[n // 2 :]
        losses = curves.sum(fitted)
        for alpha in ALPHAS:
            if len(fitted) + 1 < 1 / alpha:
                continue
            level = choose(losses, alpha)
            outer, inner = (int(np.clip(limit.logit * PER_LOGIT, -HALF, HALF)) + HALF for limit in (level.outer, level.inner))
            whole, nothing = float(outer == 0), float(inner == 2 * HALF)
            risks = curves.missed[tested, outer].mean(), curves.wrong[tested, inner].mean()
            sizes = np.median(curves.area[tested, outer]), np.median(curves.area[tested, inner])
            rows[alpha].append((*risks, *sizes, whole, nothing))
    kept = {alpha: np.array(found) for alpha, found in rows.items() if found}
    # what the predicted mask itself loses
    itself = {
        "mask_missed": float(curves.missed[:, HALF].mean()),
        "mask_wrong": float(curves.wrong[:, HALF].mean()),
        "mask_size": float(np.median(curves.area[:, HALF])),
        "images": float(n),
    }
    names = ("outer_risk", "inner_risk", "outer_size", "inner_size", "outer_is_everything", "inner_is_nothing")
    return {
        f"{alpha:g}": {
            **{name: round(float(value), 4) for name, value in zip(names, found.mean(0), strict=True)},
            **{
                f"{name}_error": round(float(value), 5)
                for name, value in zip(names[:2], found.std(0) / SPLITS**0.5, strict=False)
            },
            **{name: round(value, 4) for name, value in itself.items()},
        }
        for alpha, found in kept.items()
    }


def check_shift(pools: Mapping[str, Curves]) -> dict[str, dict[str, float]]:
    """How often a warning comes: on the other half of the same set, and on pictures of each other set."""
    rng = np.random.default_rng(0)

    def fires(name: str, other: str) -> bool:
        traits = pools[name].traits
        order = rng.permutation(len(traits))
        half = len(order) // 2
        if other == name:
            new = [traits[i] for i in order[half:]]
        else:
            theirs = pools[other].traits
            new = [theirs[i] for i in rng.permutation(len(theirs))[: len(theirs) // 2]]
        shift = compare([traits[i] for i in order[:half]], new, seed=int(rng.integers(2**31)))
        return shift is not None and bool(shift.aspects)

    pairs = {(name, name): SAME_TRIALS for name in pools} | dict.fromkeys(permutations(pools, 2), OTHER_TRIALS)
    rates: dict[str, dict[str, float]] = {name: {} for name in pools}
    for (name, other), trials in track(pairs.items(), "shift", console=Console(stderr=True), transient=True):
        rates[name][other] = float(np.mean([fires(name, other) for _ in range(trials)]))
    return rates


def misses(kind: str, figures: Mapping[str, Any]) -> list[str]:
    """Which targets, in words."""
    found = []
    for name, by_alpha in figures["guarantee"].items():
        for alpha, row in by_alpha.items():
            found += [
                f"{kind} {name}: {side} risk {row[f'{side}_risk']} above {alpha}"
                for side in ("outer", "inner")
                if row[f"{side}_risk"] > float(alpha) + row[f"{side}_risk_error"]
            ]
    for name, rates in figures["shift"].items():
        others = float(np.mean([rate for other, rate in rates.items() if other != name]))
        if others < FIRES_ON_OTHERS:
            found.append(f"{kind} {name}: warns of other sets in {others:.2f} of the trials")
        if rates[name] > FIRES_ON_THE_SAME:
            found.append(f"{kind} {name}: warns of the same set in {rates[name]:.2f} of the trials")
    return found


def show(kind: str, guarantees: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    print(f"prompt: {kind}; sizes are medians, the object's being 1")
    print(f"{'set':<16}{'alpha':>6}{'missed':>9}{'wrong':>9}{'outer':>8}{'mask':>7}{'inner':>7}")
    for name, by_alpha in guarantees.items():
        for alpha, row in by_alpha.items():
            sizes = f"{row['outer_size']:>8.2f}{row['mask_size']:>7.2f}{row['inner_size']:>7.2f}"
            print(f"{name:<16}{alpha:>6}{row['outer_risk']:>9.4f}{row['inner_risk']:>9.4f}{sizes}")


if __name__ == "__main__":
    sys.exit(main())
