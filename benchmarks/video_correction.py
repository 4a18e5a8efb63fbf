"""Tracks on labelled clips: how good are they, does the doubt know where they are wrong, and which frame is worth correcting?

    python benchmarks/video_correction.py            # minutes
    python benchmarks/video_correction.py --quick    # three clips of 12 frames, one correction, under 50 s

Every clip is followed from the first frame's mask and from a click on it. Then an annotator draws the object on one frame after the
other, and each time the track is made anew around that frame. Which frame: the suggested one, the one with the most doubt, or any.
What a choice by chance is worth is the mean over SEQUENCES of them, whose first frames are spread over the clip. The settings of the
light memory were chosen by J&F on every second clip by name, from the first on; those of the suggestion and of the alarm before any
clip was seen. Intervals: clips drawn with replacement. The last line is one JSON object; exit code 1 when the target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.metrics import roc_auc_score

from ruac.data.folder import find_sets
from ruac.evaluate.bootstrap import bootstrap_means, defined_mean, estimate
from ruac.machine import describe_machine
from ruac.video.curve import alarms, next_frame
from ruac.video.evaluate import Course, Labelled, correct, course, errors, follow, only
from ruac.video.predictor import VideoPredictor

CORRECTIONS, SEQUENCES = 2, 6
FAILED = 0.5  # J of a frame below which it is one to be found
QUICK_CLIPS, QUICK_FRAMES, QUICK_SEQUENCES = 3, 12, 4

Choice = Callable[[Course, list[int]], int]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Of a clip. j_and_f: from a mask and from a click; failed, doubts: [frames, (doubt, way back)] of all frames but the first;
    pixels: [frames, 4] AUROC of wrong pixels, frame alone and steady, in all of the picture and in the band around the object;
    gains: by policy, [corrections] how much higher J&F is than before any; seconds: for one pass over the frames."""

    j_and_f: tuple[float, float]
    failed: NDArray[np.bool_]
    doubts: NDArray[np.float64]
    pixels: NDArray[np.float64]
    gains: dict[str, NDArray[np.float64]]
    frames_per_second: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("RUAC_DATA", "../shared/data")) / "video"
    parser.add_argument("--data", type=Path, default=default, help="folder of clips")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CLIPS} clips of {QUICK_FRAMES} frames, one correction")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    sets = find_sets([options.data])
    outcomes: dict[str, Outcome] = {}
    predictor, console = VideoPredictor(options.model, features=1000), Console(stderr=True)
    for part in track(
        sets[:QUICK_CLIPS] if options.quick else sets, "correcting", console=console, disable=not console.is_terminal
    ):
        clip = Labelled.read(part, QUICK_FRAMES if options.quick else None)
        outcomes[part.name] = judge(predictor, clip, *((1, QUICK_SEQUENCES) if options.quick else (CORRECTIONS, SEQUENCES)))
        print(json.dumps(row(part.name, outcomes[part.name])), file=sys.stderr, flush=True)
    report = summarise(outcomes)
    print(json.dumps({**report, "quick": options.quick, "machine": describe_machine()}))
    return 1 if report["missed"] and not options.quick else 0


@torch.inference_mode()
def judge(predictor: VideoPredictor, clip: Labelled, corrections: int, sequences: int) -> Outcome:
    from_click = course(list(follow(predictor, clip, "click")), clip)
    begun = time.perf_counter()
    tracked = list(follow(predictor, clip))
    seconds = time.perf_counter() - begun
    start, state = course(tracked, clip), predictor.state()
    pixels = [
        [
            getattr(errors(only(each), truth, valid, steady), part).read().auroc
            for steady in (False, True)
            for part in ("image", "band")
        ]
        for each, truth, valid in list(zip(tracked, clip.truths, clip.valid, strict=True))[1:]
    ]
    rng = np.random.default_rng(zlib.crc32(clip.name.encode()))
    gains: dict[str, list[NDArray[np.float64]]] = {"suggested": [], "lowest_score": [], "uniform": []}
    policies: list[tuple[str, Choice]] = [("suggested", suggested), ("lowest_score", lowest_score)]
    policies += [("uniform", by_chance(rng, i, sequences)) for i in range(sequences)]
    for name, choose in policies:
        predictor.restore(*state)
        now, told, found = start, [0], []
        for _ in range(corrections):
            frame = choose(now, told)
            told.append(frame)
            now = correct(predictor, clip, now, frame)
            found.append(now.j_and_f[1:].mean() - start.j_and_f[1:].mean())
        gains[name].append(np.array(found))
    last = len(clip.frames) - 1
    masks = dict(enumerate(start.masks))
    back = dict(predictor.retrace(0, last, masks)) if masks[last].any() else {}
    disagreement = [back.get(n, 1.0) for n in range(1, last + 1)]
    return Outcome(
        (float(start.j_and_f[1:].mean()), float(from_click.j_and_f[1:].mean())),
        start.j[1:] < FAILED,
        np.stack([start.doubt[1:], disagreement], 1),
        np.array(pixels),
        {name: np.mean(found, 0) for name, found in gains.items()},
        len(clip.frames) / seconds,
    )


