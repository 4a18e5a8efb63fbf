"""`ruac train`: a recipe from a file, or a head for a Segment Anything model that you have.

What is slow to import is imported by the functions that use it, so that help and misspelt commands are answered at once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ruac.errors import WorkError
from ruac.training.config import TrainConfig
from ruac.writing import require_folder


def recipe(config: TrainConfig) -> None:
    """Train a model from a recipe, or fit an uncertainty head to a Segment Anything model that you have.

    A head, on 50 to 500 labelled pictures, in minutes on a CPU:

    Example: ruac train --method head --model facebook/sam2.1-hiera-small --data my_set --out runs/my-head
    (its options: ruac train --method head --help)

    A recipe trains what it says, masks and uncertainty; the options below change its settings. After an interruption run the same
    command again to go on. On several GPUs: accelerate launch --num_processes 8 -m ruac train --config FILE

    Example: ruac train --config configs/nano.yaml
    """
    from ruac.training.loop import train

    train(config)


def head(
    data: list[Path],
    out: Path,
    model: str = "nano",
    objects: int = 3,
    steps: int = 200,
    rate: float = 3e-3,
    max_images: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    keep_cache: bool = False,
) -> None:
    """Fit an uncertainty head to a frozen Segment Anything model, on labelled pictures of yours; its masks stay what they are.

    Every picture is encoded once. A simulated annotator clicks on its objects, and the head learns where the model's own answers are
    wrong. A fifth of the pictures is held out, and a fifth of the rest says when to stop. Writes head.safetensors (under a megabyte),
    and report.md and report.json: plain entropy against the fitted head on the pictures that were held out. A run that was stopped
    goes on where it was when started again.

    Example: ruac train --method head --model facebook/sam2.1-hiera-small --data my_set --out runs/my-head

    Args:
        data: Data sets (folders with images/ and masks/), or folders of them.
        out: Where head, report and, while it runs, what the model has made of the pictures go.
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM, or a file of original SAM 2 weights.
        objects: Objects of a picture that are asked about; disk grows with it.
        steps: Steps at most; it stops earlier when nothing is gained any more.
        rate: Peak learning rate.
        max_images: Only so many pictures of each set, the first by name.
        seed: Chooses objects, clicks and the order of the pictures.
        device: cpu, cuda, mps ...
        keep_cache: Keep out/cache: once fit.safetensors and evaluation/ are removed, another run in this folder encodes nothing anew.

    Raises:
        ValueError: For settings that make no sense, a model whose head is of another kind, a full disk, and results of another run.
        FileNotFoundError: When there is no data or no model.
        WorkError: At the end, when there were pictures that could not be read.
    """
    for name, value in (("objects", objects), ("steps", steps), ("max-images", max_images)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if not rate > 0:
        raise ValueError(f"--rate must be more than 0, not {rate:g}")
    require_folder(out)

    from rich.console import Console

    from ruac.training.fit import FitConfig
    from ruac.training.head_run import HeadRun, run_head

    stage = replace(FitConfig().stage, steps=steps, rate=rate, objects=objects)
    run = HeadRun(data, out, model, FitConfig(stage, seed), max_images, device, keep_cache)
    failed = run_head(run, Console(soft_wrap=True))
    if failed:
        raise WorkError("\n".join([f"{len(failed)} pictures could not be read:", *failed]))
