"""A server of `ruac serve` in a thread of the tests, with a model that is already there."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ruac.calibrate.bounds import Guarantee
from ruac.model import RuacModel
from ruac.serve.embeddings import EmbeddingCache
from ruac.serve.engine import Engine
from ruac.serve.gate import Door
from ruac.serve.http import serve
from ruac.serve.metrics import Metrics
from ruac.serve.settings import Settings
from ruac.serve.spool import Spool

HEIGHT, WIDTH = 48, 80


@dataclass
class Running:
    url: str
    port: int
    spool: Path
    door: Door
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread

    def stop(self) -> None:
        """Asks it to, and does not wait."""
        self.loop.call_soon_threadsafe(self.door.closing.set)

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, **options)


@contextmanager
def running(model: RuacModel, folder: Path, guarantee: Guarantee | None = None, **changes: Any) -> Iterator[Running]:
    """changes: of the Settings."""
    settings = Settings("tiny", None, "cpu", None, None, 1, folder / "spool", folder)
    settings = replace(settings, **changes)
    spool = Spool(settings.spool, settings.ttl, settings.spool_bytes)
    spool.open()
    cache = EmbeddingCache(settings.cache_images, settings.cache_bytes, settings.ttl)
    engine = Engine(settings, model, guarantee, spool, cache, Metrics())
    listener, door, ready = socket.create_server(("127.0.0.1", 0)), Door(settings.queue), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def work() -> None:
        loops.append(asyncio.get_running_loop())
        await serve(engine, listener, door, ready.set)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    assert ready.wait(120)
    port = listener.getsockname()[1]
    server = Running(f"http://127.0.0.1:{port}", port, settings.spool, door, loops[0], thread)
    try:
        yield server
    finally:
        if thread.is_alive():
            server.stop()
        thread.join(120)
        assert not thread.is_alive()


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
