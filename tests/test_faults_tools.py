"""As test_faults.py, of the commands that fit, measure, export and show: full disks, read-only folders, kills, Ctrl-C, two at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faulty import GRAPHS, Disk, Processes, ending, files, full_from, leftovers, mounted, run
from label_sets import cell, set_of
from PIL import Image
from squares import write_set

import ruac.training.loop
import ruac.writing
from ruac.exchange import coco
from ruac.writing import locked, only_writer

Words = Callable[[Path], list[str]]
RECIPES = ("lora", "plain", "ensemble")
FITS = ("laplace", "dropout", "evidential")
SHOWN = ("report", "ablation", "card", "attack", "check", "yolo", "cvat")
ALL = ("head", *RECIPES, *FITS, "tune", "video", "calibrate", "quality", "export", "bench", *SHOWN)
STAGE = {"steps": 2, "image_size": 64, "images": 2, "objects": 1, "warmup": 0}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in `Processes`: sums depend in their last bit on how many share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def inputs(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """few/ and many/: labelled sets; frames/: of a film; results/: of `ruac eval`; run/: of `ruac train`; labels.json."""
    root = tmp_path_factory.mktemp("inputs")
    write_set(root / "few", 6)
    write_set(root / "many", 40)
    (root / "frames").mkdir()
    for i in range(4):
        frame = np.full((48, 64, 3), 20 + 4 * i, np.uint8)
        frame[16:32, 10 + i : 26 + i] = 255
        Image.fromarray(frame).save(root / "frames" / f"{i}.png")
    (root / "labels.json").write_bytes(coco.write(set_of(cell((40, 56)), name="0.png"), "mask", 0.0))
    data = ["--data", str(root / "few"), "--model", str(tiny_model_folder)]
    assert run(["eval", *data, "--clicks", "1", "--out", str(root / "results")]) == 0
    assert run(["train", "--config", recipe(root / "run", root, tiny_model_folder)]) == 0
    return root


def settings(out: Path, root: Path, model: Path) -> dict:
    values = {"data": [str(root / "many")], "out": str(out), "start": str(model), "image_size": 64, "workers": 0}
    return {**values, "validation_images": 1, "checkpoint_minutes": 0.0, "scenes": {"smallest": 10.0}, "stages": [STAGE]}


def recipe(out: Path, root: Path, model: Path) -> str:
    file = root / f"recipe.{len(list(root.glob('recipe.*')))}.yaml"
    file.write_text(json.dumps(settings(out, root, model)))
    return str(file)


@pytest.fixture(scope="module")
def words(inputs: Path, tiny_model_folder: Path) -> Callable[[str], Words]:
    """Of a command, what to type for an output folder, in which what the command asks for is made."""
    model, few = ["--model", str(tiny_model_folder)], inputs / "few"
    pair = [str(few / kind / "0.png") for kind in ("images", "masks")]

    def method(name: str, *more: str) -> Words:
        return lambda out: ["train", "--method", name, *more, "--config", recipe(out, inputs, tiny_model_folder)]

    def fit(name: str) -> Words:
        few_steps = ["--data", str(inputs / "many"), "--steps", "2", "--images", "2", "--objects", "1"]
        return lambda out: ["train", "--method", name, *model, *few_steps, "--out", str(out)]

    def tune(out: Path) -> list[str]:
        search = {"train": settings(out / "best", inputs, tiny_model_folder), "out": str(out), "trials": 2, "images": 1}
        search |= {"space": {"rates": {"low": 0.5, "high": 2.0}}, "shifts": 0, "validations": 1, "clicks": [1], "max_objects": 1}
        file = inputs / f"tune.{len(list(inputs.glob('tune.*')))}.yaml"
        file.write_text(json.dumps(search))
        return ["tune", "--config", str(file)]

    def card(out: Path) -> list[str]:
        if not (out / "config.json").exists():
            shutil.copytree(tiny_model_folder, out, dirs_exist_ok=True)
        run = [
            "--training",
            str(inputs / "run"),
            "--summary",
            str(inputs / "results" / "summary.json"),
            "--data",
            str(inputs / "many"),
        ]
        return ["card", "--model", str(out), *run]

    def check(out: Path) -> list[str]:
        if not (out / "images").exists():
            write_set(out)
        return ["data", "check", str(out)]

    def convert(to: str, name: str, *more: str) -> Words:
        return lambda out: ["convert-labels", str(inputs / "labels.json"), "--to", to, *more, "--out", str(out / name)]

    results, on_few = str(inputs / "results"), ["--data", str(few), *model]
    commands: dict[str, Words] = {
        "head": lambda out: ["train", "--method", "head", *on_few, "--steps", "2", "--objects", "1", "--out", str(out)],
        "lora": method("lora", "--rank", "1"),
        "plain": method("plain"),
        "ensemble": method("ensemble", "--members", "2"),
        **{name: fit(name) for name in FITS},
        "tune": tune,
        "video": lambda out: ["video", str(inputs / "frames"), "--point", "18,24", *model, "--out", str(out)],
        "calibrate": lambda out: ["calibrate", *on_few, "--alpha", "0.5", "--out", str(out / "calibration.json")],
        "quality": lambda out: ["quality", *on_few, "--all-pictures", "--max-objects", "1", "--out", str(out)],
        "export": lambda out: ["export", *model, "--calibration-images", str(few / "images"), "--out", str(out / "exported")],
        "bench": lambda out: ["bench", *model, "--rounds", "2", "--out", str(out / "bench.json")],
        "report": lambda out: ["report", results, "--out", str(out)],
        "ablation": lambda out: ["report", f"{results}@plain", results, "--ablation", str(out / "ablation.md")],
        "card": card,
        "attack": lambda out: ["attack", *pair, "--kind", "noise", "--steps", "1", *model, "--out", str(out)],
        "check": check,
        "yolo": convert("yolo", ".", "--images", str(few / "images")),
        "cvat": convert("cvat", "labels.xml"),
    }

    def type_for(name: str) -> Words:
        def typed(out: Path) -> list[str]:
            out.mkdir(exist_ok=True)
            return commands[name](out)

        return typed

    return type_for


@pytest.fixture(scope="module")
def whole(words: Callable[[str], Words], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    """Of a command, what it writes when nothing happens."""
    known: dict[str, dict[str, bytes]] = {}

    def of(name: str) -> dict[str, bytes]:
        if name not in known:
            out = tmp_path_factory.mktemp("whole")
            assert run(words(name)(out)) == 0
            known[name] = files(out)
        return known[name]

    return of


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes() as found:
        yield found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk") as found:
        yield found


def refused(typed: list[str], capfd: pytest.CaptureFixture[str], code: int = 1) -> str:
    """The one line that a command says as it fails."""
    capfd.readouterr()
    assert run(typed) == code
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("ruac: ")
    return line


def read_only_is_told(line: str) -> bool:
    return "Read-only file system" in line or "unable to open database file" in line


def full_is_told(line: str) -> bool:
    return "No space left on device" in line or "database or disk is full" in line


def assert_full_is_told(typed: list[str], out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In a line that names what is in `out`, where nothing half written stays."""
    line = refused(typed, capfd)
    assert str(out) in line
    assert full_is_told(line)
    assert leftovers(out) == []


