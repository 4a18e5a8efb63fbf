"""The targets of benchmarks/fuzz.py that the project has written itself and reads again: results, logs, labels that are done."""

from __future__ import annotations

import contextlib
import io
import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fuzz_mutations as mutate
import fuzz_seeds as seeds
import models
import torch
from fuzz_targets import Target, described, json_files

from ruac import cli
from ruac.bench import FORMAT as BENCH
from ruac.bench import NAMES
from ruac.bench import read as read_bench
from ruac.card import card
from ruac.data.convert import Manifest, Row
from ruac.data.folder import find_sets
from ruac.evaluate import calibration
from ruac.evaluate.pool import Pool
from ruac.evaluate.protocol import Protocol
from ruac.evaluate.results import Origin, ResultsFile, read_results
from ruac.evaluate.run import evaluate_sets
from ruac.label.part import FORMAT, SEAL, Folder, Label, Part, open_folder, sealed
from ruac.report.numbers import numbers
from ruac.report.read import compare, open_runs
from ruac.report.scores import Scores
from ruac.training.checkpoint import Position
from ruac.training.config import Stage, TrainConfig
from ruac.training.records import StepLog, write_validation
from ruac.video.results import PROGRESS, SETTINGS, STATE, Results, line_of

LINES: list[mutate.Mutation] = [mutate.lines_of_json_changed]
LOG = b'0,0,10.0,"{""iou1"": 0.5}"\n0,1,11.0,"{""iou1"": 0.6}"\n'
VALIDATION = b"0,1,squares,2,0.5000,0.6000,0.7000\n"


def result_targets(folder: Path) -> list[Target]:
    """folder: an empty one, for files on the way."""
    return [*_evaluations(folder), *_labels(), *_video(folder / "video"), *_training(), *_others(folder)]


def _evaluations(folder: Path) -> list[Target]:
    root = folder / "data" / "squares"
    for name, content in (("images", seeds.saved(seeds.colours(), "PNG")), ("masks", seeds.masks()[0])):
        (root / name).mkdir(parents=True)
        for number in range(2):
            (root / name / f"{number}.png").write_bytes(content)
    model, protocol = models.tiny(), Protocol((1,), max_objects=2)
    evaluate_sets(model, find_sets([root]), folder / "eval", protocol)
    files = {path.name: path.read_bytes() for path in (folder / "eval").iterdir()}
    rows, pool, summary = files["squares.jsonl"], files["squares.pool.safetensors"], files["summary.json"]
    described_by: dict[str, Any] = json.loads(summary)["origin"]
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in described_by.items()}
    origin = Origin(**fields)
    wanted = {"weights": "w", "protocol": {"clicks": [1]}, "sets": {"squares": ["0"]}}

    def report(path: Path) -> None:
        numbers(Scores(compare(open_runs([path]))))

    def make_card(path: Path) -> None:
        (path / "model").mkdir(exist_ok=True)
        (path / "model" / "model.safetensors").touch()
        with contextlib.redirect_stdout(io.StringIO()):
            card(path / "model", [path / "run"], path / "summary.json", [path / "data"])

    run = TrainConfig([Path("data")], Path("run"), [Stage(2, 64, images=2, objects=1)])
    settings = json.dumps({**asdict(run), "machine": "a machine", "processes": 1}, default=str).encode()
    trained = {"run/settings.json": settings, "run/log.csv": LOG, "run/validation.csv": VALIDATION}
    trained |= {"data/images/0.png": seeds.saved(seeds.colours(), "PNG"), "data/masks/0.png": seeds.masks()[0]}

    def card_of(name: str, file: str, valid: bytes, mutation: mutate.Mutation) -> Target:
        return Target(name, file, [valid], make_card, [mutation], 1, {**trained, "summary.json": summary}, culprit=False)

    return [
        Target(
            "results to go on with",
            "squares.jsonl",
            [rows],
            lambda path: ResultsFile(path / "squares.jsonl", "squares", origin),
            LINES,
            3,
            {"squares.pool.safetensors": pool},
            culprit=False,
        ),
        Target("results", "squares.jsonl", [rows], lambda path: read_results(path / "squares.jsonl"), LINES, 3),
        Target(
            "pool",
            "squares.pool.safetensors",
            [pool],
            lambda path: _measure(Pool.load(path / "squares.pool.safetensors")),
            [mutate.safetensors_changed],
            2,
            culprit=False,
        ),
        json_files(
            "summary", [summary], report, 2, others={"squares.jsonl": rows, "squares.pool.safetensors": pool}, culprit=False
        ),
        Target(
            "rows of a report",
            "squares.jsonl",
            [rows],
            report,
            LINES,
            1.5,
            {"summary.json": summary, "squares.pool.safetensors": pool},
            culprit=False,
        ),
        json_files(
            "temperatures",
            [described(wanted | {"temperatures": {"1": 1.5}})],
            lambda path: calibration._stored(path / "temperatures.json", wanted),
        ),
        card_of("summary of a card", "summary.json", summary, mutate.json_changed),
        card_of("settings of a card", "run/settings.json", settings, mutate.json_changed),
        card_of("log of a card", "run/log.csv", LOG, mutate.text_changed),
        card_of("validation of a card", "run/validation.csv", VALIDATION, mutate.text_changed),
    ]


