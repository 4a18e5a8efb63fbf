"""Does it pay to click where the model suggests? The number of clicks (NoC) of an annotator who looks only there.

    python benchmarks/next_click.py                   # half an hour on one core
    python benchmarks/next_click.py --quick           # under 50 s: whether it runs, not how well

All begin with a click at the centre of the object (its most interior pixel) and go on, with the mask before as mask prompt, until the
IoU is 90 % or 20 clicks are made. Wrong regions are 8-connected; missing and superfluous pixels are regions apart; pixels labelled
"ignore" are never wrong. What is clicked on next:

next_click      The annotator looks only at the region that `Predictor.next_click` suggests, and of all that is wrong there corrects
                the largest at its centre, as the annotators of all benchmarks do with what they see. If nothing there is wrong they
                confirm: a click at the suggested pixel, with the label that the mask has there.
nearest         The same region, but if the mask is wrong at the suggested pixel they correct the whole wrong region that it lies in,
                if not, the one that comes nearest to it within the suggested region.
place           The same, but they look at the suggested pixel only.
entropy         They look at the pixel with the highest entropy only.
entropy_region  As next_click, but they look at a disc around the pixel with the highest entropy that has as many pixels as the region
                that would be suggested.
random_region   The same disc, around any pixel of the picture, all alike.
oracle          The centre of the largest wrong region of the picture, as in RITM and FocalClick: they search all of it.
random          Any wrong pixel, all alike: they search all of it, too.

A suggested region as large as the picture would make an oracle of next_click, so `looked_at` says how many pixels are looked at for a
click, as a share of the picture's and as a multiple of the object's: means over sets of means over all clicks but the first.

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

CLICKS, QUICK_CLICKS = 20, 4
QUICK_SETS = 2  # every second
LARGEST_RATIO = 1.15  # of NoC@85 to the oracle's
JUDGED = 1  # of TARGETS: 85 %


@dataclass(frozen=True)
class Click:
    """A pixel of the picture and what is said about it. seen: how many pixels were looked at to say so."""

    x: int
    y: int
    label: int
    seen: int


@dataclass(frozen=True, eq=False)
class Target:
    """What the annotator knows of an object: boolean [height, width]; rng: of those who choose by chance."""

    truth: Mask
    valid: Mask
    rng: np.random.Generator


Policy = Callable[[Prediction, Target], Click]


def searching_region(prediction: Prediction, target: Target) -> Click:
    suggested = Predictor.next_click(prediction)
    return search(prediction.masks[0], target, suggested.x, suggested.y, suggested.region)


def looking_at_nearest(prediction: Prediction, target: Target) -> Click:
    suggested = Predictor.next_click(prediction)
    return look(prediction.masks[0], target, suggested.x, suggested.y, suggested.region)


def looking_at_place(prediction: Prediction, target: Target) -> Click:
    suggested = Predictor.next_click(prediction)
    return look(prediction.masks[0], target, suggested.x, suggested.y)


def looking_at_entropy(prediction: Prediction, target: Target) -> Click:
    return look(prediction.masks[0], target, *most_uncertain(prediction))


def searching_around_entropy(prediction: Prediction, target: Target) -> Click:
    return search_disc(prediction, target, *most_uncertain(prediction))


def searching_anywhere(prediction: Prediction, target: Target) -> Click:
    y, x = np.unravel_index(int(target.rng.integers(target.truth.size)), target.truth.shape)
    return search_disc(prediction, target, int(x), int(y))


def oracle(prediction: Prediction, target: Target) -> Click:
    click = next_click(prediction.masks[0], target.truth, target.valid)
    assert click is not None  # an IoU below 90 % has an error
    return Click(*click, target.truth.size)


def at_random(prediction: Prediction, target: Target) -> Click:
    wrong = np.flatnonzero((prediction.masks[0] ^ target.truth) & target.valid)
    y, x = np.unravel_index(int(target.rng.choice(wrong)), target.truth.shape)
    return Click(int(x), int(y), FOREGROUND if target.truth[y, x] else BACKGROUND, target.truth.size)


def search(mask: Mask, target: Target, x: int, y: int, region: Mask) -> Click:
    """The click that corrects the largest error of a mask [height, width] within a region, or confirms a pixel of it."""
    click = next_click(mask, target.truth, target.valid & region) or (x, y, _label(mask, x, y))
    return Click(*click, int(region.sum()))


def search_disc(prediction: Prediction, target: Target, x: int, y: int) -> Click:
    """The same around a pixel, in as many pixels as the region that is suggested has."""
    pixels = int(Predictor.next_click(prediction).region.sum())
    return search(prediction.masks[0], target, x, y, disc(target.truth.shape, x, y, pixels))


def disc(size: tuple[int, ...], x: int, y: int, pixels: int) -> Mask:
    """[height, width], the pixels that are nearest to this one: as many, where it is near the border, too."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    distance = ((rows - y) ** 2 + (columns - x) ** 2).ravel()
    inside = np.zeros(distance.size, np.bool_)
    inside[distance.argpartition(pixels - 1)[:pixels]] = True
    return inside.reshape(size)


