"""What a server is told at its start, the limits that it keeps, and the time that a request has left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

MIB = 2**20
MAX_PROMPTS = 32  # of a request
MAX_POINTS = 100  # of a prompt
MAX_JSON = 8 * MIB  # bytes of a request's body; 32 earlier masks of 256 x 256 take six million
MAX_ANSWER = 64 * MIB  # bytes
MAX_GRID = 32  # clicks a side of /everything
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # variable that prometheus_client reads when it is imported
LONGEST_WAIT = 30  # seconds, that a client is ever told to wait
BACKLOG = 256  # connections that the system holds until a worker takes them
BATCH = 16  # that a worker takes at once: all of them have a descriptor before the first of them is looked at


@dataclass(frozen=True)
class Settings:
    """spool: folder of the uploads; metrics: folder in which the workers count; ttl: seconds that an image is kept unused;
    timeout: seconds that a request may wait for its turn, and that its work may take; queue: requests that a worker accepts at a time;
    connections: that it holds open; cache_bytes, cache_images: what it keeps encoded. The token is left out of what is printed."""

    model: str
    head: Path | None
    device: str
    calibration: Path | None
    alpha: float | None
    workers: int
    spool: Path
    metrics: Path
    queue: int = 32
    connections: int = 1000
    timeout: float = 60.0
    ttl: float = 3600.0
    max_upload: int = 32 * MIB
    max_pixels: int = 25_000_000
    cache_bytes: int = 512 * MIB
    cache_images: int = 128
    spool_bytes: int = 2048 * MIB
    local: bool = True
    token: str | None = field(default=None, repr=False)


class LateError(Exception):
    """A request has used up its time."""


@dataclass(frozen=True)
class Deadline:
    """at: of `time.monotonic`."""

    at: float

    @staticmethod
    def after(seconds: float) -> Deadline:
        return Deadline(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds, not below 0."""
        return max(0.0, self.at - time.monotonic())

    def check(self) -> None:
        """Between two steps of long work, which nothing else can interrupt. Raises LateError."""
        if not self.left:
            raise LateError
