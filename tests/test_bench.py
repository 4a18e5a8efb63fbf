"""`ruac bench` measures what it says, and tells two results apart only where they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import ruac.bench
from ruac.bench import NAMES, Figure, comparison, measure, read
from ruac.cli import main
from ruac.predictor import Predictor


def test_bench_writes_a_table_and_json_that_can_be_compared(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.json"
    assert main(["bench", "--model", str(tiny_model_folder), "--rounds", "3", "--out", str(file)]) == 0
    shown = capsys.readouterr().out
    stored = json.loads(file.read_text())
    assert list(stored["figures"]) == list(NAMES)
    assert stored["rounds"] == 3
    for name, figure in stored["figures"].items():
        assert NAMES[name] in shown
        assert figure["low"] <= figure["median"] <= figure["high"]
    figures = {name: figure["median"] for name, figure in stored["figures"].items()}
    assert figures["click"] > max(figures["decode"], figures["masks"], figures["uncertainty"]) > 0
    assert 100 < figures["memory"] < 10_000
    assert main(["bench", "--compare", str(file), str(file)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 1 + len(NAMES)
    assert [row.split("  ")[-1] for row in rows[1:]] == ["measured once", *["same"] * (len(NAMES) - 2), "measured once"]


def test_time_that_is_added_is_seen(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def clock() -> float:  # of its own: how busy the machine is does not matter
        now[0] += 0.001
        return now[0]

    monkeypatch.setattr(ruac.bench, "time", SimpleNamespace(perf_counter=clock))
    predictor = Predictor(tiny_model_folder)
    encode = type(predictor.model).encode

    def taking(seconds: float) -> Callable[..., object]:
        def slow(*arguments: object) -> object:
            now[0] += seconds
            return encode(*arguments)  # pyright: ignore[reportArgumentType, reportCallIssue]

        return slow

    found = []
    for seconds in (0.1, 0.2):
        monkeypatch.setattr(type(predictor.model), "encode", taking(seconds))
        found.append(measure(predictor, 3))
    before, after = found
    assert before["encode"].median == pytest.approx(101)
    assert after["encode"].median == pytest.approx(201)
    result = {"model": "m", "machine": "m"}
    rows = comparison({**result, "figures": before}, {**result, "figures": after}).splitlines()
    assert rows[1].startswith(NAMES["encode"])
    assert rows[1].endswith("more")


def test_figures_are_medians_and_quartiles() -> None:
    assert Figure.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Figure(3, 2, 4)
    assert Figure.of([7.0]) == Figure(7, 7, 7)


def test_other_machines_and_models_are_said() -> None:
    a = {"model": "a", "machine": "x", "figures": {"encode": Figure(2, 1.9, 2.1)}}
    b = {"model": "b", "machine": "y", "figures": {"encode": Figure(1, 0.9, 1.1), "click": Figure(1, 1, 1)}}
    rows = comparison(a, b).splitlines()
    assert rows[:2] == ["warning: of different models: a; b", "warning: of different machines: x; y"]
    assert [row.split()[-4:] for row in rows[3:]] == [["2.00", "1.00", "0.50", "less"]]


@pytest.mark.parametrize("content", ["", "[]", '{"format": "x"}', '{"format": "ruac-bench-1", "figures": {"encode": {}}}'])
def test_other_files_are_refused(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.json"
    file.write_text(content)
    assert main(["bench", "--compare", str(file), str(file)]) == 2
    error = capsys.readouterr().err
    assert f"{file}: no result of ruac bench" in error
    assert error.count("\n") == 1


def test_wrong_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--rounds", "1"]) == 2
    assert "--rounds 1: from 2" in capsys.readouterr().err
    assert main(["bench", "--threads", "0"]) == 2
    assert main(["bench", "--compare", str(tmp_path / "none")]) == 2
    assert "--compare takes two files" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
