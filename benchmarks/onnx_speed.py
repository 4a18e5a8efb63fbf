"""What onnxruntime gains on two CPU threads, and what 8 bits lose: nano's encoder in torch, as fp32 and as int8 graphs.

    python benchmarks/onnx_speed.py            # three pictures of every set of RUAC_DATA/eval
    python benchmarks/onnx_speed.py --quick    # one, of every third set, under 50 s: whether it runs

Speed: encoding a picture that is prepared, all ways in turn; ratios are medians of the ratios within rounds. Difference: the largest
of any pixel's probability between torch and the fp32 graphs, on a picture of each set. Loss: every object is clicked once at its
centre and, apart, given its box; mean IoU of the masks and AUROC of finding their wrong pixels by the doubt, both averaged over the
sets, fp32 less int8. The 8-bit ranges come from RUAC_DATA/train. The last line is one JSON object; exit code 1 when a
target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ruac.data.folder import IGNORE, FolderSet, Sample, find_sets
from ruac.data.prompts import first_click, jittered_box
from ruac.evaluate.error_detection import ErrorHistogram, histograms
from ruac.evaluate.metrics import iou
from ruac.evaluate.protocol import Protocol, choose_objects, read
from ruac.export.bundle import DECODER, ENCODER
from ruac.export.check import compare
from ruac.export.command import bundle_of, picture_files, picture_of, prepared
from ruac.export.graphs import to_onnx
from ruac.export.precision import lowered
from ruac.loading import load
from ruac.machine import describe_machine
from ruac.model import RuacModel
from ruac.onnx_backend import OnnxModel, open_session
from ruac.predictor import Predictor, Prompt

THREADS, WARM_UP, ROUNDS = 2, 5, 40
LEAST_FP32, LEAST_INT8, MOST_DIFFERENCE, MOST_LOST = 1.5, 1.3, 1e-3, 0.01


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(os.environ.get("RUAC_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=root / "eval", help="folder of sets")
    parser.add_argument("--calibration-images", type=Path, default=root / "train")
    parser.add_argument("--images", type=int, default=3, help="of each set, evenly over it")
    parser.add_argument("--objects", type=int, default=4, help="of an image")
    parser.add_argument("--quick", action="store_true", help="one image of every third set, under 50 s")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    sets = find_sets([options.data])[:: 3 if options.quick else 1]
    samples = {part.name: spread(part, 1 if options.quick else options.images) for part in sets}
    model = load("nano")
    pixels = [prepared(model, picture_of(file)) for file in picture_files(options.calibration_images, "int8")]
    graphs = to_onnx(model)
    exported = {precision: opened(model, precision, graphs, pixels) for precision in ("fp32", "int8")}
    speed = encode_milliseconds(model, exported, pixels[0])
    pictures = [read(some[0]).image for some in samples.values()]
    difference = compare(model, exported["fp32"], pictures)["largest_probability"]
    found = {precision: accuracy(Predictor(each), samples, options.objects) for precision, each in exported.items()}
    lost = {
        name: float(np.nanmean([found["fp32"][part][i] - found["int8"][part][i] for part in samples]))
        for i, name in enumerate(("iou", "auroc"))
    }
    faster = {
        "fp32_to_torch": ratio(speed["torch"], speed["fp32"]),
        "int8_to_fp32": ratio(speed["fp32"], speed["int8"]),
        "int8_to_torch": ratio(speed["torch"], speed["int8"]),
    }
    missed = [
        *(["fp32 speed"] if faster["fp32_to_torch"] < LEAST_FP32 else []),
        *(["int8 speed"] if faster["int8_to_fp32"] < LEAST_INT8 else []),
        *(["fp32 difference"] if difference > MOST_DIFFERENCE else []),
        *(f"int8 {name}" for name, value in lost.items() if not value <= MOST_LOST),
    ]
    figures = {
        "milliseconds": {name: round(statistics.median(values), 2) for name, values in speed.items()},
        "faster": {name: round(value, 2) for name, value in faster.items()},
        "largest_difference": difference,
        "lost": {name: round(value, 4) for name, value in lost.items()},
        "mean": {
            precision: dict(zip(("iou", "auroc"), np.round(np.nanmean(list(of.values()), 0), 4).tolist(), strict=True))
            for precision, of in found.items()
        },
        "least": {"fp32_to_torch": LEAST_FP32, "int8_to_fp32": LEAST_INT8},
        "most": {"largest_difference": MOST_DIFFERENCE, "lost": MOST_LOST},
        "sets": len(samples),
        "images": sum(map(len, samples.values())),
        "rounds": ROUNDS,
        "missed": missed,
        "machine": f"{describe_machine()}, {torch.get_num_threads()} threads",
    }
    print(json.dumps(figures))
    # single pictures say nothing about losses
    return 1 if [name for name in missed if not (options.quick and name in ("int8 iou", "int8 auroc"))] else 0


def spread(part: FolderSet, images: int) -> list[Sample]:
    """So many samples, evenly over the set."""
    step = max(1, len(part.samples) // images)
    return list(part.samples[::step][:images])


def opened(model: RuacModel, precision: str, graphs: dict[str, bytes], pixels: Sequence[np.ndarray]) -> OnnxModel:
    made = lowered(graphs, precision, pixels)
    return OnnxModel(bundle_of(model, "nano", precision, made), open_session(made[ENCODER]), open_session(made[DECODER]))


def encode_milliseconds(model: RuacModel, exported: dict[str, OnnxModel], pixels: np.ndarray) -> dict[str, list[float]]:
    """Of each round, by way."""
    tensor = torch.from_numpy(pixels)
    ways: dict[str, Callable[[], object]] = {"torch": lambda: model.encode(tensor, ())}
    ways |= {precision: lambda each=each: each.encode(tensor, ()) for precision, each in exported.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for turn in range(-WARM_UP, ROUNDS):
            for name, way in ways.items():
                way()  # so that no other way's threads and caches are in the way
                start = time.perf_counter()
                way()
                if turn >= 0:
                    taken[name].append(1000 * (time.perf_counter() - start))
    return taken


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def accuracy(predictor: Predictor, samples: dict[str, list[Sample]], objects: int) -> dict[str, tuple[float, float]]:
    """By set: mean IoU of the masks, and AUROC of the detection of their wrong pixels, nan where none or all are wrong."""
    found = {}
    for name, some in samples.items():
        ious, pixels = [], ErrorHistogram.empty()
        for sample in some:
            labelled = read(sample)
            valid = labelled.ids != IGNORE
            truths = [labelled.ids == i for i in choose_objects(labelled.ids, labelled.id, Protocol(max_objects=objects))]
            if not truths:
                continue
            predictor.set_image(labelled.image)
            prompts = [Prompt([first_click(truth)]) for truth in truths] + [Prompt(box=around(truth)) for truth in truths]
            for answer, truth in zip(predictor.predict_many(prompts), truths * 2, strict=True):
                mask = answer.masks[0]
                ious.append(iou(mask, truth, valid))
                logit = answer.distribution.resize(answer.frame, answer.side).scaled_mean()[0]
                pixels += histograms(logit, *map(torch.from_numpy, (mask, truth, valid, valid))).image
        if ious:
            found[name] = float(np.mean(ious)), pixels.read().auroc
    return found


def around(truth: np.ndarray) -> tuple[float, float, float, float]:
    """The box of an object, to the far edges of its last pixels."""
    x0, y0, x1, y1 = jittered_box(truth)
    return x0, y0, x1 + 1, y1 + 1


if __name__ == "__main__":
    sys.exit(main())
