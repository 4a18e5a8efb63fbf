"""What there is to know of a published data set before it can be used."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from ruac.data.readers import Reader

Group = Literal["objects", "scenes", "scientific", "egocentric", "source"]


@dataclass(frozen=True)
class Domain:
    """A data set as published.

    group: of the paper's evaluation, or source, which is trained on; split: the part that is read; layout: how it lies on disk,
    a line a path, the first one saying what ROOT is; reader: kind of annotations and where they are; verified: what of this was
    checked against what, and what was not; notes: what to know besides.
    """

    name: str
    title: str
    group: Group
    home: str
    licence: str
    citation: str
    split: str
    layout: tuple[str, ...]
    reader: Reader
    verified: str
    notes: str = ""

    @property
    def first_frame_only(self) -> bool:
        """Whether only the first frame of every video is read."""
        return bool(getattr(self.reader, "first_frame_only", False))

    def reading(self) -> str:
        """The reader in a line: its kind and those of its arguments that are not the default."""
        own = [(field.name, getattr(self.reader, field.name)) for field in fields(cast(Any, self.reader))]
        defaults = {field.name: field.default for field in fields(cast(Any, self.reader))}
        told = ", ".join(f"{name}={_short(value)}" for name, value in own if value != defaults[name])
        return f"{type(self.reader).__name__}({told})"


def _short(value: object) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], tuple) and all(len(pair) == 2 for pair in value):
        return ", ".join(f"{labels} -> {images}" for labels, images in value)
    return repr(value)
