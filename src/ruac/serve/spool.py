"""The folder of the uploads, which all workers share: a file an image, named by the hash of its bytes, never by what a client says."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ID = re.compile(r"[0-9a-f]{64}")
INCOMING = ".incoming-"
BLOCK = 4096  # bytes, the least that a disk gives a file
ABANDONED = 3600.0  # seconds after which an unfinished upload is one of a process that has died


class FullError(Exception):
    """No place for a further upload until others expire."""


@dataclass
class Incoming:
    """An upload that is being received. path: of its file, which is removed unless it is kept."""

    path: Path
    file: IO[bytes]

    def __post_init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.file.write(chunk)

    @property
    def id(self) -> str:
        """SHA-256 of all that was written, in hexadecimal."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Spool:
    """ttl: seconds after its last use that an image is there for certain; max_bytes: of all files together, in whole blocks.

    What is full is not emptied by force: whoever got an id can use it until it expires.
    """

    folder: Path
    ttl: float
    max_bytes: int

    def open(self) -> None:
        """Makes the folder. Raises ValueError for one that others could write to: its files are read as they are."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = self.folder.stat()
        if state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"--spool {self.folder}: not yours alone; run chmod 700 on it or name another folder")

    def require_place(self) -> None:
        """For a further upload, once what has expired is gone. Looks at every file. Raises FullError."""
        if self.sweep() >= self.max_bytes:
            raise FullError

    @contextlib.contextmanager
    def receive(self) -> Iterator[Incoming]:
        """An upload, which is removed at the end unless it was kept."""
        with tempfile.NamedTemporaryFile(prefix=INCOMING, dir=self.folder, delete=False) as file:
            path = Path(file.name)
            try:
                yield Incoming(path, file)
            finally:
                path.unlink(missing_ok=True)

    def keep(self, incoming: Incoming) -> str:
        """Under its id, for the time to live. Whole or not at all: readers never see half a file."""
        incoming.file.flush()
        incoming.path.replace(self.folder / incoming.id)
        return incoming.id

    def find(self, image: str) -> Path | None:
        """The file of an id, which is used and lives on; None of one that is no id, was never kept or has expired."""
        path = self.folder / image
        if not ID.fullmatch(image):
            return None
        try:
            if time.time() - path.stat().st_mtime > self.ttl:
                return None
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def sweep(self) -> int:
        """Removes what has expired; bytes of the disk that the others take."""
        now, taken = time.time(), 0
        for path, state in self._files():
            if now - state.st_mtime > (ABANDONED if path.name.startswith(INCOMING) else self.ttl):
                path.unlink(missing_ok=True)
            else:
                taken += max(BLOCK, math.ceil(state.st_size / BLOCK) * BLOCK)
        return taken

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Ours; another worker may take one away at any time."""
        for path in self.folder.iterdir():
            if path.name.startswith(INCOMING) or ID.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):
                    yield path, path.stat()
