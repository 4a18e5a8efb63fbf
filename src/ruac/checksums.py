"""SHA256SUMS of a folder of weights: a flipped bit would otherwise only make the masks a little worse."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ruac.writing import write_whole

FILE = "SHA256SUMS"
LOADED = ("model", "config.json")  # how the names begin of what is read; a head that somebody has put beside them is not


def write(folder: Path) -> None:
    """Checksums of the weights and the configuration in a folder, in the format of the tool `sha256sum`."""
    files = [path for path in sorted(folder.iterdir()) if _counts(path)]
    lines = [f"{sha256_of(path)}  {path.name}\n" for path in files]
    write_whole(folder / FILE, "".join(lines).encode())


def verify(folder: Path) -> None:
    """Raises ValueError naming a file that has changed, or come, since the checksums were written. A folder without them passes."""
    if not (folder / FILE).is_file():
        return
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{folder / FILE}: damaged; get a fresh copy of the folder") from None
    sums = {name: expected for expected, _, name in (line.partition("  ") for line in lines)}
    for path in filter(_counts, sorted(folder.iterdir())):
        listed = path.name in sums or path.name.startswith(LOADED)
        if listed and sums.get(path.name) != sha256_of(path):
            raise ValueError(f"{path}: changed since it was written (its SHA-256 is not that in {FILE}); get a fresh copy")


def _counts(path: Path) -> bool:
    return path.suffix == ".safetensors" or path.name == "config.json"


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
