"""Which masks are worth a look? Rank them by expected IoU and keep the best: what is kept must be good.

    python benchmarks/selective_labelling.py           # ten minutes on one core
    python benchmarks/selective_labelling.py --quick   # one picture a set, under 50 s: whether it runs, not whether it is good

Every object is prompted with its bounding box, each side moved by up to a tenth of the box's own. Of the masks of a set, the 80 % that
a ranking puts first are kept; their mean IoU is held against that of a ranking by chance (the mean of all) and by the true IoU (the
most that can be had). How much of the gap between these two a ranking closes is averaged over the sets. Rankings: `expected_iou`
(Prediction.expected_iou), `predicted_iou` (the decoder's own guess), `stability` (Segment Anything's score of that name) and
`closed_form` (the expected IoU by the pixels' probabilities alone). Correlations with the true IoU and the mean absolute error are
those of `ruac.evaluate.object_quality` within each set, averaged over the sets. 95 % intervals by drawing images anew within each set.
The last line is one JSON object; the exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ruac.data.folder import IGNORE, FolderSet, Sample, find_sets
from ruac.data.prompts import jittered_box
from ruac.evaluate.bootstrap import CONFIDENCE
from ruac.evaluate.metrics import iou
from ruac.evaluate.object_quality import object_quality
from ruac.evaluate.protocol import Protocol, choose_objects, read
from ruac.machine import describe_machine
from ruac.predictor import Prediction, Predictor, Prompt

KEPT = 0.8
BETTER_SHARE, LEAST_GAP = 0.75, 0.6
RANKINGS = ("expected_iou", "predicted_iou", "stability", "closed_form")
FIGURES = ("gap", "kept", "spearman", "pearson", "mae")
DRAWS = 200
FEWEST = 5  # masks of a set: fewer cannot be ranked
MARGIN = 1.0  # Segment Anything's own, in logits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("RUAC_DATA", "../shared/data")) / "eval"
    parser.add_argument("--data", type=Path, default=default, help="folder of sets")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--max-images", type=int, default=100, help="of each set, the first by name")
    parser.add_argument("--max-objects", type=int, default=10, help="of an image")
    parser.add_argument("--quick", action="store_true", help="one image a set, under 50 s")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    predictor, console = Predictor(options.model), Console(stderr=True)
    sets = find_sets([options.data])
    pictures = [(part, sample) for part in sets for sample in part.samples[: 1 if options.quick else options.max_images]]
    found: dict[str, list[NDArray[np.float64]]] = {part.name: [] for part in sets}
    for part, sample in track(pictures, "predicting", console=console, disable=not console.is_terminal):
        found[part.name] += masks_of(predictor, part, sample, options.max_objects)
    tables = {name: images for name, images in found.items() if sum(map(len, images)) >= FEWEST}
    figures = judge(tables, 2 if options.quick else DRAWS)
    calibrated = predictor.quality is not None
    if not calibrated:
        print(f"{options.model} has not been fitted by `ruac quality`: expected_iou is the closed form", file=sys.stderr)
    print(json.dumps({**figures, "calibrated": calibrated, "quick": options.quick, "machine": describe_machine()}))
    # single pictures say nothing about targets
    return 1 if figures["missed"] and not options.quick else 0


def masks_of(predictor: Predictor, part: FolderSet, sample: Sample, objects: int) -> list[NDArray[np.float64]]:
    """Of one picture: [masks, (true IoU, RANKINGS)], or nothing when it has no object."""
    labelled = read(sample)
    chosen = choose_objects(labelled.ids, labelled.id, Protocol(max_objects=objects))
    if not chosen:
        return []
    valid, truths = labelled.ids != IGNORE, [labelled.ids == i for i in chosen]
    rng = np.random.default_rng(zlib.crc32(f"{part.name}/{sample.id}".encode()))
    predictor.set_image(labelled.image)
    answers = predictor.predict_many([Prompt(box=_inside(jittered_box(truth, rng), truth.shape)) for truth in truths])
    rows = [[iou(a.masks[0], truth, valid), *rank(a)] for a, truth in zip(answers, truths, strict=True)]
    return [np.array(rows)]


def rank(answer: Prediction) -> list[float]:
    """What each of RANKINGS says."""
    low = answer.distribution.crop(answer.frame, answer.side)
    predicted = float(np.clip(answer.score, 0, 1))
    return [float(answer.expected_iou[0]), predicted, float(stability(low.prompt)[0]), float(low.expected_iou()[0])]


def stability(logit: Tensor) -> Tensor:
    """Segment Anything's stability score of masks [..., h, w]: IoU of those where the logit is above MARGIN and above -MARGIN."""
    sure, perhaps = ((logit > margin).sum((-2, -1)) for margin in (MARGIN, -MARGIN))
    return sure / perhaps.clamp_min(1)


