"""`ruac quality`: how good a whole mask will be, learnt from labelled pictures and kept in the model's configuration.

What needs torch is imported by the functions that use it, so that help and misspelt commands are answered at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ruac import checksums
from ruac.errors import WorkError
from ruac.writing import only_writer, require_folder, write_whole

if TYPE_CHECKING:
    from rich.table import Table

    from ruac.data.folder import FolderSet
    from ruac.model import RuacModel
    from ruac.quality.examples import Examples
    from ruac.quality.fit import Fit

FEWEST, FEW = 2, 50  # pictures
FOLDS = 5  # of the pictures, where they are all of one set


@dataclass(frozen=True, eq=False)
class Survey:
    """parts: the examples of each picture that has an object, with the name of its set; failed: a line for each unreadable picture."""

    parts: tuple[tuple[str, Examples], ...]
    failed: tuple[str, ...]


def quality(
    data: list[Path],
    out: Path,
    model: str = "nano",
    head: Path | None = None,
    all_pictures: bool = False,
    max_images: int = 100,
    max_objects: int = 4,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Teach a model to tell how good its masks are: an expected IoU that is right on average, from labelled pictures.

    How much of a mask stays when all its logits are off together foretells its true IoU: a line through both is fitted, after one,
    three and five clicks and for boxes, on the pictures as they are and as other cameras would show them. A table says how well that
    works on sets that were not fitted on. The line, two numbers, is kept in the model's configuration; `ruac predict` and `ruac label`
    use it. Takes minutes on a CPU.

    Example: ruac quality --model runs/nano/model --data data/train --out runs/nano/model

    Args:
        data: Data sets (folders with images/ and masks/), or folders of them: those that the model was trained on, or like yours.
        out: Folder for the model with its line of quality. In its own folder only the configuration changes.
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM, or a file of original SAM 2 weights.
        head: A head trained for that model, as a file.
        all_pictures: Use all pictures, not only the one in twenty that training holds out: for sets that the model was not trained on.
        max_images: Pictures of each set, at most, the first by name.
        max_objects: Objects of a picture, at most.
        seed: Draws objects, boxes and what the pictures look like.
        device: cpu, cuda, mps ...

    Raises:
        ValueError: For settings that make no sense, too few pictures, and another model in out.
        FileNotFoundError: When there is no data or no model.
        WorkError: At the end, when there were pictures that could not be read, and when the model cannot be written.
    """
    for name, value in (("max-images", max_images), ("max-objects", max_objects)):
        if value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if seed < 0:
        raise ValueError(f"--seed must not be negative, as {seed} is")
    require_folder(out)

    from rich.console import Console

    from ruac.data.folder import find_sets
    from ruac.loading import load
    from ruac.training.model_folder import add_model

    sets = find_sets(data)
    own = own_folder(model)
    in_place = own is not None and out.is_dir() and out.samefile(own)
    refuse_out(out, in_place, head)
    loaded = load(model, device, head=head)
    console = Console(soft_wrap=True)
    found = survey(loaded, sets, all_pictures, max_images, max_objects, seed)
    if len(found.parts) < FEWEST:
        hint = "" if all_pictures else "; --all-pictures takes those, too, that training does not hold out"
        raise ValueError(
            f"--data: {len(found.parts)} pictures to fit on, it takes {FEWEST} at least, and {FEW} to be of use{hint}"
        )
    if len(found.parts) < FEW:
        console.print(f"Warning: only {len(found.parts)} pictures to fit on; {FEW} and more are good to have.")
    fitted = fit_survey(found)
    loaded.config.quality = fitted.quality.as_numbers()
    if in_place:
        with only_writer(out):
            change_configuration(out, fitted.quality.as_numbers())
    else:
        add_model(loaded, out)
    console.print(table(found, fitted))
    console.print(f"Fitted on {len(fitted.foretold)} masks of {len(found.parts)} pictures. Model: {out}")
    if found.failed:
        raise WorkError("\n".join([f"{len(found.failed)} pictures could not be read:", *found.failed]))


