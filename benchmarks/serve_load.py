"""Does `ruac serve` keep its promises under load? `python benchmarks/serve_load.py [--quick]`.

Twenty clients at once ask a server on this machine about pictures of their own. Every answer is compared with that of the Python API:
none may be missing or be somebody else's. The queue is short, so that many are turned away, with 429 and nothing else. Then the same
against servers, of one worker and of two, that are stopped meanwhile and started again with the same --spool: they answer all that was
accepted, and ids from before are good. Memory is that of all processes of the server: its peak after half of the requests and at the
end.

Prints one JSON object as its last line; exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
from numpy.typing import NDArray

from ruac.client import Client, ServerError
from ruac.machine import describe_machine
from ruac.predictor import Predictor

CLIENTS, PICTURES, QUEUE = 20, 2, 8
PATIENCE = 900.0  # seconds
SAME = 0.999  # share of pixels alike: decoded in other company, a pixel at the outline may fall to the other side
TARGETS = {"wrong": 0, "lost": 0, "other_statuses": 0, "accepted_without_answer": 0, "growth_mb": 64.0, "peak_mb": 1000}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="six requests a client instead of fifty")
    each = 6 if parser.parse_args().quick else 50
    predictor = Predictor("nano")
    jobs = [make_job(predictor, client, each - PICTURES) for client in range(CLIENTS)]
    figures = {"load": load(jobs), "restart": restart(jobs, workers=1), "restart_two_workers": restart(jobs, workers=2)}
    missed = [
        f"{phase}: {name}" for phase, found in figures.items() for name, limit in TARGETS.items() if found.get(name, 0) > limit
    ]
    missed += [] if figures["load"]["turned_away"] else ["load: nobody was turned away, so that overload was not tested"]
    words = {"clients": CLIENTS, "requests_each": each, "queue": QUEUE, "machine": describe_machine()}
    print(json.dumps({"figures": figures, "targets": TARGETS, "missed": missed, **words}))
    return 1 if missed else 0


@dataclass(frozen=True)
class Job:
    """Of one client. pictures: each of a size that no other has; clicks: which picture, (x, y) and the mask that is right."""

    pictures: Sequence[NDArray[np.uint8]]
    clicks: Sequence[tuple[int, tuple[int, int], NDArray[np.bool_]]]


@dataclass
class Tally:
    """Of all clients."""

    right: int = 0
    wrong: int = 0
    lost: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, outcome: str) -> None:
        with self.lock:
            setattr(self, outcome, getattr(self, outcome) + 1)

    @property
    def done(self) -> int:
        return self.right + self.wrong + self.lost


def make_job(predictor: Predictor, client: int, clicks: int) -> Job:
    """With the answers of the Python API."""
    rng = np.random.default_rng(client)
    pictures, asked = [], []
    for number in range(PICTURES):
        height, width = 96 + client, 128 + number
        pictures.append(discs(rng, height, width))
        predictor.set_image(pictures[-1])
        for _ in range(len(range(number, clicks, PICTURES))):
            place = int(rng.integers(width)), int(rng.integers(height))
            asked.append((number, place, predictor.predict([place]).masks[0]))
    rng.shuffle(asked)
    return Job(pictures, asked)


def discs(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    picture = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(6):
        place = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(picture, place, int(rng.integers(8, 30)), rng.integers(0, 256, 3).tolist(), cv2.FILLED)
    return picture


def ask(url: str, job: Job, tally: Tally) -> None:
    """All that one client asks, one after the other."""
    with Client(url, patience=PATIENCE) as client:
        ids = []
        for picture in job.pictures:
            found = client.upload(picture)
            ids.append(found.id)
            tally.note("right" if (found.height, found.width) == picture.shape[:2] else "wrong")
        for number, place, right in job.clicks:
            try:
                mask = client.predict(ids[number], [place]).masks[0]
            except ServerError as error:
                print(error, file=sys.stderr)
                tally.note("lost")
                continue
            tally.note("right" if mask.shape == right.shape and np.mean(mask == right) >= SAME else "wrong")


def load(jobs: Sequence[Job]) -> dict[str, Any]:
    """Against one server."""
    total = sum(len(job.pictures) + len(job.clicks) for job in jobs)
    with tempfile.TemporaryDirectory() as spool, server(free_port(), Path(spool)) as (process, url):
        with watching(process) as peak:
            start = time.monotonic()
            tally, half = everybody(url, jobs, at=total // 2, then=peak)
            seconds = time.monotonic() - start
            whole = peak()
        statuses = statuses_of(httpx.get(f"{url}/metrics").text)
        accepted, answered = stop(process)
    return {
        "right": tally.right,
        "wrong": tally.wrong,
        "lost": total - tally.right - tally.wrong,
        "statuses": statuses,
        "turned_away": statuses.get("429", 0),
        "other_statuses": sum(count for status, count in statuses.items() if status not in ("200", "201", "429")),
        "accepted_without_answer": accepted - answered,
        "peak_mb": round(whole),
        "growth_mb": round(whole - half, 1),
        "requests_per_second": round(total / seconds, 1),
    }


def restart(jobs: Sequence[Job], workers: int) -> dict[str, Any]:
    """Against one that is stopped after a third of the requests, and the one that takes its place."""
    total, port = sum(len(job.pictures) + len(job.clicks) for job in jobs), free_port()
    with tempfile.TemporaryDirectory() as folder, server(port, Path(folder), workers) as (first, url):
        second: list[Any] = []

        def exchange() -> tuple[int, int]:
            counts = stop(first)
            second.append(server(port, Path(folder), workers))
            second.append(second[0].__enter__())
            return counts

        tally, before = everybody(url, jobs, at=total // 3, then=exchange)
        after = stop(second[1][0])
        second[0].__exit__(None, None, None)
    return {
        "right": tally.right,
        "wrong": tally.wrong,
        "lost": total - tally.right - tally.wrong,
        "accepted_before": before[0],
        "accepted_after": after[0],
        "accepted_without_answer": before[0] - before[1] + after[0] - after[1],
    }


def everybody(url: str, jobs: Sequence[Job], at: int, then: Callable[[], Any]) -> tuple[Tally, Any]:
    """All clients at once; after so many answers something is done. What was counted, and what that gave."""
    tally = Tally()
    with ThreadPoolExecutor(len(jobs)) as clients:
        asking = [clients.submit(ask, url, job, tally) for job in jobs]
        while tally.done < at and not all(future.done() for future in asking):
            time.sleep(0.02)
        result = then()
        for future in asking:
            if (error := future.exception()) is not None:
                print(f"a client ended: {error}", file=sys.stderr)
    return tally, result


@contextmanager
def server(port: int, spool: Path, workers: int = 1) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, answering, and its address."""
    words = [sys.executable, "-m", "ruac", "serve", "--port", port, "--spool", spool, "--queue", QUEUE, "--workers", workers]
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        match = re.match(r"serving (\S+);", process.stdout.readline())
        if match is None:
            sys.exit("the server did not start")
        yield process, match[1]
    finally:
        process.kill()
        process.wait()


def stop(process: subprocess.Popen[str]) -> tuple[int, int]:
    """Requests that it says it has accepted, and answered."""
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    match = re.search(r"stopped: (\d+) requests accepted, (\d+) answered", out)
    if match is None:
        sys.exit(f"the server ended without its figures: {out}")
    return int(match[1]), int(match[2])


@contextmanager
def watching(process: subprocess.Popen[str]) -> Iterator[Callable[[], float]]:
    """The peak so far, in MB, of the memory of a process and all below it."""
    peak, over = 0.0, threading.Event()

    def look() -> None:
        nonlocal peak
        parent = psutil.Process(process.pid)
        every = [parent, *parent.children(recursive=True)]
        while not over.wait(0.05):
            peak = max(peak, sum(one.memory_info().rss for one in every) / 1e6)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: peak
    finally:
        over.set()
        thread.join()


def statuses_of(metrics: str) -> dict[str, int]:
    """How many requests with work in them had each status."""
    found: Counter[str] = Counter()
    for name, status, count in re.findall(r'ruac_requests_total\{endpoint="(\w+)",status="(\w+)"\} (\S+)', metrics):
        if name in ("images", "predict"):
            found[status] += int(float(count))
    return dict(found)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
