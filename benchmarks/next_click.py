"""Does it pay to click where the model suggests? The number of clicks (NoC) of an annotator who looks only there.

    python benchmarks/next_click.py                   # a quarter of an hour on one core
    python benchmarks/next_click.py --quick           # one object a set, six clicks, under 50 s: whether it runs, not how well

All begin with a click at the centre of the object (its most interior pixel) and go on, with the mask before as mask prompt, until the
IoU is 90 % or 20 clicks are made. Wrong regions are 8-connected; missing and superfluous pixels are regions apart; pixels labelled
"ignore" are never wrong. What is clicked on next:

next_click  The annotator looks only at the region that `Predictor.next_click` suggests. If the mask is wrong at the suggested pixel,
            they click at the centre of the wrong region that this pixel lies in, with its true label. If it is right there, but wrong
            elsewhere in the suggested region, they do so with the wrong region that comes nearest to the pixel within the suggested
            one. If nothing there is wrong they confirm: a click at the suggested pixel, with the label that the mask has there.
region      The same, but of all that is wrong in the suggested region they correct the largest: the oracle, confined to that region.
place       The same, but they look at the suggested pixel only, not at the region around it.
entropy     The same, for the pixel with the highest entropy.
oracle      The centre of the largest wrong region of the picture, as in RITM and FocalClick: they search all of it.
random      Any wrong pixel, all alike: they search all of it, too.

NoC@t is the number of the first click after which the IoU is at least t; 20 where it never is (RITM's definition), which happens to
the share `failed`. A mean over the sets of means over images; 95 % intervals by drawing images anew within each set. The last line is
one JSON object; the exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ruac.data.folder import IGNORE, FolderSet, Sample, find_sets
from ruac.data.prompts import first_click, next_click
from ruac.evaluate.bootstrap import bootstrap_means, estimate
from ruac.evaluate.clicks import TARGETS, click_effort
from ruac.evaluate.metrics import iou
from ruac.evaluate.protocol import Protocol, choose_objects, read
from ruac.features import BACKGROUND, FOREGROUND
from ruac.machine import describe_machine
from ruac.predictor import Prediction, Predictor, Prompt
from ruac.regions import Mask, interior_point, region_around

CLICKS, QUICK_CLICKS = 20, 6
LARGEST_RATIO = 1.15  # of NoC@85 to the oracle's
JUDGED = 1  # of TARGETS: 85 %


@dataclass(frozen=True)
class Click:
    """A pixel of the picture and what is said about it."""

    x: int
    y: int
    label: int


@dataclass(frozen=True, eq=False)
class Target:
    """What the annotator knows of an object: boolean [height, width]; rng: of those who choose by chance."""

    truth: Mask
    valid: Mask
    rng: np.random.Generator


Policy = Callable[[Prediction, Target], Click]


def looking_at_region(prediction: Prediction, target: Target) -> Click:
    suggested = Predictor.next_click(prediction)
    return look(prediction.masks[0], target, suggested.x, suggested.y, suggested.region)


def searching_region(prediction: Prediction, target: Target) -> Click:
    suggested, mask = Predictor.next_click(prediction), prediction.masks[0]
    click = next_click(mask, target.truth, target.valid & suggested.region)
    return Click(*click) if click else look(mask, target, suggested.x, suggested.y)


def looking_at_place(prediction: Prediction, target: Target) -> Click:
    suggested = Predictor.next_click(prediction)
    return look(prediction.masks[0], target, suggested.x, suggested.y)


def looking_at_entropy(prediction: Prediction, target: Target) -> Click:
    y, x = np.unravel_index(int(prediction.uncertainty[0].argmax()), target.truth.shape)
    return look(prediction.masks[0], target, int(x), int(y))


def oracle(prediction: Prediction, target: Target) -> Click:
    click = next_click(prediction.masks[0], target.truth, target.valid)
    assert click is not None  # an IoU below 90 % has an error
    return Click(*click)


def at_random(prediction: Prediction, target: Target) -> Click:
    wrong = np.flatnonzero((prediction.masks[0] ^ target.truth) & target.valid)
    y, x = np.unravel_index(int(target.rng.choice(wrong)), target.truth.shape)
    return Click(int(x), int(y), FOREGROUND if target.truth[y, x] else BACKGROUND)


def look(mask: Mask, target: Target, x: int, y: int, region: Mask | None = None) -> Click:
    """The annotator's click who is shown a pixel, and a region around it, of a mask [height, width]."""
    missing, superfluous = (wrong & target.valid for wrong in (target.truth & ~mask, mask & ~target.truth))
    if not (missing | superfluous)[y, x] and region is not None:
        rows, columns = np.nonzero((missing | superfluous) & region)
        if len(rows):
            nearest = ((rows - y) ** 2 + (columns - x) ** 2).argmin()
            y, x = int(rows[nearest]), int(columns[nearest])
    for wrong, label in ((missing, FOREGROUND), (superfluous, BACKGROUND)):
        if wrong[y, x]:
            return Click(*interior_point(region_around(wrong, x, y)), label)
    return Click(x, y, FOREGROUND if mask[y, x] else BACKGROUND)


POLICIES: dict[str, Policy] = {
    "next_click": looking_at_region,
    "region": searching_region,
    "place": looking_at_place,
    "entropy": looking_at_entropy,
    "oracle": oracle,
    "random": at_random,
}


