"""The application on a socket, and its end: new work is refused, what was accepted is finished, then the doors are closed."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from socket import socket
from types import FrameType

from starlette.types import ASGIApp

from ruac.serve.app import build
from ruac.serve.bounded import BoundedServer
from ruac.serve.engine import Engine
from ruac.serve.gate import Count, Door
from ruac.serve.lane import Lane
from ruac.serve.settings import Settings

POLL = 0.02  # seconds


async def serve(engine: Engine, listener: socket, door: Door, ready: Callable[[], None]) -> Count:
    """Until `door.closing` is set, by a signal or by whom it belongs to; ready: called once requests are answered."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it remarks on every broken form: clients could fill the log
    lane = Lane(engine.settings.timeout)
    server = _Server(build(engine, lane, door), listener, engine.settings, door)
    serving = asyncio.create_task(server.serve([listener]))
    while not (server.started or serving.done()):
        await asyncio.sleep(POLL)
    ready()
    closing = asyncio.create_task(door.closing.wait())
    await asyncio.wait({serving, closing}, return_when=asyncio.FIRST_COMPLETED)
    # none of them takes longer than a request may
    while door.inside and not serving.done():
        await asyncio.sleep(POLL)
    server.should_exit = True
    await serving
    closing.cancel()
    lane.close()
    return door.count


class _Server(BoundedServer):
    """On a signal, uvicorn would stop listening at once; this one goes on, to say 503 to those that come."""

    def __init__(self, app: ASGIApp, listener: socket, settings: Settings, door: Door):
        super().__init__(app, listener, settings.connections, math.ceil(settings.timeout), "error")
        self._door, self._loop = door, asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._door.closing.set)
