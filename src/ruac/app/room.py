"""The temporary folder of the page: what people upload and what is made of it, bounded in bytes and in time, gone at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG


class Room:
    """folder: there already; most_bytes: of all files in it; seconds: without use, after which a file is forgotten; clock: for tests.

    files: what was uploaded, and what can be downloaded; work: of jobs, each of which cleans up behind itself.
    """

    def __init__(self, folder: Path, most_bytes: int, seconds: float, clock: Callable[[], float] = time.time):
        self.files, self.work = folder / "files", folder / "work"
        self.most_bytes, self._seconds, self._clock = most_bytes, seconds, clock
        for part in (self.files, self.work):
            part.mkdir()

    @property
    def nbytes(self) -> int:
        """Of all files; one that has two names counts once."""
        known = [state for part in (self.files, self.work) for _, state in _within(part) if S_ISREG(state.st_mode)]
        return sum({state.st_ino: state.st_size for state in known}.values())

    def holds(self, path: str) -> bool:
        """Whether that is a file that was uploaded here, or made here for download, and is not forgotten yet."""
        try:
            found = Path(path).resolve()
            return found.is_relative_to(self.files.resolve()) and found.is_file()
        except (ValueError, OSError):  # no path at all, or too long for one
            return False

    def use(self, paths: Iterable[Path]) -> None:
        """They are kept as long as if they had just come. Those that are gone already are left out."""
        for path in paths:
            with suppress(FileNotFoundError):
                os.utime(path, (self._clock(), self._clock()))

    def sweep(self) -> None:
        """Forget the files whose time is over."""
        oldest = self._clock() - self._seconds
        for path, state in list(_within(self.files)):  # all of it before a deletion makes its folder young
            if state.st_mtime < oldest:
                # gone already, or a folder with something in it; one that was made for a file that is yet to come is young
                with suppress(OSError):
                    path.unlink() if S_ISREG(state.st_mode) else path.rmdir()


def _within(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All that lies in a folder and the folders in it, these last, less what vanishes at this moment."""
    for place, folders, files in os.walk(folder, topdown=False):  # unlike rglob, goes on where a folder vanishes
        for name in (*files, *folders):
            path = Path(place, name)
            with suppress(FileNotFoundError):
                yield path, path.lstat()


@contextmanager
def temporary_room(most_bytes: int, seconds: float) -> Iterator[Room]:
    """Nothing of it is left afterwards, even where a job is still at work in it."""
    folder = Path(tempfile.mkdtemp(prefix="ruac-app."))
    try:
        yield Room(folder, most_bytes, seconds)
    finally:
        # under another name, so that a job which is still at work in it writes nothing more
        shutil.rmtree(folder.rename(f"{folder}.end"))
        shutil.rmtree(folder, ignore_errors=True)  # where one has made its own folder anew
