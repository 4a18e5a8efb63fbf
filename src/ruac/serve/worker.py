"""One process of a server: it loads the model, answers until it is told to stop, and then finishes what it has accepted.

What needs torch or FastAPI is imported by the functions that use it: prometheus_client has to find its folder in the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import asdict
from multiprocessing.connection import Connection
from socket import socket
from typing import TYPE_CHECKING

from ruac.errors import one_line
from ruac.serve.settings import METRICS_FOLDER, Settings
from ruac.serve.spool import Spool

if TYPE_CHECKING:
    from ruac.serve.engine import Engine
    from ruac.serve.gate import Count


def work(settings: Settings, listener: socket, parent: Connection) -> None:
    """Sends the parent None when it is ready, else what is wrong; at its end, how many requests it has accepted and answered.

    Stops on SIGTERM, and when the parent is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent passes it on
    os.environ[METRICS_FOLDER] = str(settings.metrics)
    try:
        engine = start(settings)
    except (ValueError, OSError) as error:
        parent.send(one_line(error))
        return
    parent.send(asdict(asyncio.run(_serve(engine, listener, parent))))


def start(settings: Settings) -> Engine:
    """Raises ValueError and FileNotFoundError for a model or a calibration that cannot be used."""
    import torch
    from transformers.utils import logging

    from ruac.calibrate.bounds import Guarantee
    from ruac.model import weights_sha256
    from ruac.predictor import Predictor
    from ruac.serve.embeddings import EmbeddingCache
    from ruac.serve.engine import Engine
    from ruac.serve.metrics import Metrics

    logging.disable_progress_bar()
    torch.set_num_threads(max(1, torch.get_num_threads() // settings.workers))
    model = Predictor(settings.model, settings.device, settings.head).model
    guarantee = Guarantee.of(settings.model, weights_sha256(model), settings.calibration, settings.alpha)
    spool = Spool(settings.spool, settings.ttl, settings.spool_bytes)
    cache = EmbeddingCache(settings.cache_images, settings.cache_bytes, settings.ttl)
    return Engine(settings, model, guarantee, spool, cache, Metrics())


async def _serve(engine: Engine, listener: socket, parent: Connection) -> Count:
    from ruac.serve.gate import Door
    from ruac.serve.http import serve

    door = Door(engine.settings.queue)
    # nothing is ever sent that way: what can be read is the end of the parent
    asyncio.get_running_loop().add_reader(parent.fileno(), door.closing.set)
    return await serve(engine, listener, door, lambda: parent.send(None))
