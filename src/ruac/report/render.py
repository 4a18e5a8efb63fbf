"""A report as one HTML page that needs nothing else, and as Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ruac.report.blocks import Cell, Listing, Picture, Report, Table

FIGURES = "figures"
MEDIA = {".svg": "image/svg+xml", ".jpg": "image/jpeg"}


def html(report: Report) -> str:
    """Everything that names of sets, models and methods could smuggle in is escaped by the template engine."""
    environment = Environment(
        loader=PackageLoader("ruac.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("page.html.j2").render(report=report)


def markdown(report: Report) -> str:
    """Pictures are files in the folder FIGURES next to it."""
    blocks = [f"# {_text(report.title)}", _text(report.subtitle)]
    for section in report.sections:
        blocks += [f"## {_text(section.title)}", *map(_text, section.words)]
        for block in section.blocks:
            blocks += [f"### {_text(block.title)}"] if block.title else []
            match block:
                case Table():
                    blocks.append(_markdown_table(block))
                case Picture():
                    blocks.append(f"![{_text(block.alt)}]({FIGURES}/{block.name})")
                case Listing():
                    blocks.append(
                        _fenced(block.lines) if block.commands else "\n".join(f"- {_text(line)}" for line in block.lines)
                    )
            blocks += map(_text, block.notes)
    return "\n\n".join([*blocks, _text(report.made)]) + "\n"


def _data_uri(picture: Picture) -> str:
    return f"data:{MEDIA[Path(picture.name).suffix]};base64,{base64.b64encode(picture.content).decode()}"


def _markdown_table(table: Table) -> str:
    lines = [table.header, *table.rows]
    written = ["| " + " | ".join(_markdown_cell(cell) for cell in line) + " |" for line in lines]
    return "\n".join([written[0], "| --- " * len(table.header) + "|", *written[1:]])


def _markdown_cell(cell: Cell) -> str:
    text = " ".join(part for part in (_text(cell.text), _text(cell.detail), cell.sign) if part)
    return f"**{text}**" if cell.mark == "best" else text


def _fenced(lines: Sequence[str]) -> str:
    """As code, in a fence that no line can close."""
    content = "\n".join(lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", content)), default=0))
    return f"{fence}\n{content}\n{fence}"


def _text(text: str) -> str:
    """Plain text as Markdown that shows just that, on one line."""
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]<>#|&$~!" else letter for letter in text)
    return " ".join(escaped.split())
