"""`ruac doctor`: is all here that ruac needs, and does it work? What it prints belongs into a bug report."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ruac.errors import WorkError, one_line

if TYPE_CHECKING:
    from ruac.model import RuacModel

# where the name to import is not that of the package
MODULES = {
    "docstring-parser": "docstring_parser",
    "huggingface-hub": "huggingface_hub",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
}
FOR_DEVELOPERS = {"dev", "docs"}
LEAST_IOU = 0.8  # of the embedded model's mask of a square that nobody could miss


@dataclass(frozen=True)
class Finding:
    """state: missing is what ruac can do without; words: what was found and, where it is not well, what to do."""

    about: str
    state: Literal["ok", "missing", "broken"]
    words: str


def doctor(model: str = "nano", device: str = "cpu") -> None:
    """Say what is installed and whether it works: versions, devices, extras, the files of a model, a click, the data folder.

    Missing extras are named with the line that installs them. Ends with exit code 1 when something is broken.

    Example: ruac doctor

    Args:
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM, or a file of original SAM 2 weights.
        device: cpu, cuda, mps ... that the click is tried on.

    Raises:
        WorkError: When something is broken.
    """
    broken = []
    for finding in examine(model, device):
        print(f"{finding.state:<8}{finding.about:<24}{finding.words}", flush=True)
        broken += [finding.about] if finding.state == "broken" else []
    if broken:
        raise WorkError(f"broken: {', '.join(broken)}")


def examine(model: str, device: str) -> Iterator[Finding]:
    """All that there is to find, one after the other; the model is not tried where a package does not work."""
    yield python()
    packages = [package(Requirement(text)) for text in requires("ruac") or [] if "extra ==" not in text]
    yield from packages
    names = [name for name in metadata("ruac").get_all("Provides-Extra") or [] if name not in FOR_DEVELOPERS]
    yield from map(extra, names)
    if all(found.state == "ok" for found in packages):
        yield devices()
        yield from model_and_click(model, device)
    yield data_folder(os.environ.get("RUAC_DATA"))


def python() -> Finding:
    """Python, the system, and ruac itself."""
    wanted = metadata("ruac")["Requires-Python"]
    words = f"{platform.python_version()} on {platform.platform()}, ruac {version('ruac')} in {Path(__file__).parent}"
    if platform.python_version() not in SpecifierSet(wanted, prereleases=True):
        return Finding("python", "broken", f"{words}: ruac needs Python {wanted}")
    return Finding("python", "ok", words)


def package(wanted: Requirement) -> Finding:
    """One that ruac cannot do without: is it there, new enough, and can it be imported?"""
    if lack := _lack(wanted):
        return Finding(wanted.name, "broken", f"{lack}: pip install '{wanted}'")
    try:
        import_module(MODULES.get(wanted.name, wanted.name))
    except Exception as error:  # noqa: BLE001  a damaged package raises whatever it trips over
        again = f"pip install --force-reinstall '{wanted}'"
        return Finding(wanted.name, "broken", f"{one_line(error, 'cannot be imported')}: {again}")
    return Finding(wanted.name, "ok", version(wanted.name))


def extra(name: str) -> Finding:
    """A group of packages that one command or another needs; they are not imported, which would take long."""
    texts = [text for text in requires("ruac") or [] if "extra ==" in text]
    wanted = [one for one in map(Requirement, texts) if one.marker and one.marker.evaluate({"extra": name})]
    lacking = [lack for one in wanted if (lack := _lack(one))]
    if lacking:
        return Finding(f"[{name}]", "missing", f"{', '.join(lacking)}: pip install 'ruac[{name}]'")
    return Finding(f"[{name}]", "ok", ", ".join(f"{one.name} {version(one.name)}" for one in wanted))


def devices() -> Finding:
    """What a --device can be."""
    import torch

    from ruac.machine import describe_machine

    cuda = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    others = [f"cuda:{number} ({card.name}, {card.total_memory / 1e9:.0f} GB)" for number, card in enumerate(cuda)]
    others += ["mps"] if torch.backends.mps.is_available() else []
    return Finding("devices", "ok", f"{', '.join(['cpu', *others])}; {describe_machine()}, {torch.get_num_threads()} threads")


def model_and_click(model: str, device: str) -> Iterator[Finding]:
    """Are the files of the model what was written, is a calibration beside them theirs, and does the model answer?"""
    from transformers.utils import logging

    from ruac.calibrate.bounds import Guarantee
    from ruac.loading import load
    from ruac.model import weights_sha256

    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            loaded = load(model, device)
        sha256 = weights_sha256(loaded)
        untrained = [str(warning.message) for warning in said if issubclass(warning.category, UserWarning)]
        yield Finding("model", "ok", "; ".join([f"{model}: {_files(model)}, weights {sha256[:12]}", *untrained]))
        guarantee = Guarantee.of(model, sha256, None, None)
    except (ValueError, OSError) as error:
        yield Finding("model", "broken", one_line(error))
        return
    yield Finding(
        "calibration", "missing" if guarantee is None else "ok", guarantee.words if guarantee else "none with the model"
    )
    yield click(loaded, LEAST_IOU if model == "nano" else 0.0)


def click(model: RuacModel, least_iou: float) -> Finding:
    """One click on a picture of a square. Broken where numbers are not finite, or the mask is worse than it can be."""
    import numpy as np

    from ruac.predictor import Predictor

    picture, square = np.full((240, 320, 3), 60, np.uint8), np.zeros((240, 320), bool)
    square[70:170, 110:210] = True
    picture[square] = 200, 40, 30
    start = time.perf_counter()
    predictor = Predictor(model)
    predictor.set_image(picture)
    answer = predictor.predict([[160, 120]])
    mask, uncertainty = answer.masks[0], answer.uncertainty[0]
    seconds = time.perf_counter() - start
    iou = float((mask & square).sum() / (mask | square).sum())
    words = f"{seconds:.2f} s for a square, IoU {iou:.2f}, uncertainty {uncertainty.mean():.3f} bit on average"
    sound = bool(np.isfinite(uncertainty).all()) and iou >= least_iou
    return Finding(
        "click", "ok" if sound else "broken", words if sound else f"{words}: torch computes wrongly here; reinstall it"
    )


def data_folder(named: str | None) -> Finding:
    """named: what RUAC_DATA says; nothing that ruac does for you needs it."""
    if named is None:
        return Finding("RUAC_DATA", "missing", "not set; tests and benchmarks on real data then look in ../shared/data")
    folder = Path(named)
    if not folder.is_dir():
        return Finding("RUAC_DATA", "broken", f"{folder}: no such folder; unset it, or name one with train/, eval/ ...")
    parts = {part.name: len(list(part.glob("*/images"))) for part in sorted(folder.iterdir()) if part.is_dir()}
    return Finding("RUAC_DATA", "ok", f"{folder}: " + ", ".join(f"{name} ({sets} sets)" for name, sets in parts.items()))


def _lack(wanted: Requirement) -> str:
    """What is wrong with an installed package; empty where nothing is."""
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is not installed"
    return "" if wanted.specifier.contains(found, prereleases=True) else f"{wanted.name} {found} is not {wanted.specifier}"


def _files(model: str) -> str:
    """How much a model takes on disk, and whether checksums vouch for it; loading has compared them."""
    from ruac import checksums
    from ruac.quality.command import own_folder

    folder = own_folder(model)
    if folder is None:
        return "no folder of its own"
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return f"{size / 1e6:.1f} MB, " + ("checksums right" if (folder / checksums.FILE).is_file() else "no checksums")
