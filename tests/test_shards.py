"""Several processes, kills and resumptions leave the same files as one process that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from squares import write_set

import ruac.evaluate.run as run_module
from ruac.data.folder import find_sets
from ruac.evaluate.protocol import Protocol
from ruac.evaluate.results import SAVE_EVERY
from ruac.evaluate.run import Study, evaluate_sets, evaluate_share
from ruac.evaluate.shards import Crew, main_path, part_path
from ruac.model import RuacModel

PROTOCOL = Protocol(clicks=(1, 2))
FILES = ("squares.jsonl", "squares.pool.safetensors")


class Alone(Crew):
    """One of several processes, the others of which are not there."""

    def wait(self) -> None:
        pass


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are evaluated, as they are."""
    names: list[str] = []
    evaluate_image = run_module.evaluate_image

    def counting(model: RuacModel, labelled: run_module.LabelledImage, *others: object) -> run_module.ImageResult:
        names.append(labelled.id)
        return evaluate_image(model, labelled, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "evaluate_image", counting)
    return names


def contents(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in FILES]


def measured(out: Path) -> dict:
    """summary.json without what is never the same twice."""
    summary = json.loads((out / "summary.json").read_text())
    return {key: value for key, value in summary.items() if key != "cost"}


def test_shares_of_processes_are_put_together_by_whoever_comes_next(
    tiny_model: RuacModel, tmp_path: Path, counted: list[str]
) -> None:
    """Two of three processes did their share, the run was killed, and one process takes over."""
    sets = find_sets([write_set(tmp_path / "squares", 8)])
    evaluate_sets(tiny_model, sets, tmp_path / "whole", PROTOCOL)
    counted.clear()
    out = tmp_path / "out"
    for rank in (0, 2):
        evaluate_share(tiny_model, sets, out, PROTOCOL, None, Study(), Alone(rank, 3))
    assert counted == ["0", "3", "6", "2", "5"]
    counted.clear()
    evaluate_sets(tiny_model, sets, out, PROTOCOL)
    assert counted == ["1", "4", "7"]
    assert contents(out) == contents(tmp_path / "whole")
    assert measured(out) == measured(tmp_path / "whole")
    assert not list(out.glob("*.part-*"))


def test_another_number_of_processes_deals_what_is_left_anew(tiny_model: RuacModel, tmp_path: Path, counted: list[str]) -> None:
    sets = find_sets([write_set(tmp_path / "squares", 8)])
    out = tmp_path / "out"
    evaluate_share(tiny_model, sets, out, PROTOCOL, None, Study(), Alone(0, 3))
    assert counted == ["0", "3", "6"]
    counted.clear()
    for rank in (0, 1):
        evaluate_share(tiny_model, sets, out, PROTOCOL, None, Study(), Alone(rank, 2))
    assert counted == ["1", "4", "7", "2", "5"]


def test_a_share_that_was_taken_over_already_is_not_counted_twice(
    tiny_model: RuacModel, tmp_path: Path, counted: list[str]
) -> None:
    """As after a kill between taking it over and deleting it."""
    sets = find_sets([write_set(tmp_path / "squares", 4)])
    evaluate_sets(tiny_model, sets, tmp_path / "whole", PROTOCOL)
    out = tmp_path / "out"
    evaluate_share(tiny_model, sets, out, PROTOCOL, None, Study(), Alone(0, 2))
    part = part_path(out, "squares", 0)
    kept = {path: path.read_bytes() for path in (part, part.with_name("squares.part-0.pool.safetensors"))}
    evaluate_sets(tiny_model, sets, out, PROTOCOL)
    for path, content in kept.items():
        path.write_bytes(content)
    counted.clear()
    evaluate_sets(tiny_model, sets, out, PROTOCOL)
    assert counted == []
    assert contents(out) == contents(tmp_path / "whole")
    assert not list(out.glob("*.part-*"))


def test_part_files_of_another_run_are_refused(tiny_model: RuacModel, tmp_path: Path) -> None:
    sets, out = find_sets([write_set(tmp_path / "squares", 2)]), tmp_path / "out"
    evaluate_share(tiny_model, sets, out, PROTOCOL, None, Study(), Alone(0, 2))
    main_path(out, "squares").unlink()
    with pytest.raises(ValueError, match=r"squares\.part-0\.jsonl: results of another run \(clicks"):
        evaluate_sets(tiny_model, sets, out, Protocol(clicks=(1,)))


@pytest.fixture
def command(tiny_model_folder: Path, tmp_path: Path) -> Callable[[str], list[str]]:
    """The real command line for an output folder, over two sets, one file of which cannot be read."""
    write_set(tmp_path / "data" / "squares", SAVE_EVERY + 12)
    write_set(tmp_path / "data" / "others", 3)
    broken = tmp_path / "data" / "squares" / "images" / "5.png"
    broken.write_bytes(broken.read_bytes()[:200])
    words = ["-m", "ruac", "eval", "--model", str(tiny_model_folder), "--clicks", "1,2", "--data", str(tmp_path / "data")]
    return lambda out: [*words, "--out", str(tmp_path / out)]


@pytest.mark.slow
def test_killed_runs_and_runs_of_two_processes_leave_the_same_files(command: Callable[[str], list[str]], tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole = subprocess.run([sys.executable, *command("whole")], capture_output=True, text=True, env=environment)
    assert whole.returncode == 1
    assert whole.stderr.startswith("ruac: 1 images could not be read:")

    words = [sys.executable, *command("killed")]
    killed = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    rows = tmp_path / "killed" / "squares.jsonl"
    give_up = time.monotonic() + 300
    while killed.poll() is None and time.monotonic() < give_up:
        if rows.exists() and len(rows.read_text().splitlines()) > SAVE_EVERY + 3:
            killed.send_signal(signal.SIGKILL)
            killed.wait()
        time.sleep(0.02)
    assert killed.returncode == -signal.SIGKILL
    before = len(rows.read_text().splitlines()) - 1
    assert SAVE_EVERY < before < SAVE_EVERY + 11
    assert subprocess.run(words, capture_output=True, env=environment).returncode == 1

    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = subprocess.run([*launcher, *command("two")], capture_output=True, text=True, env=environment, timeout=600)
    assert two.returncode == 1
    assert two.stderr.count("ruac: 1 images could not be read:") == 1

    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert "others.pool.safetensors" in names
    for out in ("killed", "two"):
        assert sorted(path.name for path in (tmp_path / out).iterdir()) == names
        for name in names:
            if not name.startswith("summary"):
                assert (tmp_path / out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (out, name)
        assert measured(tmp_path / out) == measured(tmp_path / "whole")