@pytest.mark.parametrize("command", ALL)
def test_a_full_disk_is_told_in_a_line_and_all_is_as_ever_once_there_is_room(
    command: str,
    words: Callable[[str], Words],
    whole: Callable[[str], dict[str, bytes]],
    disk: Disk,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = disk.place / "out"
    typed = words(command)(out)
    filler = disk.fill(0)
    assert_full_is_told(typed, out, capfd)
    filler.unlink()
    if command in (*FITS, "calibrate", *SHOWN):  # of the others there are tests below
        assert run(typed) == 0
        assert files(out) == whole(command)


@pytest.mark.parametrize(
    ("command", "then", "left"),
    [
        ("head", "ruac.training.head_run.save_head", 0),
        ("lora", "ruac.training.loop.write_model", 100 * 1024),  # room for the configuration, not for the weights
        ("ensemble", "ruac.training.model_folder.write_model", 100 * 1024),
        ("video", "ruac.video.movie.write_movie", 4 * 1024),
        ("quality", "ruac.training.model_folder.add_model", 100 * 1024),
        ("export", "ruac.export.command.write", 150 * 1024),  # for one graph of the two
    ],
)
def test_a_disk_that_becomes_full_at_the_end_keeps_no_half_of_the_result(
    command: str,
    then: str,
    left: int,
    words: Callable[[str], Words],
    whole: Callable[[str], dict[str, bytes]],
    disk: Disk,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = disk.place / "out"
    typed = words(command)(out)
    with full_from(then, disk, left):
        assert_full_is_told(typed, out, capfd)
    assert all(content == whole(command).get(name, content) for name, content in files(out).items())
    assert run(typed) == 0
    assert files(out) == whole(command)


@pytest.mark.parametrize("left", [0, 100 * 1024])
def test_a_search_stops_at_a_full_disk_and_goes_on_with_the_same_trial(
    left: int, words: Callable[[str], Words], disk: Disk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With no room not even the database can say so."""
    out = disk.place / "out"
    typed = words("tune")(out)
    real, begun = ruac.training.loop.train, []

    def train(*arguments: Any) -> Path:
        begun.append(arguments)
        if len(begun) == 2:
            disk.fill(left)
        return real(*arguments)

    monkeypatch.setattr(ruac.training.loop, "train", train)
    assert full_is_told(refused(typed, capfd))
    (disk.place / "filler").unlink()
    assert run(typed) == 0
    rows = (out / "trials.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows] == ["state", "complete", "complete"]
    if left:
        assert begun[2][0] == begun[1][0]


@pytest.mark.parametrize("command", ALL)
def test_a_read_only_folder_is_told_in_a_line(
    command: str, words: Callable[[str], Words], disk: Disk, capfd: pytest.CaptureFixture[str]
) -> None:
    out = disk.place / "out"
    typed = words(command)(out)
    disk.read_only()
    line = refused(typed, capfd)
    assert str(out) in line
    assert read_only_is_told(line)


@pytest.mark.parametrize(("command", "folder"), [("head", "."), ("lora", "."), ("ensemble", "member-0"), ("quality", ".")])
def test_a_folder_that_somebody_else_writes_to_is_refused(
    command: str,
    folder: str,
    words: Callable[[str], Words],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ruac.writing, "ORPHANS", 0.0)
    typed = words(command)(tmp_path / "out")
    with only_writer(tmp_path / "out" / folder):
        line = refused(typed, capfd, code=2)
    assert line == f"ruac: {tmp_path / 'out' / folder}: another process is writing there; wait for it, or choose another folder"
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize("command", ["laplace", "calibrate", "export", "attack"])
def test_of_two_at_once_the_last_one_stays_whole(
    command: str, words: Callable[[str], Words], whole: Callable[[str], dict[str, bytes]], processes: Processes, tmp_path: Path
) -> None:
    typed = words(command)(tmp_path / "out")
    assert processes.side_by_side(typed, typed) == [0, 0]
    assert files(tmp_path / "out") == whole(command)


def test_two_searches_at_once_share_the_work(words: Callable[[str], Words], processes: Processes, tmp_path: Path) -> None:
    typed = words("tune")(tmp_path / "out")
    assert processes.side_by_side(typed, typed) == [0, 0]
    header, *trials = [row.split(",") for row in (tmp_path / "out" / "trials.csv").read_text().splitlines()]
    assert [trial[header.index("state")] for trial in trials] in (["complete"] * 2, ["complete"] * 3)  # two ask for two
    assert len({trial[header.index("rates")] for trial in trials}) == len(trials)


@pytest.mark.parametrize(
    ("command", "after"),
    [("lora", 3), ("ensemble", 8), *((name, 0) for name in FITS), ("calibrate", 0), ("quality", 3), ("report", 2)],
)
def test_what_is_killed_ends_alike_when_it_is_started_again(
    command: str,
    after: int,
    words: Callable[[str], Words],
    whole: Callable[[str], dict[str, bytes]],
    processes: Processes,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    typed = words(command)(out)
    assert processes.side_by_side(typed, killed_at=after) == [-signal.SIGKILL]
    there = files(out)
    assert "config.json" not in there  # without which a folder is no model
    assert run(typed) == 0
    unfinished = {path.relative_to(out).as_posix() for path in leftovers(out)}
    assert len(unfinished) == (command in (*FITS, "calibrate", "report"))  # what has a folder of its own cleans it
    assert {name: content for name, content in files(out).items() if name not in unfinished} == whole(command)


@pytest.mark.parametrize(
    ("command", "after"),
    [("laplace", 0), ("video", 5), ("calibrate", 0), ("quality", 3), ("export", 0), ("attack", 0)],
)
def test_ctrl_c_is_one_line_and_leaves_nothing_half_written(
    command: str,
    after: int,
    words: Callable[[str], Words],
    whole: Callable[[str], dict[str, bytes]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    typed = words(command)(tmp_path / "out")
    with ending(after, signal.SIGINT):
        assert refused(typed, capfd, code=130) == "ruac: interrupted"
    assert leftovers(tmp_path / "out") == []
    assert run(typed) == 0
    assert files(tmp_path / "out") == whole(command)


@pytest.mark.parametrize("after", [0, 1])  # before and after the one before was put aside
def test_an_export_that_is_interrupted_leaves_the_one_before(after: int, words: Callable[[str], Words], tmp_path: Path) -> None:
    typed = words("export")(tmp_path)
    assert run(typed) == 0
    (tmp_path / "exported" / "encoder.onnx").write_bytes(b"old")
    before = files(tmp_path)
    with ending(after, signal.SIGINT):
        assert run(typed) == 130
    assert files(tmp_path) == before


def test_an_export_removes_what_dead_ones_left_and_nothing_else(
    words: Callable[[str], Words], processes: Processes, tmp_path: Path
) -> None:
    typed = words("export")(tmp_path)
    assert processes.side_by_side(typed, killed_at=0) == [-signal.SIGKILL]
    (dead,) = leftovers(tmp_path)
    live, young, strange = (tmp_path / f".exported.{name}.tmp" for name in ("live", "young", "strange"))
    for folder in (live, young, strange):
        (folder / "new").mkdir(parents=True)
    (strange / "mine").touch()
    for folder in (dead, live, strange):
        os.utime(folder, (0, time.time() - 60))
    with locked(live):
        assert run(typed) == 0
    assert set(leftovers(tmp_path)) == {live, young, strange}
    assert (tmp_path / "exported" / "encoder.onnx").read_bytes() == GRAPHS["encoder.onnx"]


@pytest.mark.parametrize("meta", [rb'{"licence": "\ud800"}', b'{"licence": "\xff"}', b'{"licence": "\xed\xa0\x80"}'])
def test_a_description_that_is_no_text_is_named(
    meta: bytes, words: Callable[[str], Words], inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    typed = words("card")(tmp_path)
    described = write_set(tmp_path / "described") / "meta.json"
    described.write_bytes(meta)
    line = refused([*typed[:-1], str(described.parent)], capfd, code=2)
    assert line.startswith(f"ruac: {described}: not JSON")
