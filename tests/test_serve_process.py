"""`ruac serve` as a process of its own: several workers, their end, and what the next server knows."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from serving import picture

from ruac.cli import main
from ruac.client import Client, ServerError


@contextmanager
def serving(
    *options: object, env: dict[str, str] | None = None, before: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address; killed at the end if it is still there. before: words of a command that starts it."""
    words = [*before, sys.executable, "-m", "ruac", "serve", "--port", "0", *map(str, options)]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        match = re.fullmatch(r"serving (http://127\.0\.0\.1:\d+); stop with Ctrl-C\n", line)
        assert match, line + process.communicate()[1]
        yield process, match[1]
    finally:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out


@pytest.mark.slow
def test_workers_know_each_others_images_and_the_next_server_knows_them_all(tiny_model_folder: Path, tmp_path: Path) -> None:
    options = ("--model", tiny_model_folder, "--spool", tmp_path / "spool", "--workers", 2)
    with serving(*options) as (process, url):
        with Client(url) as client:
            photo = client.upload(picture())
            mask = client.predict(photo.id, [[40, 20]]).masks
        # connections are given to any of the workers: each of them is asked in a few tries
        for _ in range(12):
            with Client(url) as client:
                np.testing.assert_array_equal(client.predict(photo.id, [[40, 20]]).masks, mask)
        workers = workers_of(process)
        assert len(workers) == 2
        # one dies: another one takes its place, and the images are still there
        workers[0].kill()
        wait_for(lambda: len(workers_of(process)) == 2 and workers[0] not in workers_of(process))
        with Client(url) as client:
            np.testing.assert_array_equal(client.predict(photo.id, [[40, 20]]).masks, mask)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert re.fullmatch(r"ruac: a worker died \(exit code -9\); another one starts\n", err)
        assert re.fullmatch(r"stopped: \d+ requests accepted, \d+ answered\n", out)
    assert [path.name for path in (tmp_path / "spool").iterdir()] == [photo.id]
    with serving(*options[:4]) as (process, url), Client(url) as client:
        np.testing.assert_array_equal(client.predict(photo.id, [[40, 20]]).masks, mask)
        assert stopped(process) == "stopped: 1 requests accepted, 1 answered\n"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_stop_under_load_loses_nothing_and_leaves_nothing(tiny_model_folder: Path, tmp_path: Path, workers: int) -> None:
    options = ("--model", tiny_model_folder, "--workers", workers)
    with serving(*options, env={"TMPDIR": str(tmp_path)}) as (process, url):
        with Client(url) as client:
            photo = client.upload(picture())
        assert len(list(tmp_path.iterdir())) == 1
        answered: list[tuple[int, ...]] = []
        ends: list[ServerError] = []

        def ask() -> None:
            with Client(url, patience=0) as client:
                try:
                    while True:
                        answered.append(client.predict(photo.id, [[40, 20]]).masks.shape)
                except ServerError as error:
                    ends.append(error)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answered) > 20)
        out = stopped(process)
        for thread in threads:
            thread.join()
    # refused, or nobody there: never an answer that breaks off
    assert len(ends) == 6
    assert all(end.status == 503 or re.search("refused|disconnected|reset", str(end)) for end in ends), ends
    match = re.fullmatch(r"stopped: (\d+) requests accepted, (\d+) answered\n", out)
    assert match
    assert int(match[1]) == int(match[2]) == len(answered) + 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_workers_end_when_their_parent_is_gone(tiny_model_folder: Path) -> None:
    with serving("--model", tiny_model_folder) as (process, _):
        children = psutil.Process(process.pid).children()
        process.kill()
        assert not psutil.wait_procs(children, timeout=20)[1]


@pytest.mark.slow
def test_idle_connections_neither_use_up_the_descriptors_nor_fill_the_log(tiny_model_folder: Path) -> None:
    files = 200
    before = ("sh", "-c", f'ulimit -n {files} && exec "$@"', "sh")
    with serving("--model", tiny_model_folder, "--queue", 8, before=before) as (process, url), ExitStack() as stack:
        (worker,) = workers_of(process)
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(2 * files)]
        for made in idle:
            made.settimeout(30)
        with Client(url) as client:
            photo = client.upload(picture())  # as soon as the first of them are given up
            assert worker.num_fds() < files
            assert all(made.recv(1) in (b"", b"H") for made in idle)  # closed, some of them with a word
            # and if no descriptor can be had for some other reason, it waits for one
            allowed = worker.rlimit(psutil.RLIMIT_NOFILE)
            worker.rlimit(psutil.RLIMIT_NOFILE, (worker.num_fds(), allowed[1]))
            waiting = [stack.enter_context(socket.create_connection(address)) for _ in range(50)]
            time.sleep(3)
            worker.rlimit(psutil.RLIMIT_NOFILE, allowed)
            assert client.predict(photo.id, [[40, 20]]).masks.shape[1:] == picture().shape[:2]
            waiting[-1].settimeout(30)
            assert waiting[-1].recv(1) == b""
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "stopped: 2 requests accepted, 2 answered\n")
    assert err == "connections have to wait: [Errno 24] Too many open files\n"


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Multiprocessing has a process of its own beside them."""
    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.NoSuchProcess):
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: others could connect; set RUAC_TOKEN"),
        (["--port", "70000"], "--port 70000: from 0 to 65535"),
        (["--queue", "1000000"], "--queue 1000000: too much for"),
        (["--workers", "0"], "--workers 0: must be above 0"),
        (["--timeout", "-0.5"], "--timeout -0.5: must be above 0"),
        (["--cache", "-1"], "--cache -1: must not be below 0"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUAC_TOKEN", raising=False)
    assert main(["serve", *options]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert message in shown


def test_port_that_is_taken_and_spool_of_others_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
        assert f"--host 127.0.0.1 --port {port}: Address already in use" in capsys.readouterr().err
    tmp_path.chmod(0o777)
    assert main(["serve", "--port", "0", "--spool", str(tmp_path)]) == 2
    assert "not yours alone" in capsys.readouterr().err


def test_missing_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ruac.serve.command.find_spec", lambda name: None)
    assert main(["serve"]) == 2
    assert capsys.readouterr().err == "ruac: ruac serve needs fastapi: pip install 'ruac[serve]'\n"


def test_what_a_worker_complains_of_is_said_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", "--port", "0", "--model", str(tmp_path / "gone")]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert f"no model at {tmp_path / 'gone'}" in shown
