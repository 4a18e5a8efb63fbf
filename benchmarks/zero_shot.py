"""Zero-shot targets of the embedded model: masks good enough, never worse with more clicks, and doubt that beats plain entropy.

    python benchmarks/zero_shot.py --data ../shared/data/eval           # every image: half an hour on two cores, resumable
    python benchmarks/zero_shot.py --data ../shared/data/eval --quick   # one image a set: whether it runs, not whether it is good

The last line is one JSON object; the exit code is 1 when a target is missed. --quick judges the masks' mean alone: single images
say nothing about single sets.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from ruac.data.folder import find_sets
from ruac.evaluate.protocol import Protocol
from ruac.evaluate.run import evaluate_sets
from ruac.evaluate.summary import Summary
from ruac.loading import load
from ruac.machine import describe_machine

IOU_TARGETS = {1: 0.45, 3: 0.60, 5: 0.68}  # mean over the sets, thin networks apart
BETTER_SHARE = 0.75  # of the sets, where the head's AUROC of error detection must be above plain entropy's


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("RUAC_DATA", "../shared/data")) / "eval"
    parser.add_argument("--data", type=Path, default=default, help="folder of sets")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path, default=Path("runs/eval"), help="where results are kept, and gone on from")
    parser.add_argument("--quick", action="store_true", help="one image a set and two objects an image, under 50 s")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    protocol = Protocol(clicks=tuple(IOU_TARGETS), max_objects=2 if options.quick else 10)
    out = options.out / "quick" if options.quick else options.out
    sets = find_sets([options.data])
    summary = evaluate_sets(load(options.model), sets, out, protocol, max_images=1 if options.quick else None, name=options.model)
    figures = judge(summary)
    reached = figures["iou_reached"] and (options.quick or (figures["clicks_help"] and figures["head_reached"]))
    print(json.dumps({**figures, "reached": bool(reached), "quick": options.quick, "machine": describe_machine()}))
    return 0 if reached else 1


def judge(summary: Summary) -> dict[str, object]:
    """The figures of the targets. Sets of the group "stress" (thin networks) are left out of the means, not of the rest."""
    sets = [part for part in summary.sets if part.images]
    usual = [part for part in sets if part.group != "stress"]
    iou = {clicks: float(np.mean([part.measures[f"iou@{clicks}"].mean for part in usual])) for clicks in IOU_TARGETS}
    counts = sorted(IOU_TARGETS)
    worse = [
        f"{part.name}@{b}"
        for part in sets
        for a, b in pairwise(counts)
        if part.measures[f"iou@{b}"].mean < part.measures[f"iou@{a}"].mean
    ]
    everything = summary.groups[0]
    better = {clicks: everything.better[f"head.auroc.image@{clicks}"] for clicks in counts}
    return {
        "sets": len(sets),
        "images": sum(part.images for part in sets),
        "objects": sum(part.objects for part in sets),
        "iou": {clicks: round(value, 4) for clicks, value in iou.items()},
        "iou_targets": IOU_TARGETS,
        "iou_reached": all(iou[clicks] >= target for clicks, target in IOU_TARGETS.items()),
        "sets_worse_with_more_clicks": worse,
        "clicks_help": not worse,
        "head_better_share": {clicks: round(value, 4) for clicks, value in better.items()},
        "head_better_target": BETTER_SHARE,
        "head_reached": all(share >= BETTER_SHARE for share in better.values()),
    }


if __name__ == "__main__":
    sys.exit(main())
