"""`ruac eval`: a model on data sets, click by click, resumable, by one process or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from ruac.checksums import sha256_of
from ruac.data.folder import FolderSet, find_sets
from ruac.errors import WorkError
from ruac.evaluate import baselines
from ruac.evaluate.calibration import refuse_evaluated, temperatures
from ruac.evaluate.clickfile import ClickFile, write_clicks
from ruac.evaluate.protocol import Protocol
from ruac.evaluate.results import read_results
from ruac.evaluate.run import Study, evaluate_sets, evaluate_share
from ruac.evaluate.shards import Crew, main_path
from ruac.evaluate.suite import find_suite
from ruac.evaluate.table import overview
from ruac.loading import load
from ruac.model import RuacModel, weights_sha256
from ruac.rivals.ensemble import NAME as ENSEMBLE
from ruac.rivals.ensemble import ensemble as ensemble_of
from ruac.rivals.ensemble import members
from ruac.rivals.registry import open_rivals
from ruac.writing import only_writer


def evaluate(
    data: list[Path],
    model: str = "nano",
    clicks: str = "1,3,5",
    max_objects: int = 10,
    out: Path = Path("runs/eval"),
    max_images: int | None = None,
    seed: int = 0,
    prompt: Literal["point", "box"] = "point",
    head: Path | None = None,
    device: str = "cpu",
    methods: str = "head,plain",
    calibration: list[Path] | None = None,
    noc: int | None = None,
    prompts: Path | None = None,
    save_prompts: Path | None = None,
    suite: str | None = None,
    rivals: list[Path] | None = None,
    ensemble: list[Path] | None = None,
) -> None:
    """Measure a model's masks and its uncertainty on labelled data.

    A simulated annotator clicks on every object and corrects the model's mask. Writes <out>/<set>.jsonl (a line an image), the pooled
    pixels of each set, summary.json and summary.md. A run that was stopped goes on where it was when started again.

    Example: ruac eval --data data/eval --model nano --clicks 1,3,5 --out runs/eval

    Several processes share the work, with the same results: torchrun --nproc-per-node 2 -m ruac eval ..., or accelerate launch
    --multi_gpu --num_processes 2 -m ruac eval --device cuda ...

    Args:
        data: Data sets (folders with images/ and masks/), or folders of them.
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM, or a file of original SAM 2 weights.
        clicks: After how many prompts to measure.
        max_objects: Objects an image, at most.
        out: Where the results go.
        max_images: Only so many images of each set, the first by name.
        seed: Chooses the objects where there are more than max_objects.
        prompt: The first prompt: a click at the centre of the object, or its bounding box.
        head: A head trained for that model, as a file.
        device: cpu, cuda, mps ...
        methods: Uncertainty methods to compare on the same masks: head, plain, tta, prompts, monte_carlo, predicted_iou, temperature,
            or all.
        calibration: Data sets to fit on what needs it (the method temperature); none of those evaluated.
        noc: Go on to so many clicks, such as 20, and tell how many a good mask takes.
        prompts: Prompts from a file, said whatever the masks, in place of the annotator's own.
        save_prompts: Write what was said to a file for --prompts, so that other models are told the same.
        suite: sa23-ruac, the paper's 23 sets as `ruac data convert` writes them, under --data; settings are fixed, and --max-images
            and --prompts are refused: for a trial on a few images give --data alone.
        rivals: Methods fitted to this model by `ruac train --method`, as files, to compare on the same masks.
        ensemble: Other models (folders), or other heads of this model (files): with it they are the method "ensemble", whose mean
            probability is compared on the masks of the model itself.

    Raises:
        ValueError: For settings that make no sense, files that do not fit the model, and results of another run in out.
        FileNotFoundError: When there is no data, no model or no such file.
        WorkError: At the end, when there were images that could not be read.
    """
    protocol = Protocol(parse_clicks(clicks), max_objects, seed, prompt, noc)
    names = parse_methods(methods)
    crew = Crew.of(device)
    console = Console(quiet=not crew.first)
    sets = _suite_sets(suite, data, protocol, max_images, prompts, console) if suite else find_sets(data)
    told = ClickFile.read(prompts) if prompts else None
    if told:
        told.check(sets, protocol)
    if save_prompts and not save_prompts.parent.is_dir():
        raise ValueError(f"--save-prompts {save_prompts}: there is no folder {save_prompts.parent}")
    loaded = load(model, crew.device, head=head)
    fitted = _fitted(names, calibration, sets, loaded, protocol, out, crew) if calibration else None
    typed = {"data": data, "head": [head], "calibration": calibration or [], "prompts": [prompts]}
    typed |= {"rivals": rivals or [], "ensemble": ensemble or []}
    paths = {option: tuple(str(path) for path in given if path) for option, given in typed.items() if any(given)}
    study = Study(baselines.methods(names, fitted), told, fitted, suite, paths=paths)
    study = _with_others(study, loaded, rivals or [], ensemble or [])
    if crew.size > 1:
        evaluate_share(loaded, sets, out, protocol, max_images, study, crew)
        if not crew.first:
            return
    with only_writer(out):
        summary = evaluate_sets(loaded, sets, out, protocol, max_images, name=model, study=study)
    if save_prompts:
        kept = {part.name: {sample.id for sample in part.samples[:max_images]} for part in sets}
        rows = ((name, [row for row in read_results(main_path(out, name)).rows if row.id in ids]) for name, ids in kept.items())
        write_clicks(save_prompts, protocol, rows)
    console.print(overview(summary).to_rich())
    console.print(f"Results: {out / 'summary.md'}, summary.json and a .jsonl file a set", soft_wrap=True)
    if summary.failed:
        raise WorkError("\n".join([f"{len(summary.failed)} images could not be read:", *summary.failed]))


def parse_clicks(text: str) -> tuple[int, ...]:
    """ "1,3,5" as numbers. Raises ValueError for anything else."""
    try:
        return tuple(int(n) for n in str(text).split(","))
    except ValueError:
        raise ValueError(f"clicks must be numbers with commas between them, such as 1,3,5, not {text!r}") from None


def parse_methods(text: str) -> tuple[str, ...]:
    """ "head,plain" as names, each once; "all" is all there are. Whether they are known is for `baselines.methods` to say."""
    return baselines.NAMES if text == "all" else tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def _suite_sets(
    name: str, data: Sequence[Path], protocol: Protocol, max_images: int | None, prompts: Path | None, console: Console
) -> list[FolderSet]:
    """Says which sets are missing. Raises ValueError for settings that the suite fixes, FileNotFoundError when all are missing."""
    suite = find_suite(name)
    suite.check(protocol, max_images, prompts)
    if len(data) != 1:
        raise ValueError(f"--data: the suite {name} lies in one folder, not {len(data)}")
    found = suite.open(data[0])
    if found.missing:
        console.print(f"{name}: {len(found.missing)} of {len(suite.domains)} sets are missing: {', '.join(found.missing)}")
    return list(found.sets)


def _with_others(study: Study, model: RuacModel, files: Sequence[Path], paths: Sequence[Path]) -> Study:
    """What was fitted to the model, and an ensemble that it is part of, beside the other methods.

    Raises ValueError and FileNotFoundError for what does not fit or is not there.
    """
    fitted = open_rivals(model, files)
    hashes = {name: sha256_of(file) for name, file in zip(fitted, files, strict=True)}
    together = members(model, paths) if paths else []
    return replace(
        study,
        methods={**study.methods, **fitted, **({ENSEMBLE: ensemble_of(together)} if together else {})},
        rivals=hashes or None,
        ensemble=tuple(weights_sha256(other) for other in together[1:]) or None,
    )


def _fitted(
    names: Sequence[str],
    calibration: Sequence[Path],
    sets: Sequence[FolderSet],
    model: RuacModel,
    protocol: Protocol,
    out: Path,
    crew: Crew,
) -> baselines.Temperatures:
    """Raises ValueError when no method needs it, and for sets that are evaluated, too."""
    if "temperature" not in names:
        raise ValueError("--calibration is for the method temperature: add it to --methods, or leave --calibration out")
    calibration_sets = find_sets(calibration)
    refuse_evaluated(calibration_sets, sets)
    return temperatures(model, calibration_sets, protocol, out, crew)
