"""The parent of the workers: starts them, replaces those that die, and passes on the word to stop."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from socket import socket

from ruac.errors import WorkError
from ruac.serve.settings import Settings
from ruac.serve.worker import work

LOOK = 0.5  # seconds between two looks at the signals
ENDING = 10.0  # seconds beyond what a request's wait, its work and the sending of its answer may take


@dataclass
class _Signals:
    """count: of those that asked to stop."""

    count: int = 0


@dataclass(frozen=True)
class _Worker:
    process: SpawnProcess
    words: Connection

    @staticmethod
    def start(settings: Settings, listener: socket) -> _Worker:
        context = multiprocessing.get_context("spawn")
        words, theirs = context.Pipe()
        process = context.Process(target=work, args=(settings, listener, theirs))
        process.start()
        theirs.close()
        return _Worker(process, words)

    def require_ready(self, signals: _Signals) -> None:
        """Waits for it, or for a signal. Raises ValueError with what it complains of, WorkError when it dies without a word."""
        while not self.words.poll(LOOK):
            if signals.count:
                return
        try:
            complaint = self.words.recv()
        except EOFError:
            self.process.join(1)
            raise WorkError(f"a worker did not start (exit code {self.process.exitcode})") from None
        if complaint is not None:
            raise ValueError(str(complaint))


def supervise(settings: Settings, listener: socket, greeting: str) -> str:
    """Until SIGTERM or SIGINT; then the workers finish what they have accepted, and what they say is returned as a line.

    A second signal ends them at once. Raises ValueError for what the workers complain of at their start, WorkError when one does
    not start.
    """
    workers: list[_Worker] = []
    with _listening() as signals:
        try:
            workers += [_Worker.start(settings, listener) for _ in range(settings.workers)]
            for worker in workers:
                worker.require_ready(signals)
            if not signals.count:
                print(greeting, flush=True)
            try:
                while not signals.count:
                    _replace_dead(workers, settings, listener, signals)
            except (ValueError, WorkError):
                _stop(workers, settings, signals)  # the others finish what they have accepted
                raise
            return _stop(workers, settings, signals)
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.join()


def _replace_dead(workers: list[_Worker], settings: Settings, listener: socket, signals: _Signals) -> None:
    """Waits a while for one to die."""
    wait([worker.process.sentinel for worker in workers], LOOK)
    for i, worker in enumerate(workers):
        if worker.process.is_alive():
            continue
        print(f"ruac: a worker died (exit code {worker.process.exitcode}); another one starts", file=sys.stderr, flush=True)
        # its part of the gauges; what it has counted stays
        for file in settings.metrics.glob(f"gauge_live*_{worker.process.pid}.db"):
            file.unlink()
        workers[i] = _Worker.start(settings, listener)
        workers[i].require_ready(signals)


def _stop(workers: list[_Worker], settings: Settings, signals: _Signals) -> str:
    for worker in workers:
        worker.process.terminate()
    total = {"accepted": 0, "answered": 0, "gone": 0}
    waiting, end = list(workers), time.monotonic() + 3 * settings.timeout + ENDING
    while waiting and signals.count < 2 and time.monotonic() < end:
        wait([worker.words for worker in waiting], LOOK)
        for worker in [worker for worker in waiting if worker.words.poll()]:
            try:
                said = worker.words.recv()
            except EOFError:
                waiting.remove(worker)
                continue
            # None: it was not known yet that it is ready
            if isinstance(said, dict):
                total = {name: total[name] + said[name] for name in total}
                waiting.remove(worker)
    left = f", {total['gone']} clients left before" if total["gone"] else ""
    return f"stopped: {total['accepted']} requests accepted, {total['answered']} answered{left}"


@contextmanager
def _listening() -> Iterator[_Signals]:
    signals = _Signals()

    def note(number: int, frame: object) -> None:
        signals.count += 1

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
