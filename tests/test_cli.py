import errno
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest

from ruac.app.samples import samples
from ruac.cli import COMMANDS, Command, main
from ruac.errors import WorkError


@dataclass(frozen=True)
class Part:
    steps: int
    kind: Literal["all", "head"] = "all"


@dataclass(frozen=True)
class Settings:
    """Settings of a run."""

    data: list[Path]
    parts: list[Part]
    part: Part = field(default_factory=lambda: Part(7))
    rate: float = 0.5


class Recorder:
    """Commands that keep what they were called with."""

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.error: BaseException | None = None

    def plain(
        self,
        files: list[Path],
        data: list[str] | None = None,
        max_count: int | None = None,
        kind: Literal["point", "box"] = "point",
        fast: bool = False,
    ) -> None:
        """Do something.

        Example: ruac plain a.txt

        Args:
            files: What to work on.
            data: Where it lies.
            max_count: Not more than this.
        """
        self.calls.append({"files": files, "data": data, "max_count": max_count, "kind": kind, "fast": fast})
        if self.error is not None:
            raise self.error

    def configured(self, config: Settings) -> None:
        """Do something at length."""
        self.calls.append({"config": config})


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder, module = Recorder(), ModuleType("recorded_commands")
    module.__dict__.update(plain=recorder.plain, configured=recorder.configured)
    monkeypatch.setitem(sys.modules, "recorded_commands", module)
    monkeypatch.setitem(COMMANDS, "plain", Command("recorded_commands:plain", "", positional="files"))
    monkeypatch.setitem(COMMANDS, "configured", Command("recorded_commands:configured", ""))
    return recorder


def test_help_names_every_command_without_loading_torch() -> None:
    code = "import sys; from ruac.cli import main\ntry: main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    for words in (["--help"], ["predict", "--help"], ["demo", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("\nFalse\n")
        if len(words) == 1:
            assert all(f"  {name} " in done.stdout for name in COMMANDS)
        else:
            assert f"Example: ruac {words[0]}" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"Example: ruac {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("ruac 0.")


def test_no_command_shows_the_help_as_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paint"], "invalid choice: 'paint'"),
        (["--paint"], "see ruac --help"),
        (["plain"], "arguments are required: files; see ruac plain --help"),
        (["plain", "a", "--paint"], "unrecognized arguments: --paint; see ruac plain --help"),
        (["plain", "a", "--kind", "mask"], "--kind mask: not one of "),
        (["plain", "a", "--max-count", "many"], "--max-count many: not a whole number; see ruac plain --help"),
        (["configured", "--rate", "x"], "--rate x: not a number; see"),
        (["configured", "--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(
    recorder: Recorder, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("ruac: ")
    assert shown.count("\n") == 1
    assert message in shown
    assert not recorder.calls


def test_options_come_from_the_signature(recorder: Recorder) -> None:
    words = "a.txt b.txt --data x --data y --max-count 3 --kind box --fast"
    assert main(["plain", *words.split()]) == 0
    expected = {"files": [Path("a.txt"), Path("b.txt")], "data": ["x", "y"], "max_count": 3, "kind": "box", "fast": True}
    assert recorder.calls == [expected]


def test_defaults_are_those_of_the_signature(recorder: Recorder) -> None:
    assert main(["plain", "a.txt"]) == 0
    assert recorder.calls == [{"files": [Path("a.txt")], "data": None, "max_count": None, "kind": "point", "fast": False}]


def test_configuration_file_becomes_dataclasses_and_options_override_it(recorder: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: [one, two]\nparts: [{steps: 3}, {steps: 4, kind: head}]\npart: {steps: 9}\nrate: 0.25\n")
    assert main(["configured", "--config", str(file), "--rate", "2", "--part.kind", "head"]) == 0
    expected = Settings([Path("one"), Path("two")], [Part(3), Part(4, "head")], Part(9, "head"), 2.0)
    assert recorder.calls == [{"config": expected}]


def test_misspelt_setting_in_a_configuration_file_is_refused(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: [one]\nparts: [{steps: 3}]\nraet: 0.25\n")
    assert main(["configured", "--config", str(file)]) == 2
    assert "raet" in capsys.readouterr().err
    assert not recorder.calls


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (ValueError("clicks: at least one\nand more"), 2, "ruac: clicks: at least one and more\n"),
        (FileNotFoundError("no model at x"), 2, "ruac: no model at x\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out/a.png"), 1, "ruac: out/a.png: No space left on device\n"),
        (WorkError("2 of 3 images failed:\na\nb"), 1, "ruac: 2 of 3 images failed:\na\nb\n"),
        (KeyboardInterrupt(), 130, "ruac: interrupted\n"),
    ],
)
def test_errors_for_people_have_their_exit_codes(
    recorder: Recorder, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, shown: str
) -> None:
    recorder.error = error
    assert main(["plain", "a.txt"]) == code
    assert capsys.readouterr().err == shown


def test_mistakes_of_the_program_are_not_hidden(recorder: Recorder) -> None:
    recorder.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main(["plain", "a.txt"])


def test_debugging_shows_the_traceback(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUAC_DEBUG", "1")
    recorder.error = ValueError("why?")
    with pytest.raises(ValueError, match="why"):
        main(["plain", "a.txt"])


def test_names_that_are_no_text_and_numbers_below_zero(recorder: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plain", "a\udcff.jpg"]) == 2
    assert capsys.readouterr().err == "ruac: a\\udcff.jpg: a name that is not UTF-8; rename the file\n"
    assert not recorder.calls
    assert main(["plain", "a.jpg", "--max-count", "-5"]) == 0
    assert recorder.calls[0]["max_count"] == -5


def test_what_would_move_the_cursor_is_shown(recorder: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    recorder.error = ValueError("\x1b[2J\u202ea.jpg: no image")
    assert main(["plain", "a"]) == 2
    assert capsys.readouterr().err == "ruac: \\x1b[2J\\u202ea.jpg: no image\n"


@pytest.mark.parametrize("words", [["--point", "-5,60"], ["--box", "-5,-6.5,40,30"]])
def test_a_place_left_of_the_picture_is_told_as_one(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph = str(samples()[0].path)
    assert main(["predict", photograph, *words, "--out", str(tmp_path)]) == 2
    assert "outside the image" in capsys.readouterr().err or words[0] == "--box"
