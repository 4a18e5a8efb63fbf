"""How much of the encoder's own speed `ruac label` keeps on two CPU cores, and whether its memory stays flat.

    python benchmarks/label_throughput.py                         # minutes; needs RUAC_DATA
    python benchmarks/label_throughput.py --quick                 # under 50 s
    python benchmarks/label_throughput.py --page docs/scale.md    # the same, and what 10^6 and 10^9 images take

Speed: real pictures of all evaluation sets with the boxes of their largest objects. In turn, the lanes of `ruac label` take some
pictures from file to result files, and then torch encodes the same pictures, already read, and nothing else is done; once the same
number of lanes and threads, once one picture after the other with all threads, and the faster of the two counts. The median of the
ratios must be 0.9 or more, with one object a picture: for SAM 2.1 tiny (random weights), and for the embedded model in the fastest way
that there is on a CPU, exported to ONNX. The embedded model in torch is told, too, with one object and with three: its encoder is so
small that decoding, a third of its time, cannot hide behind it while both cores are busy.
Memory: 5,000 links to the same pictures, a random model of 64 px, so that all but the network is as it is; the peak of resident
memory must not grow by more than 50 MB after the first 200.

The last line is one JSON object; the exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from models import around_sam2_tiny, tiny
from numpy.typing import NDArray
from PIL import Image

from ruac.data.folder import FolderSet, find_sets
from ruac.data.image import read_image
from ruac.export.bundle import DECODER, ENCODER
from ruac.export.command import bundle_of
from ruac.export.graphs import to_onnx
from ruac.label.images import ImageFile
from ruac.label.lanes import in_lanes
from ruac.label.make import Job, Made, Maker
from ruac.label.part import MASKS, PARTS, Folder, open_folder
from ruac.label.prompts import Task, Wanted
from ruac.label.ray_engine import BLOCK, Recipe, on_ray
from ruac.label.run import label_images
from ruac.loading import load
from ruac.machine import describe_machine, peak_megabytes
from ruac.model import RuacModel, weights_sha256
from ruac.onnx_backend import OnnxModel, open_session
from ruac.predictor import Predictor
from ruac.regions import bounding_box

CORES, ROUNDS = 2, 20
SHARE, GROWTH_MB = 0.9, 50.0
WARM = 200  # pictures after which memory must not grow any more
SCALES = (10**6, 10**9)
MEASURED = {
    "nano_exported": "nano, exported to ONNX",
    "nano": "nano",
    "nano_three_objects": "nano",
    "sam2_tiny": "SAM 2.1 tiny",
}


@dataclass(frozen=True)
class Encoder(Maker):
    """Encodes pictures that are already read, and makes nothing of them."""

    pictures: dict[str, NDArray[np.uint8]]

    def make(self, job: Job) -> Made:
        self.predictor.set_image(self.pictures[job.name])
        return Made(job.name, failed="only encoded")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("RUAC_DATA", "../shared/data")) / "eval"
    parser.add_argument("--data", type=Path, default=default, help="folder of sets")
    parser.add_argument("--quick", action="store_true", help="fewer pictures a round, one round of SAM 2.1, 400 for the memory")
    parser.add_argument("--page", type=Path, help="where to write the estimate as Markdown")
    parser.add_argument("--core-hour", type=float, default=0.04, help="assumed price of a CPU core for an hour, in dollars")
    parser.add_argument("--gigabyte-month", type=float, default=0.023, help="assumed price of storage, in dollars")
    parser.add_argument(
        "--thousand-reads", type=float, default=0.0004, help="assumed price of 1,000 reads of a store, in dollars"
    )
    parser.add_argument("--cores", type=int, default=1000, help="of the cluster that is estimated")
    options = parser.parse_args()
    torch.set_num_threads(CORES)
    sets = find_sets([options.data])
    some = 4 if options.quick else 12
    # first, while nothing larger has been in memory
    figures = measure_memory(tiny(), jobs_of(sets, 400 if options.quick else 5000, 1))
    nano, sam2_tiny = load("nano"), around_sam2_tiny()
    for name, model, encoder, objects, pictures, rounds in (
        ("nano_exported", exported(nano), nano, 1, some, 8 if options.quick else ROUNDS),
        ("nano", nano, nano, 1, some, 8 if options.quick else ROUNDS),
        ("nano_three_objects", nano, nano, 3, some, 4 if options.quick else ROUNDS),
        ("sam2_tiny", sam2_tiny, sam2_tiny, 1, 2 if options.quick else 4, 1 if options.quick else ROUNDS),
    ):
        found = measure_speed(model, encoder, jobs_of(sets, pictures * rounds, objects), pictures)
        figures |= {f"{name}_{key}": value for key, value in found.items()}
    if not options.quick:
        figures |= measure_ray(jobs_of(sets, 240, 1))
    targets = {"nano_exported_share": SHARE, "sam2_tiny_share": SHARE, "growth_mb": GROWTH_MB}
    missed = [name for name in targets if not _reached(name, figures[name], targets[name])]
    machine = f"{describe_machine()}, {CORES} threads"
    if options.page:
        options.page.write_text(page(figures, options, machine), encoding="utf-8")
    rounded = {name: round(value, 4) for name, value in figures.items()}
    print(json.dumps({"figures": rounded, "targets": targets, "missed": missed, "quick": options.quick, "machine": machine}))
    return 1 if missed else 0


def _reached(name: str, value: float, target: float) -> bool:
    return value <= target if name == "growth_mb" else value >= target


def jobs_of(sets: Sequence[FolderSet], count: int, objects: int) -> list[Job]:
    """So many pictures, the sets in turn and again from the start, each with the boxes of its largest objects."""
    told: list[tuple[Path, tuple[Wanted, ...]]] = []
    in_turn = (sample for row in itertools.zip_longest(*(one.samples for one in sets)) for sample in row if sample)
    for sample in in_turn:
        if len(told) == count:
            break
        wanted = _boxes(np.asarray(Image.open(sample.mask)), objects)
        if wanted:
            told.append((sample.image, wanted))
    return [
        Job(f"{i:06}", Task(ImageFile(path, f"{i:06}{path.suffix}"), wanted, None))
        for i, (path, wanted) in enumerate(itertools.islice(itertools.cycle(told), count))
    ]


def _boxes(ids: NDArray[np.uint8], most: int) -> tuple[Wanted, ...]:
    sizes = np.bincount(ids.ravel(), minlength=256)
    sizes[[0, 255]] = 0
    largest = [i for i in np.argsort(-sizes, kind="stable")[:most] if sizes[i]]
    boxes = [bounding_box(ids == i) for i in largest]
    return tuple(Wanted(1, "box", (), (c.start, r.start, c.stop, r.stop)) for r, c in boxes)


def exported(model: RuacModel) -> OnnxModel:
    """As `ruac export` writes it and `ruac label --model EXPORTED` reads it."""
    graphs = to_onnx(model)
    return OnnxModel(bundle_of(model, "nano", "fp32", graphs), *(open_session(graphs[name]) for name in (ENCODER, DECODER)))


def measure_speed(model: RuacModel | OnnxModel, encoder: RuacModel, jobs: Sequence[Job], at_once: int) -> dict[str, float]:
    """Medians over rounds of so many pictures: share of the encoder's speed, pictures a second of `ruac label` and of the encoder in
    its two ways, objects a picture and bytes of results a picture."""
    maker, alone = Maker(Predictor(model), None, None), Predictor(encoder)
    with tempfile.TemporaryDirectory() as name:
        folder = open_folder(Path(name), {})
        _run(maker, CORES, jobs[:CORES], open_folder(Path(name) / "warm", {}))
        rounds: list[tuple[float, float, float]] = []
        for start in range(0, len(jobs), at_once):
            now = jobs[start : start + at_once]
            encoding = Encoder(alone, None, None, {job.name: read_image(job.task.image.place) for job in now})
            seconds = tuple(
                clock(action) / len(now)
                for action in (
                    lambda now=now: _run(maker, CORES, now, folder),
                    lambda now=now, encoding=encoding: list(in_lanes(encoding, now, CORES)),
                    lambda now=now, encoding=encoding: [encoding.make(job) for job in now],
                )
            )
            rounds.append((seconds[0], seconds[1], seconds[2]))
        written = sum(path.stat().st_size for kind in (PARTS, MASKS) for path in (folder.out / kind).iterdir())
    label, lanes, single = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {
        "share": statistics.median(min(a, b) / own for own, a, b in rounds),
        "images_a_second": 1 / label,
        "encoder_images_a_second": 1 / lanes,
        "encoder_one_by_one_images_a_second": 1 / single,
        "objects_an_image": statistics.mean(len(job.task.wanted) for job in jobs),
        "bytes_an_image": written / len(jobs),
    }


def _run(maker: Maker, lanes: int, jobs: Sequence[Job], folder: Folder) -> None:
    failed = label_images(lambda left: in_lanes(maker, left, lanes), jobs, folder)
    if failed:
        raise RuntimeError(failed[0])


def page(figures: dict[str, float], prices: argparse.Namespace, machine: str) -> str:
    """docs/scale.md"""
    measured = "\n".join(_measured(name, words, figures) for name, words in MEASURED.items())
    estimate = "\n".join(_row(name, words, count, figures, prices) for name, words in MEASURED.items() for count in SCALES)
    quick = " --quick" if prices.quick else ""
    flat = f"Over {figures['images_for_memory']:,.0f} pictures the peak of memory grew by {figures['growth_mb']:.0f} MB."
    ray = (
        f"Two workers of `--engine ray` on this machine label {figures['ray_images_a_second']:.1f} pictures/s with nano, "
        f"{figures['ray_start_seconds']:.0f} s after their start."
        if "ray_images_a_second" in figures
        else "A quick measurement: few pictures, and none with `--engine ray`."
    )
    return f"""# A million pictures, a billion pictures

