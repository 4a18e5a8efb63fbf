"""Who has which picture open: bounded in number and bytes, forgotten after a while, and never anybody else's."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class Entry(Generic[T]):
    """What one session holds, None before its first picture. One request of a session at a time."""

    def __init__(self, now: float):
        self.content: T | None = None
        self.nbytes = 0
        self.used = now
        self.lock = Lock()


class Sessions(Generic[T]):
    """Contents by a secret that only their owner knows.

    most: sessions at a time; most_bytes: of all contents together, though the newest one alone may be larger; seconds: without a
    request, after which a session is forgotten; clock: for tests. The longest unused go first.
    """

    def __init__(self, most: int, most_bytes: int, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._most, self._most_bytes, self._seconds, self._clock = most, most_bytes, seconds, clock
        self._entries: OrderedDict[str, Entry[T]] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def use(self, secret: str) -> Iterator[Entry[T]]:
        """The session's entry, made if need be, for this request alone; what is over the limits afterwards is forgotten."""
        with self._lock:
            self._forget_old()
            entry = self._entries.setdefault(secret, Entry(self._clock()))
            entry.used = self._clock()
            self._entries.move_to_end(secret)
        try:
            with entry.lock:
                yield entry
        finally:
            with self._lock:
                entry.nbytes = entry.content.nbytes if entry.content is not None else 0
                self._shrink()

    def sweep(self) -> None:
        """Forget the sessions whose time is over. Otherwise that waits for the next request."""
        with self._lock:
            self._forget_old()

    @property
    def count(self) -> int:
        """Of sessions."""
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Of all contents."""
        return sum(entry.nbytes for entry in self._entries.values())

    def _forget_old(self) -> None:
        oldest = self._clock() - self._seconds
        for secret in [secret for secret, entry in self._entries.items() if entry.used < oldest]:
            del self._entries[secret]

    def _shrink(self) -> None:
        while len(self._entries) > self._most or (self.nbytes > self._most_bytes and len(self._entries) > 1):
            self._entries.popitem(last=False)
