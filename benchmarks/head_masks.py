"""Does the trained head cost accuracy? The embedded model with its head and with the plain one, on the same pictures and objects.

    python benchmarks/head_masks.py --data ../shared/data/eval            # 8 images a set, 3 objects an image
    python benchmarks/head_masks.py --data ../shared/data/eval --quick    # one image a set

The last line is one JSON object; the exit code is 1 when the mean IoU with the head is lower by more than the target allows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from ruac.data.folder import Sample, find_sets
from ruac.evaluate.protocol import Protocol, evaluate_image, read
from ruac.heads import PlainHead
from ruac.loading import load
from ruac.machine import describe_machine
from ruac.model import RuacModel

LARGEST_LOSS = 0.002  # of mean IoU, over sets and over 1, 3 and 5 clicks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("RUAC_DATA", "../shared/data")) / "eval"
    parser.add_argument("--data", type=Path, default=default, help="folder of sets")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--quick", action="store_true", help="one image a set, under 50 s")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    protocol = Protocol(clicks=(1, 3, 5), max_objects=2 if options.quick else 3)
    trained, plain = load(options.model), load(options.model)
    plain.head = PlainHead()
    rows = []
    for part in track(find_sets([options.data]), "comparing", console=Console(stderr=True)):
        samples = part.samples[: 1 if options.quick else 8]
        iou = [[mean_iou(model, sample, protocol) for model in (trained, plain)] for sample in samples]
        rows.append(np.nanmean(iou, 0))
    (with_head, without), largest = np.mean(rows, 0), float(np.max([np.max(b - a) for a, b in rows]))
    loss = float(np.mean(without - with_head))
    figures = {
        "iou_with_head": [round(float(v), 4) for v in with_head],
        "iou_plain": [round(float(v), 4) for v in without],
        "loss": round(loss, 5),
        "target": LARGEST_LOSS,
        "largest_loss_of_a_set": round(largest, 4),
        "sets": len(rows),
        "reached": loss <= LARGEST_LOSS,
        "quick": options.quick,
        "machine": describe_machine(),
    }
    print(json.dumps(figures))
    return 0 if loss <= LARGEST_LOSS else 1


def mean_iou(model: RuacModel, sample: Sample, protocol: Protocol) -> list[float]:
    """IoU after 1, 3 and 5 clicks, averaged over the objects of one picture; NaN when it has none."""
    result = evaluate_image(model, read(sample), protocol, methods={})
    return [float(np.mean([q.iou for q in result.after[n].quality])) if result.objects else float("nan") for n in protocol.clicks]


if __name__ == "__main__":
    sys.exit(main())
