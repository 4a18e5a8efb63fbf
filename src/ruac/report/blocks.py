"""What a report is made of, before it is written as HTML or Markdown: all text is plain text, escaped by whoever writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mark = Literal["", "best", "close", "better", "worse", "apart"]
# said by a sign as well as by weight and colour
SIGNS: dict[Mark, str] = {"": "", "best": "★", "close": "≈", "better": "▲", "worse": "▼", "apart": "†"}


@dataclass(frozen=True)
class Cell:
    """text: what it says; detail: smaller, below it, such as an interval; mark: what is to be noticed."""

    text: str
    detail: str = ""
    mark: Mark = ""

    @property
    def sign(self) -> str:
        return SIGNS[self.mark]


@dataclass(frozen=True)
class Table:
    """The first column heads the rows. notes: how to read it, a paragraph each; folded: only its title is seen until asked for;
    prose: cells of words, not of numbers."""

    title: str
    header: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    folded: bool = False
    prose: bool = False
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Picture:
    """name: of its file; content: SVG or JPEG, by the name's ending; alt: what one would see."""

    title: str
    name: str
    content: bytes
    alt: str
    notes: tuple[str, ...] = ()
    folded: bool = False
    kind: Literal["picture"] = "picture"


@dataclass(frozen=True)
class Listing:
    """Lines in a list, or commands to type."""

    title: str
    lines: tuple[str, ...]
    commands: bool = False
    folded: bool = False
    notes: tuple[str, ...] = ()
    kind: Literal["listing"] = "listing"


Block = Table | Picture | Listing


@dataclass(frozen=True)
class Section:
    """anchor: a word of letters; words: paragraphs before the blocks."""

    anchor: str
    title: str
    words: tuple[str, ...]
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Report:
    """made: when and by what, in a line; sections: a table of contents lists them."""

    title: str
    subtitle: str
    made: str
    sections: tuple[Section, ...]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return tuple(block for section in self.sections for block in section.blocks if isinstance(block, Picture))
