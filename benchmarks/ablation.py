"""What each part of the recipe adds: the variants of the paper's table, trained alike, on one page.

    python benchmarks/ablation.py --out runs/ablation            # an hour and a half on two cores; goes on where it was stopped
    python benchmarks/ablation.py --out /tmp/quick --quick       # three variants, two steps, under 50 s: does it run?

Every variant starts from the embedded model's masks, its head from the beginning, and sees the same pictures and clicks for the same
number of steps, whatever a step costs: fewer than the shipped model's. Variants of the head leave all masks as they are. `plain` and
`lora` train masks and are judged by the entropy of their own logits. The page is written by `ruac report --ablation`. The last line is
one JSON object, with the command that makes the page again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from commands import evaluate, model_without_head, run

from ruac.machine import describe_machine

CONFIGS = Path(__file__).parents[1] / "configs"
STEPS, IMAGES, OBJECTS = 200, 6, 4  # of training; of each set, and of an image, in the evaluation


@dataclass(frozen=True)
class Variant:
    """recipe: a file of CONFIGS; options: of `ruac train`; method: by which it is judged."""

    name: str
    recipe: str
    options: tuple[str, ...]
    method: str = "head"


VARIANTS = (
    Variant("fine-tuned", "nano-plain", ("--method", "plain"), "plain"),
    Variant("LoRA", "nano-plain", ("--method", "lora"), "plain"),
    Variant("head alone", "nano-ruac", ("--attack", "none")),
    Variant("+ random style", "nano-ruac", ("--attack", "random-style")),
    Variant("+ style", "nano-ruac", ("--attack", "style")),
    Variant("+ deformation", "nano-ruac", ("--attack", "deformation")),
    Variant("+ cooperative", "nano-ruac", ()),
    Variant("cooperative, alignment none", "nano-ruac", ("--alignment", "none")),
    Variant("cooperative, alignment paper", "nano-ruac", ("--alignment", "paper")),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(os.environ.get("RUAC_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=root / "train", help="to train on")
    parser.add_argument("--eval-data", type=Path, nargs="+", default=[root / "eval"], help="to judge by")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="of Markdown; <out>/ablation.md if left out")
    parser.add_argument("--results", nargs="*", default=[], help="further rows, NAME=FOLDER@METHOD, of the same images")
    parser.add_argument("--quick", action="store_true", help="three variants, two steps, one image of two sets, under 50 s")
    options = parser.parse_args()
    steps, images = (2, 1) if options.quick else (STEPS, IMAGES)
    judged = [root / "eval" / name for name in ("crackforest", "grabcut13")] if options.quick else options.eval_data
    options.out.mkdir(parents=True, exist_ok=True)
    start = model_without_head(options.out / "start")
    rows = [f"plain={evaluated(options.out, 'start', start, judged, images)}@plain"]
    for variant in VARIANTS[::3] if options.quick else VARIANTS:
        folder = options.out / re.sub(r"\W+", "-", variant.name).strip("-")
        recipe = folder.with_suffix(".yaml")
        recipe.write_text(yaml.safe_dump(shortened(variant.recipe, steps, options.data, start)))
        run("train", *variant.options, "--config", recipe, "--out", folder)
        rows.append(f"{variant.name}={evaluated(options.out, folder.name, folder / 'model', judged, images)}@{variant.method}")
    page = options.page or options.out / "ablation.md"
    told = ("report", *rows, *options.results, "--ablation", page)
    run(*told)
    command = shlex.join(["ruac", *map(str, told)])
    print(
        json.dumps({"page": str(page), "command": command, "steps": steps, "quick": options.quick, "machine": describe_machine()})
    )
    return 0


def shortened(name: str, steps: int, data: Path, start: Path) -> dict[str, Any]:
    """A recipe of so many steps, from this model on."""
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    (stage,) = settings["stages"]
    stages = [{**stage, "steps": steps, "warmup": min(stage["warmup"], steps)}]
    return {**settings, "stages": stages, "data": [str(data)], "start": str(start), "validation_images": 2}


def evaluated(out: Path, name: str, model: Path, data: list[Path], images: int) -> Path:
    """The folder with the model's results."""
    results = out / f"results-{name}"
    words = ("--data", *data, "--model", model, "--methods", "head,plain", "--max-images", images, "--max-objects", OBJECTS)
    evaluate(*words, "--out", results)
    return results


if __name__ == "__main__":
    sys.exit(main())
