"""What the documentation takes from elsewhere when it is built: the help of every command, the model card, the changes."""

from __future__ import annotations

import io
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from ruac.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
TAKEN = {"model_card.md": ROOT / "src" / "ruac" / "weights" / "nano" / "README.md", "changelog.md": ROOT / "CHANGELOG.md"}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """mkdocs calls this for every page."""
    name = page.file.src_uri
    if name == "commands.md":
        return markdown + "\n\n".join(map(section, COMMANDS))
    return without_header(TAKEN[name].read_text()) if name in TAKEN else markdown


def without_header(text: str) -> str:
    """Without the lines between --- that a model card begins with."""
    return text.split("---\n", 2)[2] if text.startswith("---\n") else text


def section(name: str) -> str:
    """Heading and help of a command, and of those that --method puts in its place."""
    command = COMMANDS[name]
    helps = [help_of([*name.split(), *words]) for words in [[], *(["--method", method] for method in command.methods)]]
    blocks = "\n\n".join(f"```text\n{text}```" for text in helps)
    return f"## ruac {name}\n\n{command.help[0].upper()}{command.help[1:]}.\n\n{blocks}"


def help_of(words: list[str]) -> str:
    """What `ruac WORDS --help` prints."""
    text = io.StringIO()
    # argparse leaves by SystemExit once it has helped
    with redirect_stdout(text), suppress(SystemExit):
        main([*words, "--help"])
    return text.getvalue()
