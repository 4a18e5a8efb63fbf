"""Disks that are full or read-only, processes that end when they should not, and what is to be seen afterwards.

Run as a program it is what `Processes` starts.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

import pytest

from ruac.cli import main

FULL = 24 * 1024  # bytes that are left on a disk that is almost full
# what depends on the time, on where the results lie, or has its metadata in any order
CHANGING = ("log.csv", "settings.json", "summary.json", "summary.md", "review.html", "labels.json", "checkpoint.safetensors")


class Disk:
    """A file system of its own, in memory."""

    def __init__(self, place: Path, megabytes: int):
        place.mkdir()
        self.place = place
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(place)], check=True, capture_output=True)

    def fill(self, left: int = FULL) -> Path:
        """Leave so many bytes; returns the file that takes the room."""
        filler = self.place / "filler"
        state = os.statvfs(self.place)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize - left)
        return filler

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.place)], check=True)


@contextmanager
def mounted(place: Path) -> Iterator[Disk]:
    """A disk of its own; the test is skipped where there cannot be one."""
    try:
        found = Disk(place, 256)  # a checkpoint takes 32, and is written beside the one before
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    try:
        yield found
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def full_from(name: str, disk: Disk, left: int = 0) -> Iterator[None]:
    """The disk becomes full when the function of this name, with its module, is called first; there is room again afterwards."""
    real = resolve_name(name)
    fillers: list[Path] = []

    def fill_first(*arguments: Any, **more: Any) -> Any:
        if not fillers:
            fillers.append(disk.fill(left))
        return real(*arguments, **more)

    with patch(name, fill_first):
        yield
    for filler in fillers:
        filler.unlink()


def files(folder: Path) -> dict[str, bytes]:
    """Those, and of those, that are the same in every run; the folder's own name is none of it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in CHANGING)
    return {path.relative_to(folder).as_posix(): _constant(path).replace(str(folder).encode(), b"OUT") for path in found}


def _constant(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix in (".svg", ".html"):
        return content[-8:]  # names in drawings are drawn at random
    if path.suffix == ".safetensors":
        end = 8 + int.from_bytes(content[:8], "little")
        return json.dumps(json.loads(content[8:end]), sort_keys=True).encode() + content[end:]
    return content


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".partial"))]


# what takes `ruac export` half a minute, and has nothing to do with its files
GRAPHS = {"encoder.onnx": bytes(range(256)) * 400, "decoder.onnx": bytes(200_000)}
CHECK = {"largest_probability": 0.0, "mean_probability": 0.0, "largest_uncertainty": 0.0, "largest_iou": 0.0, "mask_iou": 1.0}
QUICK = {
    "ruac.export.graphs.to_onnx": lambda *_: GRAPHS,
    "ruac.onnx_backend.open_session": lambda *_: None,
    "ruac.onnx_backend.OnnxModel": lambda *_: None,
    "ruac.export.check.compare": lambda *_: CHECK | {"pictures": 1},
}


def run(words: Sequence[str]) -> int:
    """The command, its exit code; of an export everything but the graphs."""
    with ExitStack() as held:
        for name, stand_in in QUICK.items() if words[0] == "export" else ():
            held.enter_context(patch(name, stand_in))
        return main(words)


@contextmanager
def ending(number: int, by: signal.Signals) -> Iterator[None]:
    """A signal comes when so many files or folders have got their names, and the next is written but has not got its own yet."""
    replace, counted = os.replace, itertools.count()

    def replace_or_end(*names: str | os.PathLike[str]) -> None:
        if next(counted) == number:
            signal.raise_signal(by)
        replace(*names)

    with patch("os.replace", replace_or_end):
        yield


class Processes:
    """`ruac` in processes of their own that need no seconds to start: forks of one that has imported everything."""

    def __enter__(self) -> Processes:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # no more work is its end

    def side_by_side(self, *commands: Sequence[str], killed_at: int | None = None) -> list[int]:
        """Exit codes of commands that run side by side. killed_at: as `ending`, by kill -9."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([killed_at, commands]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def _child(words: Sequence[str], killed_at: int | None) -> int:
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    with ending(killed_at, signal.SIGKILL) if killed_at is not None else ExitStack():
        return run(words)


def _serve() -> None:
    for name in ("training.loop", "training.head_run", "rivals.registry", "quality.examples", "calibrate.measure", "report.page"):
        importlib.import_module(f"ruac.{name}")
    for line in sys.stdin:
        killed_at, commands = json.loads(line)
        children = []
        for words in commands:
            child = os.fork()
            if not child:
                code = 1
                try:
                    code = _child(words, killed_at)
                finally:
                    os._exit(code)
            children.append(child)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)


if __name__ == "__main__":
    _serve()
