"""How fast `ruac eval` is, where its time goes, and whether its memory stays flat: `python benchmarks/eval_throughput.py [--quick]`.

Pictures of 512 px with three objects each, five clicks an object, judged after 1, 3 and 5, all measures of the two usual methods, by
the model and by a SAM 2.1 tiny of random weights at its 1024 px; then many small pictures and a model of 64 px through the whole
evaluation, files and all. Everything is made up, no data set is needed; reading and writing files is not in the speed.

Encoding should take most of the time, for everything else is overhead. With nano it cannot: its encoder was made so small that
fifteen answers of the decoder take longer. There encoding and decoding together are judged, and encoding alone with SAM 2.1 tiny.

--quick takes fewer pictures. Prints one JSON object as its last line; exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import around_sam2_tiny, tiny
from PIL import Image

from ruac.data.folder import FolderSet
from ruac.evaluate.pool import Pool
from ruac.evaluate.protocol import LabelledImage, Protocol, evaluate_image
from ruac.evaluate.results import Row
from ruac.evaluate.run import evaluate_sets
from ruac.loading import load
from ruac.machine import describe_machine, peak_megabytes
from ruac.model import RuacModel

SIDE, OBJECTS, CORES = 512, 3, 2
PROTOCOL = Protocol(clicks=(1, 3, 5), max_objects=OBJECTS)
IMAGES_A_SECOND = 3.0
MODEL_SHARE = 0.5  # of the time, that encoding and decoding must take at least: the rest is measuring
ENCODE_SHARE = 0.5  # of the time, that encoding must take at least where the encoder is a real one
SAM2_TINY = "SAM 2.1 tiny"
GROWTH_MB = 50.0
SMALL = 96  # side of the pictures that memory is watched over
WARM = 50  # pictures after which memory must not grow any more


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="nano, or a folder")
    parser.add_argument("--quick", action="store_true", help="8 pictures for the speed and 200 for the memory")
    options = parser.parse_args()
    speed = measure_speed(options.model, 8 if options.quick else 60)
    large = measure_speed(SAM2_TINY, 2 if options.quick else 8)
    torch.set_num_threads(CORES)
    memory = measure_memory(tiny(), 200 if options.quick else 2000)
    missed = [
        name
        for name, reached in (
            ("images_a_second", speed["images_a_second"] >= IMAGES_A_SECOND),
            ("model_share", speed["encode_share"] + speed["decode_share"] > MODEL_SHARE),
            ("sam2_tiny_encode_share", large["encode_share"] >= ENCODE_SHARE),
            ("growth_mb", memory["growth_mb"] <= GROWTH_MB),
        )
        if not reached
    ]
    targets = {
        "images_a_second": IMAGES_A_SECOND,
        "model_share": MODEL_SHARE,
        "sam2_tiny_encode_share": ENCODE_SHARE,
        "growth_mb": GROWTH_MB,
    }
    figures = {**speed, **{f"sam2_tiny_{name}": value for name, value in large.items()}, **memory}
    figures = {name: round(value, 3) for name, value in figures.items()}
    told = {"figures": figures, "targets": targets, "missed": missed, "quick": options.quick, "machine": describe_machine()}
    print(json.dumps({**told, "model": options.model}))
    return 1 if missed else 0


def measure_speed(model: str, images: int) -> dict[str, float]:
    """Images a second of CORES processes together, as `torchrun --nproc_per_node 2 -m ruac eval` has them, and the shares of encoding,
    decoding (head and enlarged logits among it) and of all the rest."""
    context = multiprocessing.get_context("spawn")
    together, answers = context.Barrier(CORES), context.Queue()
    each = -(-images // CORES)
    workers = [
        context.Process(target=work, args=(model, each, number, together, answers), daemon=True) for number in range(CORES)
    ]
    for worker in workers:
        worker.start()
    spent = [answers.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    seconds = sum(one["all"] for one in spent)
    encode, decode = (sum(one[part] for one in spent) / seconds for part in ("encode", "decode"))
    return {
        "images_a_second": CORES * each / max(one["all"] for one in spent),
        "encode_share": encode,
        "decode_share": decode,
        "metrics_share": 1 - encode - decode,
    }


def work(name: str, images: int, number: int, together: Barrier, answers: multiprocessing.Queue[dict[str, float]]) -> None:
    """One of the processes: its pictures one after the other, on one core."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    rng = np.random.default_rng(number)
    pictures = [made_up(str(i), SIDE, rng) for i in range(images)]
    spent: dict[str, float] = defaultdict(float)
    model = around_sam2_tiny() if name == SAM2_TINY else load(name)
    clocked = Clocked(model, spent)
    evaluate_image(clocked, pictures[0], PROTOCOL)  # pyright: ignore[reportArgumentType]  warms up
    spent.clear()
    together.wait(timeout=120)
    start = time.perf_counter()
    for picture in pictures:
        result = evaluate_image(clocked, picture, PROTOCOL)  # pyright: ignore[reportArgumentType]
        Row.of(result, Pool.of(result))
    answers.put({**spent, "all": time.perf_counter() - start})


def measure_memory(model: RuacModel, images: int) -> dict[str, float]:
    """Growth of the peak of resident memory from picture WARM to the last one, in MB, of `evaluate_sets` with all its files."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "made_up"
        for part in ("images", "masks"):
            (root / part).mkdir(parents=True)
        for i in range(images):
            picture = made_up(f"{i:04d}", SMALL, rng)
            Image.fromarray(picture.image).save(root / "images" / f"{picture.id}.png")
            Image.fromarray(picture.ids).save(root / "masks" / f"{picture.id}.png")
        sets, out = [FolderSet.open(root)], Path(folder) / "out"
        evaluate_sets(model, sets, out, PROTOCOL, max_images=WARM)
        before = peak_megabytes()
        evaluate_sets(model, sets, out, PROTOCOL)
        return {"growth_mb": peak_megabytes() - before, "peak_mb": peak_megabytes(), "images_for_memory": float(images)}


class Clocked:
    """The model, with the time that its parts take added up."""

    def __init__(self, model: RuacModel, spent: dict[str, float]):
        self.model, self.spent = model, spent

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def prepare(self, *arguments: Any) -> Any:
        return self._timed("encode", self.model.prepare, *arguments)

    def encode(self, *arguments: Any) -> Any:
        return self._timed("encode", self.model.encode, *arguments)

    def decode(self, *arguments: Any) -> Any:
        return self._timed("decode", self.model.decode, *arguments)

    def __call__(self, *arguments: Any) -> Any:
        return self._timed("decode", self.model, *arguments)

    def _timed(self, part: str, function: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        answer = function(*arguments)
        self.spent[part] += time.perf_counter() - start
        return answer


def made_up(name: str, side: int, rng: np.random.Generator) -> LabelledImage:
    """Noise with three discs of their own brightness, which overlap where they do."""
    rows, columns = np.mgrid[:side, :side]
    image, ids = rng.integers(0, 90, (side, side, 3), dtype=np.uint8), np.zeros((side, side), np.uint8)
    for i in range(1, OBJECTS + 1):
        x, y = rng.uniform(0.2, 0.8, 2) * side
        disc = (rows - y) ** 2 + (columns - x) ** 2 < (rng.uniform(0.08, 0.2) * side) ** 2
        image[disc] += np.uint8(40 * i)
        ids[disc] = i
    return LabelledImage(name, image, ids)


if __name__ == "__main__":
    sys.exit(main())
