"""How long a photograph and a click take on two CPU threads: `python benchmarks/latency.py [--quick] [--random]`.

Prints one JSON object as its last line; exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from ruac.families.nano import NanoConfig
from ruac.machine import describe_machine
from ruac.model import RuacConfig, RuacModel
from ruac.predictor import Predictor

THREADS, SIDE, WARM_UP, ROUNDS = 2, 512, 3, 20
TARGETS = {"encode_ms": 150.0, "click_ms": 25.0, "model_mb": 10.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five rounds instead of twenty")
    parser.add_argument("--random", action="store_true", help="random weights: times alone")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    model = RuacModel(RuacConfig(sam=NanoConfig.of_size(SIDE).to_dict())).eval() if options.random else "nano"
    figures = measure(Predictor(model), 5 if options.quick else ROUNDS)
    if not options.random:
        figures["model_mb"] = Path(str(files("ruac") / "weights" / "nano" / "model.safetensors")).stat().st_size / 1e6
    missed = [name for name, value in figures.items() if name in TARGETS and value > TARGETS[name]]
    print(
        json.dumps(
            {
                "figures": figures,
                "targets": TARGETS,
                "missed": missed,
                "weights": "random" if options.random else "nano",
                "machine": f"{describe_machine()}, {torch.get_num_threads()} threads",
            }
        )
    )
    return 1 if missed else 0


def measure(predictor: Predictor, rounds: int) -> dict[str, float]:
    """Medians in milliseconds: encode, and one further click with its parts."""
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)

    def click() -> None:
        prediction = predictor.predict(point_coords=[[200, 220], [300, 100]], point_labels=[1, 0])
        _ = prediction.masks, prediction.uncertainty

    return {
        "encode_ms": median_ms(lambda: predictor.set_image(image), rounds),
        "click_ms": median_ms(click, rounds),
        "decode_ms": median_ms(lambda: predictor.predict([[200, 220], [300, 100]], [1, 0]), rounds),
    }


def median_ms(action: Callable[[], object], rounds: int) -> float:
    for _ in range(WARM_UP):
        action()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return round(1000 * statistics.median(times), 2)


if __name__ == "__main__":
    sys.exit(main())
