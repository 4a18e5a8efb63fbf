"""How the numbers came about: settings, models, machine, versions, and what to type to get them again."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import version

from ruac.report.blocks import Block, Cell, Listing, Section, Table
from ruac.report.read import ENSEMBLE, Comparison, Run

PACKAGES = ("ruac", "torch", "transformers", "numpy", "scipy", "matplotlib")
OPTIONS = {"clicks": "--clicks", "max_objects": "--max-objects", "seed": "--seed", "prompt": "--prompt"}
EXTRA = {"noc": "--noc"}
HEADS = {True: "trained", False: "not trained: the method 'head' is plain entropy", None: "not recorded whether trained"}


def settings(comparison: Comparison, command: str, made: str) -> Section:
    """command: what was typed to make the report; made: when and where."""
    blocks: list[Block] = [
        _table(comparison),
        Listing(
            "What to type",
            (*(evaluation(run) for run in comparison.runs), command),
            commands=True,
            notes=(
                "The evaluations' commands follow from the recorded settings and from the folders as they were typed. --device is not "
                "recorded; results of older versions do not tell their folders, files and --max-images. Words in capitals stand for "
                "what is not recorded.",
            ),
        ),
        Listing("This page", (made, f"Python {platform.python_version()}", ", ".join(f"{p} {version(p)}" for p in PACKAGES))),
    ]
    for run in comparison.runs:
        failed = tuple(line for part in run.summary["sets"] for line in part.get("failed", ()))
        if failed:
            blocks.append(Listing(f"{run.label}: images that could not be read ({len(failed)})", failed, folded=True))
    return Section("settings", "Settings, and how to get these numbers again", (), tuple(blocks))


def evaluation(run: Run) -> str:
    """The command that gives such results again."""
    words = ["ruac", "eval", *_paths(run, "data", ["DATA"]), "--model", run.model, *_paths(run, "head", [])]
    # a suite fixes the other settings, and refuses to be told them
    words += ["--suite", run.suite] if run.suite else []
    words += ["--max-images", str(run.max_images)] if run.max_images else []
    for key, option in (EXTRA if run.suite else OPTIONS | EXTRA).items():
        value = run.origin[key]
        if value is not None:
            words += [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    fitted, members = run.origin.get("rivals") or {}, run.origin.get("ensemble") or []
    words += ["--methods", ",".join(name for name in run.methods if name not in fitted and not (members and name == ENSEMBLE))]
    words += _paths(run, "rivals", [f"{name}.safetensors".upper() for name in fitted])
    words += _paths(run, "ensemble", [f"MODEL{number}" for number, _ in enumerate(members, 1)])
    words += _paths(run, "prompts", ["CLICKS"]) if run.origin["prompts"] else []
    words += _paths(run, "calibration", run.calibration or ["CALIBRATION"]) if run.origin["temperatures"] else []
    return shlex.join([*words, "--out", str(run.folder)])


def _paths(run: Run, option: str, otherwise: Sequence[str]) -> list[str]:
    """The option as it was typed."""
    found = run.paths.get(option, otherwise)
    return [f"--{option}", *found] if found else []


def _table(comparison: Comparison) -> Table:
    runs = comparison.runs
    lines: list[tuple[str, list[str]]] = [
        ("model", [run.model for run in runs]),
        ("weights, sha256", [str(run.origin["weights"]) for run in runs]),
        ("results in", [str(run.folder) for run in runs]),
        ("measured with ruac", [run.version for run in runs]),
        ("head", [HEADS[run.head_trained] for run in runs]),
        ("methods", [", ".join(run.methods) for run in runs]),
        ("measured after … prompts", [", ".join(map(str, run.clicks)) for run in runs]),
        ("first prompt", [str(run.origin["prompt"]) for run in runs]),
        ("objects an image, at most", [f"{run.origin['max_objects']} (seed {run.origin['seed']})" for run in runs]),
        ("images of each set", [_images(run) for run in runs]),
        ("clicks", [run.clicked for run in runs]),
        ("clicks tried for NoC", [str(run.origin["noc"] or "–") for run in runs]),
        ("suite", [run.suite or "–" for run in runs]),
        ("fitted temperatures", [_temperatures(run) for run in runs]),
        ("fitted methods, sha256 of the files", [_fitted(run) for run in runs]),
        ("ensemble with, sha256 of the weights", [", ".join(run.origin.get("ensemble") or ()) or "–" for run in runs]),
        ("costs measured on", [str((run.summary.get("cost") or {}).get("machine") or "not measured") for run in runs]),
    ]
    header = (Cell("setting"), *(Cell(run.label) for run in runs))
    notes = ("The hash is of all parameters: equal hashes are equal models, whatever they are called.",)
    return Table("Settings", header, tuple((Cell(name), *map(Cell, values)) for name, values in lines), notes, prose=True)


def _fitted(run: Run) -> str:
    return ", ".join(f"{name} {sha256}" for name, sha256 in (run.origin.get("rivals") or {}).items()) or "–"


def _images(run: Run) -> str:
    if run.max_images:
        return f"at most {run.max_images}, the first by name"
    return "all" if "max_images" in run.summary else "not recorded"


def _temperatures(run: Run) -> str:
    fitted = run.origin["temperatures"] or {}
    values = ", ".join(f"{value:.3g} after {prompts}" for prompts, value in fitted.items())
    return f"{values}, fitted on {', '.join(run.calibration) or 'sets not recorded'}" if values else "–"
