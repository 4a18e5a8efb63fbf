"""What a training run writes down: a row a step in log.csv, a row a set and validation in validation.csv."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path

from ruac.errors import one_line
from ruac.training.checkpoint import Position
from ruac.writing import write_whole


class StepLog:
    """Figures of every step, appended to a CSV file: stage, step, time in seconds, figures as JSON.

    Rows of steps that a killed run had made after its last checkpoint are dropped: they are made again.
    """

    def __init__(self, path: Path, at: Position):
        if path.is_file():
            _write(path, [row for row in _rows(path) if len(row) == 4 and _place(row) < (at.stage, at.step)])
        self.file = path.open("a", newline="", buffering=1)  # a line a step, readable while the run goes on
        self.writer = csv.writer(self.file)

    def add(self, stage: int, step: int, figures: dict[str, float]) -> None:
        self.writer.writerow([stage, step, f"{time.time():.1f}", json.dumps({k: round(v, 5) for k, v in figures.items()})])

    def __enter__(self) -> StepLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def write_validation(path: Path, at: Position, results: Sequence[Sequence[object]]) -> None:
    """Add rows stage, step, *result; those of this or a later position, which a killed run had written, are dropped."""
    before = [row for row in _rows(path) if _place(row) < (at.stage, at.step)] if path.is_file() else []
    _write(path, [*before, *([at.stage, at.step, *result] for result in results)])


def _rows(path: Path) -> list[list[str]]:
    """Those that begin with a stage and a step. Raises ValueError naming a file that is no such table."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
        for row in rows:
            _place(row)
    except (csv.Error, ValueError, IndexError) as error:
        raise ValueError(one_line(error, f"{path}: damaged; move it away")) from None
    return rows


def _place(row: Sequence[str]) -> tuple[int, int]:
    return int(row[0]), int(row[1])


def _write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_whole(path, text.getvalue().encode())
