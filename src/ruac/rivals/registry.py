"""The fitted methods by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruac.data.folder import FolderSet
from ruac.errors import one_line
from ruac.evaluate.question import Method
from ruac.model import RuacModel
from ruac.rivals import dropout, evidential, laplace, store
from ruac.rivals.lessons import Lessons

Fit = Callable[[RuacModel, Sequence[FolderSet], Path, Lessons], Path]


@dataclass(frozen=True)
class Rival:
    """fit: writes a file; open: what is in one, as a method of the model that it was fitted to."""

    fit: Fit
    open: Callable[[store.Stored, RuacModel], Method]


RIVALS = {
    laplace.NAME: Rival(laplace.fit_laplace, laplace.open_laplace),
    evidential.NAME: Rival(evidential.fit_evidential, evidential.open_evidential),
    dropout.NAME: Rival(dropout.fit_dropout, dropout.open_dropout),
}
FITS: dict[str, Fit] = {name: rival.fit for name, rival in RIVALS.items()}


def open_rivals(model: RuacModel, files: Sequence[Path]) -> dict[str, Method]:
    """Methods by name, from files that the fits wrote.

    Raises FileNotFoundError, and ValueError for a file that is none, was fitted to another decoder, or holds a method that is there.
    """
    methods: dict[str, Method] = {}
    for file in files:
        stored = store.read(file, model)
        if stored.method not in RIVALS:
            raise ValueError(f"{file}: holds an unknown method '{stored.method}'; known are {', '.join(RIVALS)}")
        if stored.method in methods:
            raise ValueError(f"{file}: a second file with the method '{stored.method}'; give one")
        try:
            methods[stored.method] = RIVALS[stored.method].open(stored, model)
        except ValueError as error:
            raise ValueError(one_line(error, str(file))) from None
        except KeyError as error:
            raise ValueError(f"{file}: without {one_line(error)}; fit it again with `ruac train --method`") from None
    return methods
