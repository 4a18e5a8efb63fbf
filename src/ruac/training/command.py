"""`ruac train`: a recipe from a file, a head for a Segment Anything model that you have, or what these are compared with.

What is slow to import is imported by the functions that use it, so that help and misspelt commands are answered at once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ruac.errors import WorkError
from ruac.training.config import MethodConfig, Stage, TrainConfig
from ruac.training.recipes import Alignment, member, segmentation_alone, with_alignment, with_attack
from ruac.writing import require_folder


def recipe(config: TrainConfig, attack: str | None = None, alignment: Alignment | None = None) -> None:
    """Train a model from a recipe, or fit an uncertainty head to a Segment Anything model that you have.

    A head, on 50 to 500 labelled pictures, in minutes on a CPU:

    Example: ruac train --method head --model facebook/sam2.1-hiera-small --data my_set --out runs/my-head
    (its options: ruac train --method head --help)

    A recipe trains what it says, masks and uncertainty; the options below change its settings. After an interruption run the same
    command again to go on. On several GPUs: accelerate launch --num_processes 8 -m ruac train --config FILE

    Example: ruac train --config configs/nano.yaml

    Methods to compare with, each with a help of its own: --method laplace, evidential and dropout are fitted to a model as a head is;
    plain, lora and ensemble change a recipe.

    Args:
        attack: Another attack in every stage that attacks, one that `ruac attack` knows; none: no attacked pictures at all.
        alignment: Another alignment in every stage that trains the uncertainty.
    """
    from ruac.training.loop import train

    train(_changed(config, attack, alignment))


def plain(config: TrainConfig) -> None:
    """Fine-tune as a recipe does, on segmentation alone: what every other method has to beat.

    The pictures, clicks, steps and rates are the recipe's. Its attack, alignment and divergence are left out, and so are stages that
    train the head alone. Resumable, and on several GPUs, as the recipe itself.

    Example: ruac train --method plain --config configs/nano-ruac.yaml --out runs/plain
    """
    from ruac.training.loop import train

    train(segmentation_alone(config))


def lora(config: TrainConfig, rank: int = 8) -> None:
    """Fine-tune as --method plain does, but low-rank adapters alone (LoRA); what is written is a model like any other.

    Example: ruac train --method lora --config configs/nano-ruac.yaml --out runs/lora

    Args:
        rank: Of the adapters.
    """
    from ruac.rivals import lora as adapters
    from ruac.training.loop import train

    variant = adapters.lora(rank, config.seed)
    train(MethodConfig.of(segmentation_alone(config), variant.name), variant)


def ensemble(config: TrainConfig, members: int = 3, attack: str | None = None, alignment: Alignment | None = None) -> None:
    """Train the models of a deep ensemble: one recipe with several seeds, one after the other.

    Writes <out>/member-0/model, <out>/member-1/model ... for `ruac eval --model OUT/member-0/model --ensemble OUT/member-1/model ...`,
    and <out>/model, one model with the mean of their weights, for use in their place where all have started from the same one.
    After an interruption run the same command again to go on.

    Example: ruac train --method ensemble --config configs/nano-ruac.yaml --out runs/ensemble --members 3

    Args:
        members: How many; their seeds are the recipe's, and the numbers after it.
        attack: As of ruac train --config.
        alignment: As of ruac train --config.
    """
    if members < 2:
        raise ValueError(f"--members must be at least 2, not {members}: one model agrees with itself")

    from accelerate import PartialState

    from ruac.training.loop import train
    from ruac.training.model_folder import average, write_model

    changed = _changed(config, attack, alignment)
    models = [train(member(changed, number)) for number in range(members)]
    if PartialState().is_main_process:
        write_model(average(models), config.out / "model", "run the same command again, all members are kept")


def rival(
    method: str,
    data: list[Path],
    out: Path,
    model: str = "nano",
    steps: int = 200,
    images: int = 3,
    objects: int = 4,
    rate: float = 3e-3,
    weights: dict[str, float] | None = None,
    seed: int = 0,
    workers: int = 0,
    device: str = "cpu",
) -> None:
    """Fit an uncertainty method to a frozen Segment Anything model, to compare a head with: laplace, evidential or dropout.

    On the pictures and clicks that a head learns from: whole photographs, half of them in another style. One picture in twenty, chosen
    by its name, is held out: laplace and dropout choose a number on those. Writes one .safetensors file.

    Example: ruac train --method laplace --model nano --data my_sets --out runs/laplace.safetensors
    Example: ruac eval --data other_sets --model nano --rivals runs/laplace.safetensors

    Args:
        data: Data sets (folders with images/ and masks/), folders of them, or videos as DAVIS and MOSE have them.
        out: The file, or a folder for <method>.safetensors.
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM, or a file of original SAM 2 weights.
        steps: How many times so many images are looked at; of held-out ones, a tenth.
        images: Pictures of a step.
        objects: Objects of a picture that are asked about.
        rate: Peak learning rate, of evidential.
        weights: How often each set is drawn, by its name, such as '{"coco_mix": 3}'; others 1.
        seed: Chooses pictures, objects and clicks.
        workers: Processes that make the pictures.
        device: cpu, cuda, mps ...

    Raises:
        ValueError: For settings that make no sense, and too few pictures to hold one out.
        FileNotFoundError: When there is no data or no model.
    """
    for name, value in (("steps", steps), ("images", images), ("objects", objects)):
        if value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if not rate > 0:
        raise ValueError(f"--rate must be more than 0, not {rate:g}")
    file = out if out.suffix == ".safetensors" else out / f"{method}.safetensors"
    require_folder(file.parent)

    import warnings

    from ruac.data.scenes import SceneConfig
    from ruac.loading import load
    from ruac.rivals.lessons import Lessons
    from ruac.rivals.registry import FITS
    from ruac.training.sources import open_sources

    sets = open_sources(data)
    # these methods have no use for a head
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        loaded = load(model, device).requires_grad_(False)
    stage = Stage(steps=steps, images=images, objects=objects, rate=rate, warmup=steps // 20, pictures="photographs")
    FITS[method](loaded, sets, file, Lessons(stage, SceneConfig(weights=weights or {}), seed, workers))
    print(f"Fitted: {file}\nCompare it: ruac eval --data OTHER_SETS --model {model} --rivals {file}")


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


def _changed(config: TrainConfig, attack: str | None, alignment: Alignment | None) -> TrainConfig:
    changed = config if attack is None else with_attack(config, attack)
    return changed if alignment is None else with_alignment(changed, alignment)