def judge(tables: dict[str, list[NDArray[np.float64]]], draws: int) -> dict[str, object]:
    """The figures of the targets. tables: by set and picture, [masks, (true IoU, RANKINGS)]."""
    found = {name: of_masks(np.concatenate(images)) for name, images in tables.items()}
    means = np.nanmean(list(found.values()), 0)
    drawn = np.nanmean([bootstrap(name, images, draws) for name, images in tables.items()], 0)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    kept = {name: dict(zip(RANKINGS, table[:, FIGURES.index("kept")], strict=True)) for name, table in found.items()}
    better = float(np.mean([of["expected_iou"] >= of["predicted_iou"] for of in kept.values()]))
    gap = float(means[RANKINGS.index("expected_iou"), FIGURES.index("gap")])
    missed = []
    if better < BETTER_SHARE:
        missed.append(
            f"at least as good as the predicted IoU on {100 * better:.0f} % of the sets, not {100 * BETTER_SHARE:.0f} %"
        )
    if gap < LEAST_GAP:
        missed.append(f"closes {100 * gap:.0f} % of the gap, not {100 * LEAST_GAP:.0f} %")
    return {
        "figures": {
            "sets": len(tables),
            "images": sum(map(len, tables.values())),
            "masks": sum(len(image) for images in tables.values() for image in images),
            "better_or_equal_share": round(better, 4),
            **{
                ranking: {f: [round(float(v[r, k]), 4) for v in (means, low, high)] for k, f in enumerate(FIGURES)}
                for r, ranking in enumerate(RANKINGS)
            },
            "by_set": {
                name: {
                    ranking: {figure: _number(value) for figure, value in zip(FIGURES, row, strict=True)}
                    for ranking, row in zip(RANKINGS, table, strict=True)
                }
                for name, table in found.items()
            },
        },
        "targets": {"better_or_equal_share": BETTER_SHARE, "gap": LEAST_GAP},
        "missed": missed,
    }


def of_masks(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """[RANKINGS, FIGURES] of [masks, (true IoU, RANKINGS)]; NaN where nothing can be gained or all IoUs are the same."""
    true = table[:, 0]
    chance, best = true.mean(), kept_mean(true, true)
    rows = []
    for values in table[:, 1:].T:
        kept, quality = kept_mean(values, true), object_quality(values, true)
        gap = (kept - chance) / (best - chance) if best > chance else np.nan
        rows.append([gap, kept, quality.spearman, quality.pearson, quality.mae])
    return np.array(rows)


def kept_mean(values: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Mean IoU of the KEPT share of the masks with the highest values; at ties the first."""
    return float(true[np.argsort(-values, kind="stable")[: round(KEPT * len(true))]].mean())


def bootstrap(name: str, images: Sequence[NDArray[np.float64]], draws: int) -> NDArray[np.float64]:
    """[draws, RANKINGS, FIGURES] of pictures drawn with replacement."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.stack(
        [of_masks(np.concatenate([images[i] for i in rng.integers(len(images), size=len(images))])) for _ in range(draws)]
    )


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return round(float(value), 4) if np.isfinite(value) else None


def _inside(box: tuple[float, float, float, float], shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """The box with an area at least, where it has collapsed to a line at the border of the picture [height, width]."""
    x0, y0, x1, y1 = box
    x0, y0 = min(x0, shape[1] - 2), min(y0, shape[0] - 2)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


if __name__ == "__main__":
    sys.exit(main())
