"""The one thread of a worker that computes, so that the others only ever wait."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ruac.serve.settings import LONGEST_WAIT, Deadline, LateError

T = TypeVar("T")
MEMORY = 0.2  # weight of the newest job in the mean time of one


class BusyError(Exception):
    """The turn of a request did not come in time."""


class GoneError(Exception):
    """The client has closed the connection before the answer was there."""


class Lane:
    """One job after the other, in the order in which they came. A job that nobody waits for any more is not begun.

    seconds: that a job may take from its beginning, however long it has waited.
    """

    def __init__(self, seconds: float) -> None:
        self._thread = ThreadPoolExecutor(1, "lane")
        self._seconds = seconds
        self._mean = 0.1  # seconds a job
        self._waiting = 0

    async def run(self, job: Callable[[Deadline], T], turn: Deadline, gone: asyncio.Task[None]) -> T:
        """What the job returns or raises; it is told when its time is up.

        turn: by when it must have begun; gone: ends when the client has closed the connection. Raises BusyError when it has not begun
        by then, LateError when it took too long, GoneError.
        """
        deadline = Deadline(turn.at + self._seconds)  # at the latest

        def work() -> T:
            nonlocal deadline
            deadline = Deadline.after(self._seconds)
            return job(deadline)

        future = self._thread.submit(self._timed, work)
        self._waiting += 1
        result = asyncio.wrap_future(future)
        try:
            await asyncio.wait({result, gone}, timeout=turn.left, return_when=asyncio.FIRST_COMPLETED)
            if not result.done() and future.cancel():
                raise GoneError if gone.done() else BusyError
            # it has begun
            await asyncio.wait({result, gone}, timeout=deadline.left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting -= 1
        if result.done():
            return result.result()
        result.cancel()  # what the job may still raise is nobody's any more
        raise GoneError if gone.done() else LateError

    @property
    def wait(self) -> int:
        """Whole seconds after which those that wait now may have had their turn."""
        return min(LONGEST_WAIT, max(1, math.ceil(self._waiting * self._mean)))

    def close(self) -> None:
        self._thread.shutdown()

    def _timed(self, job: Callable[[], T]) -> T:
        start = time.monotonic()
        try:
            return job()
        finally:
            self._mean += MEMORY * (time.monotonic() - start - self._mean)
