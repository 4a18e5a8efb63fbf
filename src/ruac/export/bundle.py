"""The folder that `ruac export` writes: encoder.onnx, decoder.onnx, and ruac-onnx.json, which says what they are."""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ruac.errors import one_line
from ruac.writing import locked, naming

FORMAT = "ruac-onnx-1"
DESCRIPTION, ENCODER, DECODER = "ruac-onnx.json", "encoder.onnx", "decoder.onnx"
FITS = ("pad", "stretch")
PRECISIONS = ("fp32", "fp16", "int8")
UNLOCKED = 10.0  # seconds that a folder may be there before its process has locked it, far more than it takes


@dataclass(frozen=True)
class Bundle:
    """What has to be known beside the two graphs.

    model: its name; model_sha256: of its weights, as `weights_sha256` has it; precision: of the files' weights; side: of the square
    input; grid: of the logits; fit: how a picture becomes that square, "pad" with its aspect ratio kept and `grey` on the right and
    below, or "stretch"; quality: the line of the calibrated expected IoU, or None; head_trained: whether the variance means anything;
    opset: of ONNX; files: SHA-256 of each graph; check: how far the answers on real pictures are from torch's; ruac: version.
    """

    model: str
    model_sha256: str
    precision: str
    side: int
    grid: int
    fit: str
    grey: int
    quality: dict[str, float] | None
    head_trained: bool
    opset: int
    files: dict[str, str]
    check: dict[str, float]
    ruac: str

    @property
    def sha256(self) -> str:
        """What the answers depend on: of fp32, whose answers are the model's, that of its weights; else of the files."""
        if self.precision == "fp32":
            return self.model_sha256
        return hashlib.sha256("".join(sorted(self.files.values())).encode()).hexdigest()


def is_exported(folder: Path) -> bool:
    """Whether `ruac export` wrote this folder."""
    return (folder / DESCRIPTION).is_file()


def require_place(folder: Path) -> None:
    """Raises ValueError where something is that `write` cannot have written."""
    if folder.exists() and not is_exported(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--out {folder}: is there, and no exported model; name another folder")


def write(folder: Path, bundle: Bundle, graphs: Mapping[str, bytes]) -> None:
    """The folder appears whole or not at all. Raises OSError naming it, and what `require_place` does."""
    require_place(folder)
    with naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent) as temporary,
            ExitStack() as held,
        ):
            with suppress(OSError):  # no such locks
                held.enter_context(locked(Path(temporary)))
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            new.mkdir()
            for name, content in graphs.items():
                (new / name).write_bytes(content)
            described = {"format": FORMAT, **asdict(bundle)}
            (new / DESCRIPTION).write_text(json.dumps(described, indent=2, allow_nan=False) + "\n")
            if folder.exists():
                os.replace(folder, old)  # noqa: PTH105  a folder over none
            try:
                os.replace(new, folder)  # noqa: PTH105
            except BaseException:
                if old.exists():
                    os.replace(old, folder)  # noqa: PTH105
                raise
    _remove_leftovers(folder)


def _remove_leftovers(folder: Path) -> None:
    """What killed processes left beside the folder: its like, older than it takes to lock one, and locked by nobody."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):
        with suppress(OSError), locked(left):
            if time.time() - left.stat().st_mtime > UNLOCKED and {path.name for path in left.iterdir()} <= {"new", "old"}:
                shutil.rmtree(left)


def read(folder: Path) -> tuple[Bundle, dict[str, bytes]]:
    """What `write` wrote, the graphs by name. Raises FileNotFoundError, and ValueError for what is damaged or of another format."""
    file = folder / DESCRIPTION
    if not is_exported(folder):
        raise FileNotFoundError(f"no exported model at {folder}: expected a folder that `ruac export` wrote, with {DESCRIPTION}")
    try:
        stored = json.loads(file.read_text())
        if not isinstance(stored, dict) or stored.pop("format", None) != FORMAT:
            raise ValueError(f"not of the format {FORMAT}")
        bundle = _checked(Bundle(**stored))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{one_line(error, str(file))}; export the model again") from None
    graphs = {}
    for name in (ENCODER, DECODER):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing; export the model again")
        graphs[name] = (folder / name).read_bytes()
        if sha256(graphs[name]) != bundle.files.get(name):
            raise ValueError(f"{folder / name}: changed since it was written; export the model again")
    return bundle, graphs


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _checked(bundle: Bundle) -> Bundle:
    """Raises ValueError."""
    numbers: dict[str, Any] = {name: getattr(bundle, name) for name in ("side", "grid", "grey", "opset")}
    for name, value in numbers.items():
        if type(value) is not int or not 0 <= value <= 2**16:
            raise ValueError(f"{name} is {value!r}")
    if not bundle.grid or bundle.side % bundle.grid:
        raise ValueError(f"a grid of {bundle.grid} does not fit an input of {bundle.side}")
    if bundle.fit not in FITS or bundle.precision not in PRECISIONS:
        raise ValueError(f"fit {bundle.fit!r}, precision {bundle.precision!r}")
    if not isinstance(bundle.files, dict) or not all(math.isfinite(value) for value in bundle.check.values()):
        raise ValueError("no checksums, or numbers that are none")
    return bundle