def suggested(now: Course, told: list[int]) -> int:
    frame = next_frame(now.doubt, told)
    assert frame is not None  # there are more frames than corrections
    return frame


def lowest_score(now: Course, told: list[int]) -> int:
    doubt = now.doubt.copy()
    doubt[told] = -1
    return int(doubt.argmax())


def by_chance(rng: np.random.Generator, sequence: int, sequences: int) -> Choice:
    """Any frame that was not told of yet; the first choices of all sequences are spread evenly, so that their mean is known better."""
    share = (sequence + rng.random()) / sequences

    def choose(now: Course, told: list[int]) -> int:
        left = [n for n in range(len(now.doubt)) if n not in told]
        return left[int(share * len(left))] if len(told) == 1 else int(rng.choice(left))

    return choose


def row(name: str, outcome: Outcome) -> dict[str, object]:
    """A clip in a line."""
    return {
        "clip": name,
        "j_and_f": [round(value, 3) for value in outcome.j_and_f],
        "failed_frames": int(outcome.failed.sum()),
        "gains": {policy: [round(float(value), 3) for value in found] for policy, found in outcome.gains.items()},
    }


def summarise(outcomes: dict[str, Outcome]) -> dict[str, object]:
    every = list(outcomes.values())
    failed = np.concatenate([outcome.failed for outcome in every])
    doubts = np.concatenate([outcome.doubts for outcome in every])
    both = 0.0 < failed.mean() < 1.0
    scores = {"doubt": doubts[:, 0], "way_back": doubts[:, 1], "both": doubts.mean(1)}
    pixels = np.concatenate([outcome.pixels for outcome in every])
    names = ("frame_alone", "frame_alone_band", "steady", "steady_band")
    gains = {policy: np.stack([outcome.gains[policy] for outcome in every]) for policy in every[0].gains}
    ahead = {policy: interval(gains["suggested"][:, 0] - gains[policy][:, 0]) for policy in ("uniform", "lowest_score")}
    held_out = [outcome.gains["suggested"][0] - outcome.gains["uniform"][0] for outcome in every[1::2]]
    goal = float(gains["suggested"][:, 0].mean())
    figures = {
        "clips": len(every),
        "frames_to_find": int(failed.sum()),
        "j_and_f_from_mask": interval(np.array([outcome.j_and_f[0] for outcome in every])),
        "j_and_f_from_click": interval(np.array([outcome.j_and_f[1] for outcome in every])),
        "j_and_f_from_mask_held_out": round(float(np.mean([outcome.j_and_f[0] for outcome in every[1::2]])), 4),
        "frame_auroc": {name: round(float(roc_auc_score(failed, score)), 4) if both else None for name, score in scores.items()},
        "alarm": alarm(every),
        "pixel_auroc": {name: round(defined_mean(pixels[:, k]), 4) for k, name in enumerate(names)},
        "gain": {policy: [round(float(value), 4) for value in found.mean(0)] for policy, found in gains.items()},
        "suggested_less": ahead,
        "suggested_less_uniform_held_out": [round(float(value), 4) for value in held_out],
        "corrections_for_the_same": {policy: needed(found.mean(0), goal) for policy, found in gains.items()},
        "frames_per_second": round(float(np.mean([outcome.frames_per_second for outcome in every])), 2),
    }
    missed = [] if ahead["uniform"][1] > 0 else ["suggested_less uniform: the interval holds zero"]
    return {"figures": figures, "targets": {"suggested_less_uniform_low": 0}, "missed": missed}


def alarm(outcomes: list[Outcome]) -> dict[str, float | None]:
    """Of the frames to be found, the share within alarms; and of the frames within alarms, the share that were to be found."""
    raised = []
    for outcome in outcomes:
        inside = np.zeros(len(outcome.failed), np.bool_)
        for first, last in alarms(outcome.doubts[:, 0]):
            inside[first : last + 1] = True
        raised.append(inside)
    inside, failed = np.concatenate(raised), np.concatenate([outcome.failed for outcome in outcomes])
    found = int((inside & failed).sum())
    return {
        "recall": round(found / int(failed.sum()), 4) if failed.any() else None,
        "precision": round(found / int(inside.sum()), 4) if inside.any() else None,
    }


def interval(values: NDArray[np.float64]) -> list[float]:
    """Mean over clips, and its interval."""
    found = estimate(float(values.mean()), bootstrap_means(values, "video"))
    return [round(value, 4) for value in (found.mean, found.low, found.high)]


def needed(gains: NDArray[np.float64], goal: float) -> float | None:
    """After how many corrections, interpolated, a mean gain is reached; None where that takes more than were made."""
    known = np.concatenate([[0.0], gains])
    reached = np.flatnonzero(known >= goal)
    if not len(reached):
        return None
    after = int(reached[0])
    if after == 0:
        return 0.0
    step = known[after] - known[after - 1]
    return round(after - 1 + float((goal - known[after - 1]) / step), 2)


if __name__ == "__main__":
    sys.exit(main())
