"""Tracks on labelled clips: how good are they, does the doubt know where they are wrong, and which frame is worth correcting?

    python benchmarks/video_correction.py            # minutes
    python benchmarks/video_correction.py --quick    # three clips of 12 frames, one correction, under 50 s

Every clip is followed from the first frame's mask and from a click on it. Then an annotator draws the object on one frame after the
other, and each time the track is made anew around that frame. Which frame: the suggested one, the one with the lowest predicted IoU
(times object score, of a model that has one), or any. What a choice by chance is worth is the mean over SEQUENCES of them, whose first
frames are spread over the clip.

Two events are to be detected: that a frame is wrong (J below FAILED), and that the track has drifted by a frame (see
`ruac.video.evaluate.drifted`). AUROC is given for all frames together, which mostly tells clips apart, and within clips: the mean over
those where it is defined. Beside the doubt stand the lowest score and the mere time since the prompt.

The settings of the light memory were chosen by J&F on every second clip by name, from the first on; 'held out' are the others. Those
of the suggestion and of the alarm were chosen before any clip was seen, those of the trust in a track on made-up ones
(benchmarks/video_trust.py); that the suggestion leaves trust out was decided on these clips. Intervals: clips drawn with replacement.
The last line is one JSON object; exit code 1 when the target is missed.
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

from ruac.data.folder import find_sets
from ruac.evaluate.bootstrap import bootstrap_means, defined_mean, estimate
from ruac.machine import describe_machine
from ruac.video.curve import alarm_score, alarms, next_frame
from ruac.video.evaluate import Course, Labelled, auroc, correct, course, drifted, errors, follow, only
from ruac.video.predictor import VideoPredictor

CORRECTIONS, SEQUENCES = 2, 4
FAILED = 0.5  # J of a frame below which it is one to be found
QUICK_CLIPS, QUICK_FRAMES = 3, 12

Choice = Callable[[Course, list[int]], int]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Of a clip. j_and_f: from a mask and from a click; failed, drifted: of all frames but the first, the two events; scores: by name,
    of all frames, what is to detect them; alarmed: within alarms; pixels: [frames, 4] AUROC of wrong pixels, frame alone and steady,
    in all of the picture and in the band around the object; gains: by policy, [corrections] how much higher J&F is than before any;
    frames_per_second: of one pass."""

    j_and_f: tuple[float, float]
    failed: NDArray[np.bool_]
    drifted: NDArray[np.bool_]
    scores: dict[str, NDArray[np.float64]]
    alarmed: NDArray[np.bool_]
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
        outcomes[part.name] = judge(predictor, clip, *(1 if options.quick else CORRECTIONS, SEQUENCES))
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
    back = dict(predictor.retrace(0, last, masks))
    # an object that is gone at the end cannot be followed back from there
    returned = np.array([1.0 if (value := back[n]) is None else value for n in range(last + 1)])
    both = np.where([back[n] is None for n in range(last + 1)], start.doubt, (start.doubt + returned) / 2)
    scores = {
        "doubt": start.doubt,
        "own_doubt": start.own_doubt,
        "way_back": returned,
        "both_ways": both,
        "lowest_score": 1 - start.score,
    }
    return Outcome(
        (float(start.j_and_f[1:].mean()), float(from_click.j_and_f[1:].mean())),
        start.j[1:] < FAILED,
        drifted(start.j)[1:],
        scores | {"time": np.arange(last + 1.0)},
        alarmed(start.doubt)[1:],
        np.array(pixels),
        {name: np.mean(found, 0) for name, found in gains.items()},
        len(clip.frames) / seconds,
    )


def suggested(now: Course, told: list[int]) -> int:
    frame = next_frame(now.own_doubt, told)
    assert frame is not None  # there are more frames than corrections
    return frame


def lowest_score(now: Course, told: list[int]) -> int:
    score = now.score.copy()
    score[told] = np.inf
    return int(score.argmin())


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
        "drifted_frames": int(outcome.drifted.sum()),
        "gains": {policy: [round(float(value), 3) for value in found] for policy, found in outcome.gains.items()},
    }


