"""The engine of a cluster: Ray Data hands blocks of images to workers, each with the model on a CPU core or a GPU of its own.

RAY_ADDRESS names the cluster; without it one is started on this machine, for this run, that listens on the loopback alone. Workers
only read and answer: what they make is written by the process that asks, so that they need no access to its folder, and a run that
was stopped goes on where it was, whatever its engine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruac.calibrate.bounds import Guarantee
from ruac.errors import WorkError
from ruac.everything import Search
from ruac.label.make import Job, Made, Maker

BLOCK = 8  # images that a worker takes at a time; so many a worker are made again after a kill
RETRIES = 3  # of a block whose worker died: machines come and go, but an image that kills its worker would do so for ever
STORE_BYTES = 256 * 2**20  # of shared memory, for results on their way


@dataclass(frozen=True)
class Recipe:
    """What a worker makes its `Maker` of. model: a name, or a path that every machine of the cluster has; model_sha256: of the weights
    that it must find there."""

    model: str
    head: Path | None
    device: str
    precision: str
    model_sha256: str
    search: Search | None
    guarantee: Guarantee | None


def on_ray(recipe: Recipe, jobs: Sequence[Job], workers: int | None) -> Iterator[Made]:
    """What becomes of each, as it comes. workers: how many, as many as there are cores or GPUs if None.

    Raises ValueError without Ray, and WorkError when the cluster gives up.
    """
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ModuleNotFoundError:
        raise ValueError("--engine ray needs Ray: pip install 'ruac[scale]'") from None

    with _cluster(workers):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        kind = "CPU" if recipe.device == "cpu" else "GPU"
        slots = int(ray.cluster_resources().get(kind, 0))
        if not slots:
            raise ValueError(f"--device {recipe.device}: no {kind} in the cluster; use --device cpu")
        blocks = -(-len(jobs) // BLOCK)
        answers = ray.data.from_items([{"job": job} for job in jobs], override_num_blocks=blocks).map_batches(
            _Worker,
            fn_constructor_args=(recipe,),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=min(workers or slots, blocks)),
            num_cpus=1,
            num_gpus=1 if kind == "GPU" else 0,
            max_task_retries=RETRIES,
        )
        try:
            for row in answers.iter_rows():
                yield row["made"]
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise WorkError(f"the cluster gave up: {reason}; what is done stays, and the same command goes on") from None


class _Worker:
    """Lives in a process of its own."""

    def __init__(self, recipe: Recipe):
        import torch

        from ruac.model import weights_sha256
        from ruac.predictor import Predictor

        torch.set_num_threads(1)  # as a lane has, so that the answers are the same to the byte
        predictor = Predictor(recipe.model, recipe.device, recipe.head, precision=recipe.precision)
        if weights_sha256(predictor.model) != recipe.model_sha256:
            raise ValueError(f"{recipe.model}: other weights on a worker than here; give all machines the same")
        self.maker = Maker(predictor, recipe.search, recipe.guarantee)

    def __call__(self, block: Mapping[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
        for job in block["job"]:
            made = np.empty(1, object)
            made[0] = self.maker.make(job)
            yield {"made": made}


@contextmanager
def _cluster(workers: int | None) -> Iterator[None]:
    """The one that RAY_ADDRESS names, or one of this machine alone until the end."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
    else:
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
