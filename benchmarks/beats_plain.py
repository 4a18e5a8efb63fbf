"""Does a model with its head beat another one, fine-tuned on segmentation alone, with plain entropy? From results of `ruac eval`.

    ruac eval --data ../shared/data/eval --model runs/nano-plain/model --out runs/eval-plain
    ruac eval --data ../shared/data/eval --model runs/nano-ruac/model --out runs/eval-ruac
    python benchmarks/beats_plain.py runs/eval-plain runs/eval-ruac            # seconds: it reads, and measures nothing
    python benchmarks/beats_plain.py runs/eval-plain runs/eval-ruac --quick    # the first three sets: does it run?
    python benchmarks/beats_plain.py runs/eval-ruac                            # the same masks exactly

Of one folder the head is held against the plain entropy of the same decoder: where a head has been trained on the weights of the
plain model, that is the plain model, and both judge the very same masks. In two runs a pixel whose logit rounds to the other side of
zero can move a later click. The last line is one JSON object; the exit code is 1 when a target is missed: J&F not clearly worse
(the 95 % interval of the mean difference, paired by image, reaches zero), AUROC, AUPR, AURC and ECE each better on three
quarters of the sets, and the best mean rank over AUROC, AURC and ECE of all methods of both.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruac.machine import describe_machine
from ruac.report.ablation import MEASURES, REGION, contender, ranks
from ruac.report.measures import J_AND_F
from ruac.report.read import HEAD, PLAIN, compare, open_runs
from ruac.report.scores import Scores, SetScores

BETTER_SHARE = 0.75  # of the sets, in each measure of uncertainty
QUICK_SETS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plain", type=Path, help="results of the model to be beaten, by its plain entropy")
    parser.add_argument("head", type=Path, nargs="?", help="results of the model with the head; those of the first if left out")
    parser.add_argument("--clicks", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the first three sets")
    options = parser.parse_args()
    folders = [options.plain, *([options.head] if options.head else [])]
    comparison = compare(open_runs(folders, ["A", "B"][: len(folders)]))
    if options.clicks not in comparison.clicks:
        parser.error(f"--clicks {options.clicks}: these results have {', '.join(map(str, comparison.clicks))}")
    if options.quick:
        comparison = replace(comparison, sets=comparison.sets[:QUICK_SETS])
    figures = judge(Scores(comparison), options.clicks)
    missed = misses(figures)
    targets = {"j_and_f_high_at_least": 0.0, "better_share_at_least": BETTER_SHARE, "best_rank": True}
    about = {"clicks": options.clicks, "quick": options.quick, "machine": describe_machine()}
    print(json.dumps({"figures": figures, "targets": targets, "missed": missed, **about}))
    return 1 if missed else 0


def judge(scores: Scores, clicks: int) -> dict[str, Any]:
    """gains: the last run's head less the first one's plain entropy, by measure; ranks: of all methods of both, best first."""
    comparison = scores.comparison
    plain, head = contender(comparison, 0, PLAIN), contender(comparison, len(comparison.runs) - 1, HEAD)
    differences = {}
    for measure in MEASURES:
        gain = scores.gain(head, plain, measure, REGION, clicks)
        differences[measure.name] = described(gain if measure.higher else SetScores(-gain.values, -gain.draws))
    places = ranks(scores, comparison.contenders, clicks)
    by_rank = sorted(zip(comparison.contenders, places, strict=True), key=lambda pair: pair[1])
    return {
        "sets": len(comparison.sets),
        "images": sum(part.images for part in comparison.sets),
        "gains": differences,
        "ranks": {one.label: round(place, 3) for one, place in by_rank},
        "rank_is_best": places[comparison.contenders.index(head)] <= min(places),
    }


def described(gain: SetScores) -> dict[str, float]:
    """Of a gain, above zero where the head is better: its mean over the sets with the 95 % interval, and how often it is one."""
    known = gain.values[gain.defined]
    mean = gain.mean(gain.defined)
    low, high = mean.interval
    share = float((known > 0).mean()) if len(known) else math.nan
    found = {"mean": mean.value, "low": low, "high": high, "better_share": share}
    return {name: round(value, 5) for name, value in found.items()} | {"sets": len(known)}


def misses(figures: dict[str, Any]) -> list[str]:
    """What was not reached, in words; what is not defined is not reached."""
    missed = []
    for name, gain in figures["gains"].items():
        if name == J_AND_F.name:
            if not gain["high"] >= 0:
                missed.append(f"j_and_f is worse: {gain['mean']} [{gain['low']}, {gain['high']}]")
        elif not gain["better_share"] >= BETTER_SHARE:
            missed.append(f"{name} is better on {gain['better_share']} of the sets")
    if not figures["rank_is_best"]:
        missed.append(f"the best rank is that of {next(iter(figures['ranks']))}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
