"""Peak memory of `ruac predict` on a photograph of 12 megapixels: `python benchmarks/predict_memory.py [--model FOLDER]`.

Prints one JSON object as its last line; exit code 1 when the target is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from matplotlib import cbook
from PIL import Image

SIZE = (4000, 3000)
TARGET_GB = 1.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano", help="nano, or a folder")
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder:
        photo, out = Path(folder) / "photo.jpg", Path(folder) / "out"
        Image.open(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))).resize(SIZE).save(photo, quality=92)
        words = [sys.executable, "-m", "ruac", "predict", photo, "--point", "2000,1200", "--out", out, "--model", model]
        start = time.perf_counter()
        subprocess.run([str(word) for word in words], check=True)
        seconds = time.perf_counter() - start
    # kilobytes on Linux, bytes on macOS
    unit = 1 if platform.system() == "Darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e9
    figures = {"peak_gb": round(peak, 3), "seconds": round(seconds, 1)}
    missed = ["peak_gb"] if peak > TARGET_GB else []
    print(json.dumps({"figures": figures, "targets": {"peak_gb": TARGET_GB}, "missed": missed, "megapixels": 12, "model": model}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