def most_uncertain(prediction: Prediction) -> tuple[int, int]:
    """(x, y) of the pixel with the highest entropy."""
    uncertainty = prediction.uncertainty[0]
    y, x = np.unravel_index(int(uncertainty.argmax()), uncertainty.shape)
    return int(x), int(y)


def _label(mask: Mask, x: int, y: int) -> int:
    return FOREGROUND if mask[y, x] else BACKGROUND


def look(mask: Mask, target: Target, x: int, y: int, region: Mask | None = None) -> Click:
    """The annotator's click who is shown a pixel, and a region around it, of a mask [height, width]."""
    seen = 1 if region is None else int(region.sum())
    missing, superfluous = (wrong & target.valid for wrong in (target.truth & ~mask, mask & ~target.truth))
    if not (missing | superfluous)[y, x] and region is not None:
        rows, columns = np.nonzero((missing | superfluous) & region)
        if len(rows):
            nearest = ((rows - y) ** 2 + (columns - x) ** 2).argmin()
            y, x = int(rows[nearest]), int(columns[nearest])
    for wrong, label in ((missing, FOREGROUND), (superfluous, BACKGROUND)):
        if wrong[y, x]:
            return Click(*interior_point(region_around(wrong, x, y)), label, seen)
    return Click(x, y, _label(mask, x, y), seen)


POLICIES: dict[str, Policy] = {
    "next_click": searching_region,
    "nearest": looking_at_nearest,
    "place": looking_at_place,
    "entropy": looking_at_entropy,
    "entropy_region": searching_around_entropy,
    "random_region": searching_anywhere,
    "oracle": oracle,
    "random": at_random,
}
BEATEN = ("entropy", "entropy_region", "random")  # those that must take more clicks


@dataclass(frozen=True, eq=False)
class Effort:
    """One picture. clicks: means over its objects, [policies, targets, (clicks, failed)]; seen: by policy, [N, 2] of all clicks but
    the first, the pixels looked at as a share of the picture's and as a multiple of the object's."""

    clicks: NDArray[np.float64]
    seen: dict[str, NDArray[np.float64]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("RUAC_DATA", "../shared/data")) / "eval"
    parser.add_argument("--data", type=Path, default=default, help="folder of sets")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--max-images", type=int, default=8, help="of each set, the first by name")
    parser.add_argument("--max-objects", type=int, default=3, help="of an image")
    parser.add_argument(
        "--quick", action="store_true", help="one object of one image of every second set, four clicks, under 50 s"
    )
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    images, objects, clicks = (1, 1, QUICK_CLICKS) if options.quick else (options.max_images, options.max_objects, CLICKS)
    predictor, console = Predictor(options.model), Console(stderr=True)
    sets = find_sets([options.data])[:: QUICK_SETS if options.quick else 1]
    pictures = [(part, sample) for part in sets for sample in part.samples[:images]]
    efforts: dict[str, list[Effort]] = {part.name: [] for part in sets}
    for part, sample in track(pictures, "clicking", console=console, disable=not console.is_terminal):
        effort = effort_of(predictor, part, sample, objects, clicks)
        efforts[part.name] += [effort] if effort else []
    figures = judge({name: found for name, found in efforts.items() if found})
    print(json.dumps({**figures, "quick": options.quick, "machine": describe_machine()}))
    # single objects say nothing about targets
    return 1 if figures["missed"] and not options.quick else 0