LOOKING = ("next_click", "region", "place")  # where it is suggested


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("RUAC_DATA", "../shared/data")) / "eval"
    parser.add_argument("--data", type=Path, default=default, help="folder of sets")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--max-images", type=int, default=8, help="of each set, the first by name")
    parser.add_argument("--max-objects", type=int, default=3, help="of an image")
    parser.add_argument("--quick", action="store_true", help="one object of one image a set, six clicks, under 50 s")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    images, objects, clicks = (1, 1, QUICK_CLICKS) if options.quick else (options.max_images, options.max_objects, CLICKS)
    predictor, console = Predictor(options.model), Console(stderr=True)
    sets = find_sets([options.data])
    pictures = [(part, sample) for part in sets for sample in part.samples[:images]]
    efforts: dict[str, list[NDArray[np.float64]]] = {part.name: [] for part in sets}
    for part, sample in track(pictures, "clicking", console=console, disable=not console.is_terminal):
        efforts[part.name] += efforts_of(predictor, part, sample, objects, clicks)
    figures = judge({name: np.stack(values) for name, values in efforts.items() if values})
    print(json.dumps({**figures, "quick": options.quick, "machine": describe_machine()}))
    # single objects say nothing about targets
    return 1 if figures["missed"] and not options.quick else 0


def efforts_of(predictor: Predictor, part: FolderSet, sample: Sample, objects: int, clicks: int) -> list[NDArray[np.float64]]:
    """Means over the objects of one picture: a table [policies, targets, (clicks, failed)], or nothing when it has no object."""
    labelled = read(sample)
    valid = labelled.ids != IGNORE
    chosen = choose_objects(labelled.ids, labelled.id, Protocol(max_objects=objects))
    if not chosen:
        return []
    predictor.set_image(labelled.image)
    truths = [labelled.ids == i for i in chosen]
    first = [first_click(truth) for truth in truths]
    start = predictor.predict_many([Prompt([click], [FOREGROUND]) for click in first])
    rows = []
    for policy in POLICIES.values():
        # for each policy the same chance
        rngs = (np.random.default_rng([zlib.crc32(f"{part.name}/{sample.id}".encode()), i]) for i in chosen)
        targets = [Target(truth, valid, rng) for truth, rng in zip(truths, rngs, strict=True)]
        ious = converse(predictor, targets, [Click(*click, FOREGROUND) for click in first], start, policy, clicks)
        found = [click_effort(ious, target) for target in TARGETS]
        rows.append([(effort.noc, effort.failure_rate) for effort in found])
    return [np.array(rows)]


def converse(
    predictor: Predictor,
    targets: Sequence[Target],
    first: Sequence[Click],
    start: Sequence[Prediction],
    policy: Policy,
    clicks: int,
) -> NDArray[np.float64]:
    """IoUs [objects, clicks] after 1, 2 ... clicks; who has reached the last of TARGETS stops, and keeps what was reached."""
    said = [[click] for click in first]
    ious = np.zeros((len(targets), clicks))
    answers = dict(enumerate(start))
    for turn in range(clicks):
        for i, answer in list(answers.items()):
            ious[i, turn:] = iou(answer.masks[0], targets[i].truth, targets[i].valid)
            if ious[i, turn] >= TARGETS[-1]:
                del answers[i]
        if not answers or turn == clicks - 1:
            break
        prompts = []
        for i, answer in answers.items():
            said[i].append(policy(answer, targets[i]))
            coords, labels = [(click.x, click.y) for click in said[i]], [click.label for click in said[i]]
            prompts.append(Prompt(coords, labels, mask_input=answer.low_res_logits[0]))
        answers = dict(zip(answers, predictor.predict_many(prompts), strict=True))
    return ious


def judge(efforts: dict[str, NDArray[np.float64]]) -> dict[str, object]:
    """The figures of the targets. efforts: by set, [images, policies, targets, (clicks, failed)]."""
    means = np.mean([table.mean(0) for table in efforts.values()], 0)
    draws = np.mean([bootstrap_means(table, name) for name, table in efforts.items()], 0)  # (draws, policies, targets, 2)
    index = {name: place for place, name in enumerate(POLICIES)}
    noc: dict[str, dict[str, object]] = {}
    for name, place in index.items():
        noc[name] = {}
        for k, target in enumerate(TARGETS):
            found = estimate(float(means[place, k, 0]), draws[:, place, k, 0])
            noc[name][f"noc@{100 * target:.0f}"] = [round(value, 3) for value in (found.mean, found.low, found.high)]
            noc[name][f"failed@{100 * target:.0f}"] = round(float(means[place, k, 1]), 4)
    at, drawn = means[:, JUDGED, 0], draws[:, :, JUDGED, 0]
    ratios = {
        name: estimate(at[index[name]] / at[index["oracle"]], drawn[:, index[name]] / drawn[:, index["oracle"]])
        for name in LOOKING
    }
    ratio = ratios["next_click"]
    fewer = {name: bool(at[index["next_click"]] < at[index[name]]) for name in ("entropy", "random")}
    by_set = {
        name: dict(zip(POLICIES, (round(float(v), 2) for v in table[:, :, JUDGED, 0].mean(0)), strict=True))
        for name, table in efforts.items()
    }
    missed = [f"ratio to the oracle {ratio.mean:.3f} > {LARGEST_RATIO}"] if ratio.mean > LARGEST_RATIO else []
    missed += [f"no fewer clicks than {name}" for name, less in fewer.items() if not less]
    return {
        "figures": {
            "sets": len(efforts),
            "images": sum(len(table) for table in efforts.values()),
            **noc,
            "ratio@85": {name: [round(value, 4) for value in (r.mean, r.low, r.high)] for name, r in ratios.items()},
            "by_set@85": by_set,
        },
        "targets": {"largest_ratio@85": LARGEST_RATIO, "fewer_than": list(fewer)},
        "missed": missed,
    }


if __name__ == "__main__":
    sys.exit(main())