def own_folder(model: str) -> Path | None:
    """Where a model lies, None for one on the hub or a file."""
    from importlib.resources import files

    path = Path(str(files("ruac") / "weights" / "nano")) if model == "nano" else Path(model)
    return path if path.is_dir() else None


def refuse_out(out: Path, in_place: bool, head: Path | None) -> None:
    """Raises ValueError where writing to out would destroy or mix up something."""
    config = out / "config.json"
    if not config.is_file():
        return
    if not in_place:
        raise ValueError(f"--out {out}: holds another model; name a new folder")
    if head is not None:
        raise ValueError(f"--out {out}: the model there has a head of its own; with --head name a new folder")
    try:
        own = json.loads(config.read_bytes())["model_type"] == "ruac"
    except (ValueError, TypeError, KeyError, RecursionError):
        own = False
    if not own:
        raise ValueError(f"--out {out}: no RUAC model, its configuration has no place for quality; name a new folder")


def survey(
    model: RuacModel, sets: Sequence[FolderSet], all_pictures: bool, max_images: int, max_objects: int, seed: int
) -> Survey:
    """Ask the model about the pictures; a bar shows how far it is."""
    from rich.console import Console
    from rich.progress import track

    from ruac.evaluate.protocol import read
    from ruac.quality.examples import examples_of

    chosen = {part.name: [s for s in part.samples if all_pictures or s.held_out][:max_images] for part in sets}
    samples = [(name, sample) for name, part in chosen.items() for sample in part]
    console = Console(stderr=True)
    parts, failed = [], []
    for name, sample in track(samples, "clicking", console=console, transient=True, disable=not console.is_terminal):
        try:
            labelled = read(sample)
        except ValueError as error:
            failed.append(str(error))
            continue
        examples = examples_of(model, labelled, max_objects, seed)
        if examples is not None:
            parts.append((name, examples))
    return Survey(tuple(parts), tuple(failed))


def fit_survey(found: Survey) -> Fit:
    """Sets foretell each other, or the pictures of a single set do."""
    from ruac.quality.examples import Examples
    from ruac.quality.fit import fit

    several = len({name for name, _ in found.parts}) > 1
    groups = [
        name if several else str(number % FOLDS)
        for number, (name, examples) in enumerate(found.parts)
        for _ in range(len(examples))
    ]
    examples = Examples.join([examples for _, examples in found.parts])
    return fit(examples.shifted_iou, examples.iou, groups)


def table(found: Survey, fitted: Fit) -> Table:
    """Of every set: rank correlation with the true IoU, and mean error, of what the decoder guesses, the pixels say, and the fit."""
    from rich.table import Table

    from ruac.evaluate.object_quality import object_quality
    from ruac.quality.examples import Examples

    names = [name for name, examples in found.parts for _ in range(len(examples))]
    examples = Examples.join([examples for _, examples in found.parts])
    guesses = {
        "predicted IoU": examples.predicted_iou,
        "closed form": examples.expected_iou,
        "fitted elsewhere": fitted.foretold,
    }
    grid = Table("set", "masks", "mean IoU", *guesses, caption="rank correlation with the true IoU, mean error")
    grid.columns[0].no_wrap = True
    for part in dict.fromkeys(names):
        own = [name == part for name in names]
        measured = [object_quality(guess[own], examples.iou[own]) for guess in guesses.values()]
        cells = [f"{found.spearman:.2f}, {found.mae:.3f}" for found in measured]
        grid.add_row(part, str(sum(own)), f"{examples.iou[own].mean():.3f}", *cells)
    return grid


def change_configuration(folder: Path, numbers: dict[str, float]) -> None:
    """Put the numbers into a model's configuration; its weights stay as they are."""
    config = folder / "config.json"
    settings = json.loads(config.read_text()) | {"quality": numbers}
    # in this order a kill at any time leaves a folder that loads: one without checksums does
    (folder / checksums.FILE).unlink(missing_ok=True)
    write_whole(config, (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())
    checksums.write(folder)
