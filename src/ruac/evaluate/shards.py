"""Several processes for one evaluation: each writes part files of its own, which the first one puts together.

The processes are those of `torchrun` or `accelerate launch`. The images that are left of a set are dealt to them one by one, so
that nobody is done much earlier than the others. Nothing but files passes between them: a run that was killed is taken up by any other
number of processes, or by one.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from accelerate import PartialState

from ruac.evaluate.results import Origin, ResultsFile

# the others wait for the slowest
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Crew:
    """rank: of this process among `size`; device: the one it works on."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @staticmethod
    def of(device: str) -> Crew:
        """The processes that were launched together, just this one where there was no launcher."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return Crew(device=device)
        on_gpu = device == "cuda"
        state = PartialState(cpu=not on_gpu, timeout=PATIENCE)
        return Crew(state.process_index, state.num_processes, str(state.device) if on_gpu else device)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until everybody is here."""
        if self.size > 1:
            PartialState().wait_for_everyone()


def main_path(out: Path, name: str) -> Path:
    """The rows of a set."""
    return out / f"{name}.jsonl"


def part_path(out: Path, name: str, rank: int) -> Path:
    """The rows that one of several processes made."""
    return out / f"{name}.part-{rank}.jsonl"


def open_whole(out: Path, name: str, origin: Origin) -> ResultsFile:
    """The rows of a set, those in part files taken over. For one process at a time.

    Raises ValueError when some were made by something else or are damaged.
    """
    whole = ResultsFile(main_path(out, name), name, origin)
    is_part = re.compile(re.escape(name) + r"\.part-\d+\.jsonl")
    for path in sorted(out.glob(f"{glob.escape(name)}.part-*.jsonl")):
        if is_part.fullmatch(path.name):
            part = ResultsFile(path, name, origin)
            whole.absorb(part)
            for leftover in part.paths:
                leftover.unlink(missing_ok=True)
    return whole
