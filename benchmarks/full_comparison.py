"""Every method on every set, from fitting the rivals to the report, by one command.

    python benchmarks/full_comparison.py --out runs/comparison           # three quarters of an hour on two cores; resumable
    python benchmarks/full_comparison.py --out /tmp/quick --quick        # few steps, one image, the cheap methods: does it run?

Fits what has to be fitted to the embedded model, on the training sets: last-layer Laplace, Monte Carlo dropout and an evidential
network, and two heads more for an ensemble of heads on one decoder; temperatures on the pictures that training holds out. Then
`ruac eval` judges all on the same masks, by a process a core, and `ruac report` writes the page. Of each set the first images by name
are taken, for several methods cost ten clicks a click. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from commands import evaluate, model_without_head, run

from ruac.data.folder import find_sets
from ruac.machine import describe_machine

STEPS = {"laplace": 60, "dropout": 60, "evidential": 150}
HEADS, HEAD_STEPS, HEAD_IMAGES = (1, 2), 200, 40  # seeds; steps at most; pictures of each set
METHODS = "head,plain,temperature"  # the cheap ones that need no fitting, or a quick one
IMAGES, OBJECTS, CLICKS = 6, 4, 20  # of each set, of an image, of an object


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(os.environ.get("RUAC_DATA", "../shared/data"))
    parser.add_argument("--train", type=Path, default=root / "train", help="folder of the sets that methods are fitted on")
    parser.add_argument("--data", type=Path, nargs="+", default=[root / "eval"], help="sets, or folders of sets, to judge by")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=IMAGES, help="of each set")
    parser.add_argument("--quick", action="store_true", help="few steps, one image, the cheap methods")
    options = parser.parse_args()
    quick, out = options.quick, options.out
    data = [root / "eval" / "grabcut13"] if quick else options.data
    steps = {"dropout": 2} if quick else STEPS
    rivals = [fitted(method, options.train, out / f"{method}.safetensors", count) for method, count in steps.items()]
    heads = [another_head(seed, options.train, out, quick) for seed in HEADS[: 1 if quick else None]]
    held_out = link_held_out(options.train, out / "held_out")
    limits = ("--max-images", 1 if quick else options.images, "--max-objects", 1 if quick else OBJECTS)
    words = (
        "--data",
        *data,
        "--model",
        "nano",
        "--methods",
        METHODS if quick else "all",
        "--noc",
        5 if quick else CLICKS,
        *limits,
    )
    fits = ("--calibration", *held_out, "--rivals", *rivals, "--ensemble", *heads)
    evaluate(*words, *fits, "--out", out / "results")
    run("report", out / "results", *(word for folder in data for word in ("--data", folder)), "--out", out / "report")
    print(json.dumps({"report": str(out / "report" / "report.html"), "quick": quick, "machine": describe_machine()}))
    return 0


def fitted(method: str, train: Path, file: Path, steps: int) -> Path:
    if not file.is_file():
        run("train", "--method", method, "--data", train, "--steps", steps, "--out", file)
    return file


def another_head(seed: int, train: Path, out: Path, quick: bool) -> Path:
    """One more head for the embedded decoder, from its start; without the attack, which the embedded one has seen."""
    start, folder = model_without_head(out / "start"), out / f"head-{seed}"
    limits = ("--steps", 2 if quick else HEAD_STEPS, "--max-images", 1 if quick else HEAD_IMAGES)
    run("train", "--method", "head", "--model", start, "--data", train, *limits, "--seed", seed, "--out", folder)
    return folder / "head.safetensors"


def link_held_out(train: Path, folder: Path) -> list[Path]:
    """The sets of the pictures that training holds out, as links to their files."""
    for part in find_sets([train]):
        for sample in part.samples:
            for kind, file in (("images", sample.image), ("masks", sample.mask)):
                link = folder / part.name / kind / file.name
                if sample.held_out and not link.exists():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(file.resolve())
    return sorted(folder.iterdir())


if __name__ == "__main__":
    sys.exit(main())
