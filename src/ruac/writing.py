"""Where results go: folders that are folders, files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY = ".*.tmp"  # what a file is called until it is whole


def require_folder(out: Path) -> None:
    """Raises ValueError when what --out names is there and no folder."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: a file, not a folder; name another one")


def write_whole(path: Path, content: bytes) -> None:
    """The file appears with all its content or, after an error or an interruption, not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
