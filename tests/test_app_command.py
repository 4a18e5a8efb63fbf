"""`ruac app`: how it starts, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ruac.cli import main


@pytest.mark.parametrize(
    ("number", "code", "words"), [(signal.SIGINT, 130, "ruac: interrupted\n"), (signal.SIGTERM, 0, "")], ids=["Ctrl-C", "SIGTERM"]
)
def test_the_command_serves_until_it_is_stopped_and_leaves_nothing(
    tiny_model_folder: Path, tmp_path: Path, number: int, code: int, words: str
) -> None:
    temporary, folder = tmp_path / "temporary", tmp_path / "pictures"
    temporary.mkdir()
    folder.mkdir()
    for i in range(100):
        Image.fromarray(np.full((60, 90, 3), i, np.uint8)).save(folder / f"{i}.png")
    options = ["app", "--port", "0", "--models", str(tiny_model_folder), "--folder", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "ruac", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        assert process.stdout is not None
        address = re.findall(r"look at (http://127\.0\.0\.1:\d+);", process.stdout.readline())[0]
        with urllib.request.urlopen(address, timeout=20) as reply:
            assert 'content="ruac"' in reply.read().decode()
        (room,) = temporary.glob("ruac-app.*")
        # an upload that is kept, and a job at work
        (room / "files" / "x.png").write_bytes(b"x")
        with urllib.request.urlopen(f"{address}/config", timeout=20) as reply:
            functions = json.load(reply)["dependencies"]
        (label,) = [function["id"] for function in functions if len(function["inputs"]) == 6]
        data = ["the folder on the server", None, "everything that looks like an object", None, "10%", str(tiny_model_folder)]
        body = json.dumps({"data": data, "fn_index": label, "session_hash": "guest"}).encode()
        join = urllib.request.Request(f"{address}/gradio_api/queue/join", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(join, timeout=20) as reply:
            assert reply.status == 200
        while not list(room.glob("work/*/labels/masks/*.png")):
            time.sleep(0.02)
            assert process.poll() is None
        process.send_signal(number)
        _, shown = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    assert shown.endswith(words)
    assert list(temporary.glob("ruac-app.*")) == []


def ask_for_a_sample(address: str, number: int, model: str) -> dict[str, Any]:
    """Of a session of its own by that number."""
    with urllib.request.urlopen(f"{address}/config", timeout=60) as reply:
        parts = json.load(reply)["components"]
    (part,) = [part["id"] for part in parts if part["type"] == "html" and part["props"].get("server_fns")]
    words = {"secret": f"{number:032x}", "action": "sample", "number": 0, "model": model}
    body = json.dumps({"data": words, "component_id": part, "fn_name": "ask", "session_hash": "guest"}).encode()
    request = urllib.request.Request(f"{address}/gradio_api/component_server/", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_it_ends_in_good_order_however_many_are_being_answered(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ruac", "app", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    answered: Queue[dict[str, Any]] = Queue()

    def load(address: str, number: int) -> None:
        with suppress(OSError, HTTPException):  # the server is gone
            while True:
                answered.put(ask_for_a_sample(address, number, "nano"))

    threads: list[Thread] = []
    try:
        assert process.stdout is not None
        address = re.findall(r"look at (http://127\.0\.0\.1:\d+);", process.stdout.readline())[0]
        threads = [Thread(target=load, args=(address, number)) for number in range(25)]
        for thread in threads:
            thread.start()
        for _ in range(4):
            while "picture" not in answered.get(timeout=60):
                pass
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=60)
    finally:
        process.kill()
        for thread in threads:
            thread.join()
    assert (process.returncode, shown) == (0, "")
    assert list(tmp_path.glob("ruac-app.*")) == []


STUBBORN = """
import sys
from pathlib import Path
import torch
import ruac.app.serving as serving
from ruac.app import view
from ruac.app.models import Models

def work(conversation):
    Path("working").touch()
    weights, image = torch.ones(8, 8, 3, 3), torch.ones(1, 8, 64, 64)
    while True:
        torch.nn.functional.conv2d(image, weights)

view.picture = work
serving.LAST = 0.5
serving.serve(Models([sys.argv[1]]), None, "127.0.0.1", 0, False)
"""


def test_what_does_not_end_is_left_behind(tiny_model_folder: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(tiny_model_folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        address = re.findall(r"look at (http://127\.0\.0\.1:\d+);", process.stdout.readline())[0]

        def ask() -> None:
            with suppress(OSError):  # the server is gone
                ask_for_a_sample(address, 1, str(tiny_model_folder))

        asking = Thread(target=ask)
        asking.start()
        while not (tmp_path / "working").exists():
            time.sleep(0.02)
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=30)
        asking.join()
    finally:
        process.kill()
    assert process.returncode == 0, shown
    assert list(tmp_path.glob("ruac-app.*")) == []


def test_help_does_not_load_what_only_the_page_needs() -> None:
    code = (
        "import sys; import ruac.app.command; print([name for name in ('torch', 'gradio', 'starlette') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_wrong_use_is_one_line_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--folder", "nowhere"], "--folder nowhere: no such folder"),
        (["--port", "70000"], "--port 70000: from 0 to 65535"),
        (
            ["--models", str(tmp_path)],
            f"no model at {tmp_path}: expected a folder with config.json and model.safetensors, or 'nano'",
        ),
    ):
        assert main(["app", *words]) == 2
        assert capsys.readouterr().err == f"ruac: {message}\n"


def test_without_gradio_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ruac.app.command.find_spec", lambda name: None)
    assert main(["app"]) == 2
    assert capsys.readouterr().err == "ruac: ruac app needs gradio: pip install 'ruac[app]'\n"