Written by `python benchmarks/label_throughput.py{quick} --page docs/scale.md`. Run it on a machine like yours, with your prices as its
options (`--core-hour`, `--gigabyte-month`, `--thousand-reads`, `--cores`), and this page is yours.

Measured on {machine}: real pictures of the evaluation sets, boxes as prompts, from the file to the result files.

| model | share of the speed of torch's encoder | pictures/s | encoder alone, pictures/s | objects | kB kept a picture |
| --- | ---: | ---: | ---: | ---: | ---: |
{measured}

The encoder alone is the faster of two ways: as many lanes, or one picture after the other with all threads. {flat}
{ray}

## Estimate

| model | objects | pictures | core hours | on {prices.cores:,} cores | computing | reading | keeping, a month |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{estimate}

Core hours = pictures · {CORES} cores / (pictures/s) / 3600. Computing = core hours · ${prices.core_hour:g}, the assumed price of a
core for an hour. Reading = pictures / 1000 · ${prices.thousand_reads:g}, that of 1,000 reads of an object store. Keeping = gigabytes
· ${prices.gigabyte_month:g}, that of a gigabyte for a month. Not in it: keeping the pictures themselves, traffic between regions, and
starting the cluster. No accelerator was measured.

## How to run it

```sh
pip install 'ruac[scale]'                       # and s3fs, gcsfs or adlfs for your store
export RAY_ADDRESS=HEAD:6379                    # of your cluster; without it, all cores of this machine
ruac label s3://bucket/photos/ --everything --engine ray --out labels
```

