"""Is a `ruac label` that was killed the same, to the byte, as one that was not? 2,000 small images, a calibrated tiny random model.

    python benchmarks/label_resume.py            # minutes
    python benchmarks/label_resume.py --quick    # 150 images, under 50 s

One run is killed with SIGKILL at several places and started again each time, the other left alone; then all files of both folders
are compared. The last line is one JSON object; the exit code is 1 when a file differs or is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ruac.calibrate.command import calibrate
from ruac.families.nano import NanoConfig
from ruac.machine import describe_machine
from ruac.model import RuacConfig, RuacModel

IMAGES, QUICK, CALIBRATED = 2000, 150, 10
KILLS = (0.1, 0.35, 0.7)  # shares of the images after which the run is killed
SIZE = (48, 80)
POLL = 0.02  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} images")
    quick = parser.parse_args().quick
    images = QUICK if quick else IMAGES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, images)
        kills = [_killed(folder, round(share * images)) for share in (KILLS[1:2] if quick else KILLS)]
        _finish(folder, "killed")
        start = time.perf_counter()
        _finish(folder, "whole")
        seconds = time.perf_counter() - start
        killed, whole = (_digests(folder / out) for out in ("killed", "whole"))
    different = sorted(file for file in killed.keys() | whole.keys() if killed.get(file) != whole.get(file))
    figures = {
        "images": images,
        "files": len(whole),
        "done_when_killed": kills,
        "different_files": len(different),
        "images_per_second": round(images / seconds, 1),
    }
    missed = ["different_files"] if different or not whole else []
    report = {"figures": figures, "targets": {"different_files": 0}, "missed": missed, "examples": different[:5], "quick": quick}
    print(json.dumps({**report, "machine": describe_machine()}))
    return 1 if missed else 0


def _prepare(folder: Path, images: int) -> None:
    """Pictures of noise, a click for each, and a model of 64 px with random weights and a calibration on a few of the pictures."""
    rng = np.random.default_rng(0)
    (folder / "in").mkdir()
    names = [f"{i:05}.png" for i in range(images)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(folder / "in" / name)
    (folder / "points.json").write_text(json.dumps({name: [{"points": [[30, 20]], "label": "thing"}] for name in names}))
    torch.manual_seed(0)
    RuacModel(RuacConfig(sam=NanoConfig.of_size(64, width=32).to_dict(), head="exact")).save_pretrained(folder / "model")
    labelled = folder / "labelled"
    (labelled / "masks").mkdir(parents=True)
    (labelled / "images").symlink_to(folder / "in")
    ids = np.zeros(SIZE, np.uint8)
    ids[10:30, 20:50] = 1
    for name in names:
        Image.fromarray(ids).save(labelled / "masks" / name)
    calibrate([labelled], model=str(folder / "model"), alpha=[0.3], max_images=CALIBRATED)


def _words(folder: Path, out: str) -> list[str]:
    options = ["label", folder / "in", "--prompts", folder / "points.json", "--model", folder / "model", "--out", folder / out]
    return [sys.executable, "-m", "ruac", *map(str, options)]


def _killed(folder: Path, after: int) -> int:
    """Kill a run once so many images are done; returns how many were."""
    parts = folder / "killed" / "parts"
    process = subprocess.Popen(_words(folder, "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while _count(parts) < after and process.poll() is None:
        time.sleep(POLL)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return _count(parts)


def _count(parts: Path) -> int:
    return len(list(parts.glob("*.json")))


def _finish(folder: Path, out: str) -> None:
    subprocess.run(_words(folder, out), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    sys.exit(main())
