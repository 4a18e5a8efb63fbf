"""The application on a socket, and its end: new work is refused, what was accepted is finished, then the doors are closed."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from socket import socket
from types import FrameType

import uvicorn

from ruac.serve.app import build
from ruac.serve.connection import IDLE, Connection, calm, watch
from ruac.serve.engine import Engine
from ruac.serve.gate import Count, Door
from ruac.serve.lane import Lane
from ruac.serve.settings import BACKLOG, BATCH

POLL = 0.02  # seconds


async def serve(engine: Engine, listener: socket, door: Door, ready: Callable[[], None]) -> Count:
    """Until `door.closing` is set, by a signal or by whom it belongs to; ready: called once requests are answered."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it remarks on every broken form: clients could fill the log
    lane = Lane(engine.settings.timeout)

    class Limited(Connection):
        most = engine.settings.connections

    config = uvicorn.Config(
        build(engine, lane, door),
        http=Limited,
        ws="none",
        log_level="error",  # a warning a request is what clients could fill the log with
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(IDLE),
        backlog=BATCH,
        timeout_graceful_shutdown=math.ceil(engine.settings.timeout),
    )
    server = _Server(config, door)
    asyncio.get_running_loop().set_exception_handler(calm())
    serving = asyncio.create_task(server.serve([listener]))
    while not (server.started or serving.done()):
        await asyncio.sleep(POLL)
    listener.listen(BACKLOG)  # the event loop has set it to how many it takes at once
    ready()
    watching = asyncio.create_task(watch(server.server_state.connections))
    closing = asyncio.create_task(door.closing.wait())
    await asyncio.wait({serving, closing}, return_when=asyncio.FIRST_COMPLETED)
    # none of them takes longer than a request may
    while door.inside and not serving.done():
        await asyncio.sleep(POLL)
    server.should_exit = True
    await serving
    watching.cancel()
    closing.cancel()
    lane.close()
    return door.count


class _Server(uvicorn.Server):
    """On a signal, uvicorn would stop listening at once; this one goes on, to say 503 to those that come."""

    def __init__(self, config: uvicorn.Config, door: Door):
        super().__init__(config)
        self._door, self._loop = door, asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._door.closing.set)
