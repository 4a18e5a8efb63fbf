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
    """The time of a request was over before its turn came."""


class GoneError(Exception):
    """The client has closed the connection before the answer was there."""


class Lane:
    """One job after the other, in the order in which they came. A job that nobody waits for any more is not begun."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "lane")
        self._mean = 0.1  # seconds a job
        self._waiting = 0

    async def run(self, job: Callable[[], T], deadline: Deadline, gone: asyncio.Task[None]) -> T:
        """What the job returns or raises. gone: ends when the client has closed the connection.

        Raises BusyError when the time was over before it began, LateError when it was later, GoneError.
        """
        future = self._thread.submit(self._timed, job)
        self._waiting += 1
        result = asyncio.wrap_future(future)
        try:
            await asyncio.wait({result, gone}, timeout=deadline.left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting -= 1
        if result.done():
            return result.result()
        begun = not future.cancel()
        result.cancel()  # what the job may still raise is nobody's any more
        if gone.done():
            raise GoneError
        raise LateError if begun else BusyError

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