def effort_of(predictor: Predictor, part: FolderSet, sample: Sample, objects: int, clicks: int) -> Effort | None:
    """None when the picture has no object."""
    labelled = read(sample)
    valid = labelled.ids != IGNORE
    chosen = choose_objects(labelled.ids, labelled.id, Protocol(max_objects=objects))
    if not chosen:
        return None
    predictor.set_image(labelled.image)
    truths = [labelled.ids == i for i in chosen]
    first = [first_click(truth) for truth in truths]
    start = predictor.predict_many([Prompt([click], [FOREGROUND]) for click in first])
    rows, seen = [], {}
    for name, policy in POLICIES.items():
        # for each policy the same chance
        rngs = (np.random.default_rng([zlib.crc32(f"{part.name}/{sample.id}".encode()), i]) for i in chosen)
        targets = [Target(truth, valid, rng) for truth, rng in zip(truths, rngs, strict=True)]
        told = [[Click(*click, FOREGROUND, truth.size)] for click, truth in zip(first, truths, strict=True)]
        ious = converse(predictor, targets, told, start, policy, clicks)
        found = [click_effort(ious, target) for target in TARGETS]
        rows.append([(effort.noc, effort.failure_rate) for effort in found])
        pairs = zip(told, truths, strict=True)
        looks = [(click.seen / truth.size, click.seen / truth.sum()) for said, truth in pairs for click in said[1:]]
        seen[name] = np.reshape(looks, (-1, 2))
    return Effort(np.array(rows), seen)


def converse(
    predictor: Predictor,
    targets: Sequence[Target],
    said: Sequence[list[Click]],
    start: Sequence[Prediction],
    policy: Policy,
    clicks: int,
) -> NDArray[np.float64]:
    """IoUs [objects, clicks] after 1, 2 ... clicks; who has reached the last of TARGETS stops, and keeps what was reached.

    said: of each object the first click, to which the others are added; start: the answers to the first.
    """
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


def judge(efforts: dict[str, list[Effort]]) -> dict[str, object]:
    """The figures of the targets. efforts: by set, of its images."""
    tables = {name: np.stack([effort.clicks for effort in found]) for name, found in efforts.items()}
    means = np.mean([table.mean(0) for table in tables.values()], 0)
    draws = np.mean([bootstrap_means(table, name) for name, table in tables.items()], 0)  # (draws, policies, targets, 2)
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
        for name in POLICIES
        if name != "oracle"
    }
    ratio = ratios["next_click"]
    fewer = {name: bool(at[index["next_click"]] < at[index[name]]) for name in BEATEN}
    by_set = {
        name: dict(zip(POLICIES, (round(float(v), 2) for v in table[:, :, JUDGED, 0].mean(0)), strict=True))
        for name, table in tables.items()
    }
    missed = [f"ratio to the oracle {ratio.mean:.3f} > {LARGEST_RATIO}"] if ratio.mean > LARGEST_RATIO else []
    missed += [f"no fewer clicks than {name}" for name, less in fewer.items() if not less]
    return {
        "figures": {
            "sets": len(efforts),
            "images": sum(map(len, efforts.values())),
            **noc,
            "looked_at": {name: looked_at(efforts, name) for name in POLICIES},
            "ratio@85": {name: [round(value, 4) for value in (r.mean, r.low, r.high)] for name, r in ratios.items()},
            "by_set@85": by_set,
        },
        "targets": {"largest_ratio@85": LARGEST_RATIO, "fewer_than": list(fewer)},
        "missed": missed,
    }


def looked_at(efforts: dict[str, list[Effort]], policy: str) -> dict[str, float] | None:
    """For a click, as shares of the picture and of the object; None where the first click was always enough."""
    seen = [np.concatenate([effort.seen[policy] for effort in found]) for found in efforts.values()]
    means = [looks.mean(0) for looks in seen if len(looks)]
    if not means:
        return None
    picture, thing = np.mean(means, 0)
    return {"of_picture": float(f"{picture:.3g}"), "of_object": float(f"{thing:.3g}")}


if __name__ == "__main__":
    sys.exit(main())