def summarise(outcomes: dict[str, Outcome]) -> dict[str, object]:
    every = list(outcomes.values())
    held_out = every[1::2]
    pixels = np.concatenate([outcome.pixels for outcome in every])
    names = ("frame_alone", "frame_alone_band", "steady", "steady_band")
    gains = {policy: np.stack([outcome.gains[policy] for outcome in every]) for policy in every[0].gains}
    goal = float(gains["suggested"][:, 0].mean())
    ahead = {"all": lead(every), "held_out": lead(held_out)} if held_out else {"all": lead(every)}
    figures = {
        "clips": len(every),
        "j_and_f_from_mask": interval(np.array([outcome.j_and_f[0] for outcome in every])),
        "j_and_f_from_click": interval(np.array([outcome.j_and_f[1] for outcome in every])),
        "j_and_f_from_mask_held_out": interval(np.array([outcome.j_and_f[0] for outcome in held_out])) if held_out else None,
        "wrong_frames": int(sum(outcome.failed.sum() for outcome in every)),
        "wrong_frames_auroc": {name: frame_auroc(every, name) for name in every[0].scores},
        "drifted_frames": int(sum(outcome.drifted.sum() for outcome in every)),
        "drift_auroc": {name: drift_auroc(every, name) for name in every[0].scores},
        "alarm": alarm(every),
        "pixel_auroc": {name: round(defined_mean(pixels[:, k]), 4) for k, name in enumerate(names)},
        "gain": {policy: [interval(column) for column in found.T] for policy, found in gains.items()},
        "suggested_less": ahead,
        "corrections_for_the_same": {policy: needed(found.mean(0), goal) for policy, found in gains.items()},
        "frames_per_second": round(float(np.mean([outcome.frames_per_second for outcome in every])), 2),
    }
    missed = [] if ahead["all"]["uniform"][0][1] > 0 else ["suggested_less uniform: the interval holds zero"]
    return {"figures": figures, "targets": {"suggested_less_uniform_low": 0}, "missed": missed}


def lead(outcomes: list[Outcome]) -> dict[str, list[list[float]]]:
    """By policy, after each correction: how much higher J&F is with the suggested frames, clip by clip."""
    mine = np.stack([outcome.gains["suggested"] for outcome in outcomes])
    others = {policy: np.stack([outcome.gains[policy] for outcome in outcomes]) for policy in ("uniform", "lowest_score")}
    return {policy: [interval(column) for column in (mine - found).T] for policy, found in others.items()}


def frame_auroc(outcomes: list[Outcome], name: str) -> dict[str, object]:
    return detection([outcome.failed for outcome in outcomes], [outcome.scores[name][1:] for outcome in outcomes])


def drift_auroc(outcomes: list[Outcome], name: str) -> dict[str, object]:
    """Of the level that an alarm by this score would have."""
    return detection([outcome.drifted for outcome in outcomes], [alarm_score(outcome.scores[name])[1:] for outcome in outcomes])


def detection(events: list[NDArray[np.bool_]], scores: list[NDArray[np.float64]]) -> dict[str, object]:
    """within_clips: mean and interval, over the clips that have frames with and without the event."""
    within = np.array([auroc(event, score) for event, score in zip(events, scores, strict=True)])
    defined = within[np.isfinite(within)]
    pooled = auroc(np.concatenate(events), np.concatenate(scores))
    return {
        "pooled": round(pooled, 4) if np.isfinite(pooled) else None,
        "within_clips": interval(defined) if len(defined) else None,
        "clips": len(defined),
    }


def alarmed(doubt: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[frames] within alarms."""
    inside = np.zeros(len(doubt), np.bool_)
    for first, last in alarms(doubt):
        inside[first : last + 1] = True
    return inside


def alarm(outcomes: list[Outcome]) -> dict[str, float | None]:
    """Of the drifted frames, the share within alarms; and of the frames within alarms, the share that has drifted."""
    inside = np.concatenate([outcome.alarmed for outcome in outcomes])
    events = np.concatenate([outcome.drifted for outcome in outcomes])
    found = int((inside & events).sum())
    return {
        "recall": round(found / int(events.sum()), 4) if events.any() else None,
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