def _measure(pool: Pool) -> None:
    for clicks in pool.clicks:
        for method in pool.methods:
            pool.histogram(method, "image", clicks).read()


def _labels() -> list[Target]:
    label = Label(1, "0" * 8, (0.0, 0.0, 4.0, 3.0), 12, 0.9, 0.8, 0.1, None, (3, 2, 1))
    part = Part("a", "key", "a.jpg", seeds.HEIGHT, seeds.WIDTH, (label, label), None)
    settings = {"ruac": "1", "model_sha256": "0", "quality": None, "everything": None, "calibration": None}

    def take_up(path: Path) -> None:
        open_folder(path, settings)

    return [
        Target(
            "part",
            "parts/a.json",
            [described(sealed(asdict(part)))],
            lambda path: Folder(path).load("a"),
            [mutate.json_changed, _sealed_again],
            4,
        ),
        json_files("settings", [described({"format": FORMAT, **settings})], take_up, 1.5, culprit=False),
    ]


def _video(folder: Path) -> list[Target]:
    results = Results.open(folder, settings := {"frames": 2})
    (folder / PROGRESS).write_text(line_of({"frame": 0}))
    results.save_state(1, {"memory": torch.zeros(2, 3)}, {"told": [[0, 1]]})
    progress, state = ((folder / name).read_bytes() for name in (PROGRESS, STATE))

    def go_on(path: Path) -> None:
        Results(path, 2).load_state()

    return [
        Target("state of a video", STATE, [state], go_on, [mutate.safetensors_changed], 2, {PROGRESS: progress}),
        Target("lines of a video", PROGRESS, [progress], go_on, LINES, 1, {STATE: state}, culprit=False),
        Target(
            "settings of a video",
            SETTINGS,
            [(folder / SETTINGS).read_bytes()],
            lambda path: Results.open(path, settings),
            [mutate.json_changed],
            1,
            culprit=False,
        ),
    ]


def _sealed_again(rng: random.Random, content: bytes) -> bytes:
    """Changed, and with a seal that fits, so that what lies behind the seal is tried, too."""
    changed = mutate.changed(rng, {key: value for key, value in json.loads(content).items() if key != SEAL})
    try:
        return described(sealed(json.loads(mutate.to_json(rng, changed))))
    except (TypeError, ValueError, RecursionError):  # no object of JSON any more, so there is nothing to be sealed
        return mutate.json_changed(rng, content)


def _training() -> list[Target]:
    def recipe(path: Path) -> None:
        """As the command line reads it, up to where training would begin."""
        words = ["--config", str(path / "recipe.yaml")]
        cli._parse("train", cli.COMMANDS["train"], None, words)

    def go_on(path: Path) -> None:
        with StepLog(path / "log.csv", Position(0, 1)):
            pass

    return [
        Target("recipe", "recipe.yaml", [seeds.RECIPE], recipe, [mutate.text_changed], 1, culprit=False),
        Target("log", "log.csv", [LOG], go_on, [mutate.text_changed], 1.5),
        Target(
            "validation",
            "validation.csv",
            [VALIDATION],
            lambda path: write_validation(path / "validation.csv", Position(0, 2), []),
            [mutate.text_changed],
            1.5,
        ),
    ]


def _others(folder: Path) -> list[Target]:
    settings: dict[str, Any] = {"domain": "trashcan", "seed": 0}
    manifest = Manifest(folder / "converted", settings)
    manifest.add(Row("a", "a.jpg", 7, 2, 0, 0))
    figure = {"median": 1.0, "low": 0.5, "high": 2.0}
    bench = {"format": BENCH, "model": "nano", "machine": "a machine", "figures": dict.fromkeys(NAMES, figure)}

    def go_on(path: Path) -> None:
        Manifest(path, settings)

    return [
        Target("convert", manifest.path.name, [manifest.path.read_bytes()], go_on, LINES, 2, culprit=False),
        json_files("bench", [described(bench)], lambda path: read_bench(path / "bench.json"), 1.5),
    ]
