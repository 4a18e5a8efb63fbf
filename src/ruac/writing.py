"""Where results go: folders that are folders, files that are there whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ORPHANS = 8.0  # seconds that a killed run's own workers may take to notice and end
TEMPORARY = ".*.tmp"  # what a file is called until it is whole


def require_folder(out: Path) -> None:
    """Raises ValueError when what --out names is there and no folder."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: a file, not a folder; name another one")


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """The folder, made if need be, is written to by nobody else meanwhile: no file stays of that, and a kill ends it.

    Raises ValueError when somebody else does. Where the system or the file system has no such locks there is none.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder = os.open(out, os.O_RDONLY)
    give_up = time.monotonic() + ORPHANS
    try:
        with suppress(OSError):  # a file system without locks
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up:
                        raise ValueError(
                            f"{out}: another process is writing there; wait for it, or choose another folder"
                        ) from None
                    time.sleep(0.2)
        yield
    finally:
        os.close(folder)


def write_whole(path: Path, content: bytes) -> None:
    """The file appears with all its content or, after an error or an interruption, not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