Each worker holds the model on a core (or a GPU, with `--device cuda`) and gets {BLOCK} pictures at a time. The process that was
started writes the results, and is started again with the same words after whatever stopped it: what is in `labels/parts` is not
done again. One folder is good for some 10⁵ to 10⁶ pictures. Cut more into manifests, text files of a URL a line, and label each into
a folder of its own:

```sh
split --lines=500000 --additional-suffix=.txt all.txt shard-
for shard in shard-*.txt; do ruac label "$shard" --everything --engine ray --out "labels-${{shard%.txt}}"; done
```
"""


def _measured(name: str, words: str, figures: dict[str, float]) -> str:
    def of(key: str) -> float:
        return figures[f"{name}_{key}"]

    encoder = max(of("encoder_images_a_second"), of("encoder_one_by_one_images_a_second"))
    return (
        f"| {words} | {of('share'):.2f} | {of('images_a_second'):.2f} | {encoder:.2f} | {of('objects_an_image'):.1f} "
        f"| {of('bytes_an_image') / 1e3:.0f} |"
    )


def _row(name: str, words: str, count: int, figures: dict[str, float], prices: argparse.Namespace) -> str:
    hours = count * CORES / figures[f"{name}_images_a_second"] / 3600
    kept = count * figures[f"{name}_bytes_an_image"] / 1e9 * prices.gigabyte_month
    reading = count / 1000 * prices.thousand_reads
    return (
        f"| {words} | {figures[f'{name}_objects_an_image']:.1f} | {count:,} | {hours:,.0f} | {hours / prices.cores:,.1f} h "
        f"| ${hours * prices.core_hour:,.0f} | ${reading:,.2f} | ${kept:,.2f} |"
    )


def clock(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure_ray(jobs: Sequence[Job]) -> dict[str, float]:
    """Pictures a second of two workers on this machine from the first result on, and what it takes until that."""
    recipe = Recipe("nano", None, "cpu", "fp32", weights_sha256(load("nano")), None, None)
    start = time.perf_counter()
    at = [time.perf_counter() for _ in on_ray(recipe, jobs, CORES)]
    return {"ray_images_a_second": (len(at) - 1) / (at[-1] - at[0]), "ray_start_seconds": at[0] - start}


def measure_memory(model: RuacModel, jobs: Sequence[Job]) -> dict[str, float]:
    """Growth of the peak of resident memory from picture WARM to the last one, in MB. Each picture is a link of its own name."""
    maker, peaks = Maker(Predictor(model), None, None), []
    with tempfile.TemporaryDirectory() as name:
        links = Path(name) / "in"
        links.mkdir()
        linked = []
        for job in jobs:
            image = ImageFile(links / job.task.image.name, job.task.image.name)
            Path(image.place).symlink_to(Path(job.task.image.place).resolve())
            linked.append(Job(job.name, Task(image, job.task.wanted, None)))

        def watched(left: Sequence[Job]) -> Iterator[Made]:
            for made in in_lanes(maker, left, CORES):
                peaks.append(peak_megabytes())
                yield made

        failed = label_images(watched, linked, open_folder(Path(name) / "out", {}))
    if failed:
        raise RuntimeError(failed[0])
    return {"growth_mb": peaks[-1] - peaks[WARM], "peak_mb": peaks[-1], "images_for_memory": float(len(peaks))}


if __name__ == "__main__":
    sys.exit(main())
