"""Where results go: folders that are folders, files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

ORPHANS = 8.0  # seconds that a killed run's own workers may take to notice and end
TEMPORARY = ".*.tmp"  # what a file is called until it is whole


def require_folder(out: Path) -> None:
    """Raises ValueError when what --out names is there and no folder."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: a file, not a folder; name another one")


def require_own(path: Path, out: Path) -> None:
    """Raises ValueError when what is to be written in --out, a file or a folder, does not lie there."""
    if path.resolve().parent != out.resolve():
        raise ValueError(f"{path}: a link that leads out of the folder, or a name that does")


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """The folder, made if need be, is written to by nobody else meanwhile: no file stays of that, and a kill ends it.

    Raises ValueError when somebody else does. Where the system or the file system has no such locks there is none.
    """
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        give_up = time.monotonic() + ORPHANS
        with suppress(OSError):  # no such locks
            while True:
                try:
                    held.enter_context(locked(out))
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up:
                        raise ValueError(
                            f"{out}: another process is writing there; wait for it, or choose another folder"
                        ) from None
                    time.sleep(0.2)
        yield


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """No file stays of the lock, and a kill ends it.

    Raises BlockingIOError when somebody else holds it, another OSError where the system or the file system has none.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        raise OSError("no locks") from None
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that names no file, as that of a full disk, names this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """The file appears with all its content or, after an error or an interruption, not at all. Raises OSError naming it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if path.exists() and not path.is_file():  # a file would take the place of /dev/null
        raise OSError(errno.EINVAL, "no file that could be replaced", str(path))
    try:
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        # it named none, or the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from error
