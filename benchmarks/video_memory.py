"""Does memory stay flat over a long video? `ruac video` on a synthetic film of 2,000 frames of 512 x 288 pixels, with nano.

    python benchmarks/video_memory.py            # minutes
    python benchmarks/video_memory.py --quick    # 60 frames, under 50 s

The command runs as a process of its own, whose resident memory is read while it tracks, forward and, from the middle, back, and while
it draws the overlay. What counts is how far either ends from where it was, and how far it strayed, once it was under way (WARM frames
tracked, a fifth of the drawing done): buffers of the network and of the film's encoder are made with the first frames, and stay. The
last line is one JSON object; exit code 1 when the target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ruac.machine import describe_machine
from ruac.video.movie import encoder
from ruac.video.results import MASKS, PROGRESS, TRACK

FRAMES, QUICK = 2000, 60
WARM, QUICK_WARM = 200, 20
SIZE = (288, 512)
TARGET_MB = 100
POLL = 0.2  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="nano, or a folder")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} frames")
    options = parser.parse_args()
    frames, warm = (QUICK, QUICK_WARM) if options.quick else (FRAMES, WARM)
    with tempfile.TemporaryDirectory() as name:
        film, out = Path(name) / "film.mp4", Path(name) / "out"
        with encoder(film, 24) as write:
            for i in range(frames):
                write(picture(i))
        words = ["video", film, "--point", "{},{}".format(*centre(frames // 2)), "--frame", frames // 2, "--out", out]
        command = [sys.executable, "-m", "ruac", *map(str, words), "--model", options.model]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        seen = watch(process, out)
        seconds = time.perf_counter() - start
        if process.returncode:
            sys.exit(process.returncode)
        tracked = len(list((out / MASKS).glob("*.png")))
    tracking = [each.megabytes for each in seen if not each.drawing and each.done >= warm]
    drawing = [each.megabytes for each in seen if each.drawing]
    drawing = drawing[len(drawing) // 5 :]
    figures = {
        "frames": tracked,
        "tracking_growth_mb": round(tracking[-1] - tracking[0], 1),
        "tracking_strayed_mb": round(strayed(tracking), 1),
        "drawing_growth_mb": round(drawing[-1] - drawing[0], 1),
        "drawing_strayed_mb": round(strayed(drawing), 1),
        "peak_mb": round(max(each.megabytes for each in seen), 1),
        "frames_per_second_with_overlay": round(tracked / seconds, 2),
    }
    targets = {name: TARGET_MB for name in figures if name.endswith(("growth_mb", "strayed_mb"))}
    missed = [name for name in targets if abs(figures[name]) > TARGET_MB]
    print(
        json.dumps(
            {"figures": figures, "targets": targets, "missed": missed, "quick": options.quick, "machine": describe_machine()}
        )
    )
    return 1 if missed else 0


def strayed(megabytes: Sequence[float]) -> float:
    """The largest distance from the first, up or down."""
    return max(abs(each - megabytes[0]) for each in megabytes)


def centre(i: int) -> tuple[int, int]:
    """(x, y) of the disk on a frame."""
    return round(256 + 150 * np.cos(i / 60)), round(144 + 70 * np.sin(i / 45))


def picture(i: int) -> np.ndarray:
    """An orange disk on its way over a green gradient."""
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    frame = np.empty((*SIZE, 3), np.uint8)
    frame[..., 0], frame[..., 1], frame[..., 2] = 40, 90 + columns // 8, 60 + rows // 6
    x, y = centre(i)
    frame[(rows - y) ** 2 + (columns - x) ** 2 < 45**2] = (240, 140, 40)
    return frame


@dataclass(frozen=True)
class Reading:
    """done: frames tracked; drawing: whether the overlay is being drawn; megabytes: resident."""

    done: int
    drawing: bool
    megabytes: float


def watch(process: subprocess.Popen[bytes], out: Path) -> list[Reading]:
    """Until the process has ended."""
    seen: list[Reading] = []
    while process.poll() is None:
        time.sleep(POLL)
        status = Path(f"/proc/{process.pid}/statm")
        if (out / PROGRESS).is_file() and status.is_file() and (fields := status.read_text().split()):
            done = len(list((out / MASKS).glob("[0-9]*.png")))
            seen.append(Reading(done, (out / TRACK).is_file(), int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6))
    return seen


if __name__ == "__main__":
    sys.exit(main())
