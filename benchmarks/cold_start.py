"""From nothing to an answer: seconds of `ruac --help` and of `ruac predict` on one picture, each in a process of its own.

    python benchmarks/cold_start.py [--quick]

Medians; the first run of each is not counted, because it fills the caches of the disk. Prints one JSON object as its last line; exit
code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from matplotlib import cbook

from ruac.machine import describe_machine

TARGETS = {"help_s": 0.5, "predict_s": 3.5}
ROUNDS, QUICK = 20, 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rounds instead of {ROUNDS}, under 50 s")
    parser.add_argument("--model", default="nano", help="nano, or a folder")
    options = parser.parse_args()
    rounds = QUICK if options.quick else ROUNDS
    photo = str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        ways = {
            "help_s": ["--help"],
            "predict_s": ["predict", photo, "--point", "256,230", "--model", options.model, "--out", str(out)],
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(-1, rounds):
            for name, words in ways.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, "-m", "ruac", *words], check=True, stdout=subprocess.DEVNULL)
                if turn >= 0:
                    taken[name].append(time.perf_counter() - start)
        written = sorted(path.name for path in out.iterdir())
    figures = {name: round(statistics.median(values), 3) for name, values in taken.items()}
    missed = [name for name, value in figures.items() if value > TARGETS[name]]
    result = {
        "figures": figures,
        "fastest": {name: round(min(values), 3) for name, values in taken.items()},
        "targets": TARGETS,
        "missed": missed,
        "written": written,
        "rounds": rounds,
        "machine": describe_machine(),
    }
    print(json.dumps(result))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
