"""The page's HTTP server, in a thread of its own; bounds for its connections are those of `ruac serve`."""

from __future__ import annotations

import asyncio
import time
from socket import socket
from threading import Thread

import uvicorn
from starlette.types import ASGIApp

from ruac.serve.connection import IDLE, Connection, calm, watch
from ruac.serve.settings import BACKLOG, BATCH

MOST_CONNECTIONS = 400  # where there are twice as many descriptors
GRACE = 2  # seconds that answers under way have at the end
POLL = 0.02  # seconds


class Server(uvicorn.Server):
    """Of an application on a socket that is bound already; name: of its thread."""

    def __init__(self, app: ASGIApp, listener: socket, name: str):
        class Limited(Connection):
            most = _most()

        super().__init__(
            uvicorn.Config(
                app,
                http=Limited,
                ws="none",
                log_level="critical",  # an error a request is what clients could fill the log with
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(IDLE),
                backlog=BATCH,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self._listener = listener
        self._thread = Thread(target=self.run, args=([listener],), name=name, daemon=True)

    def start(self) -> None:
        """Returns once requests are answered. Raises RuntimeError when that cannot be had."""
        self._thread.start()
        while not self.started:
            if not self._thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(POLL)

    def join(self, seconds: float) -> None:
        """Wait so long at most until it has ended, with all that worked for it."""
        self._thread.join(seconds)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(calm())
        await super().startup(sockets)
        self._listener.listen(BACKLOG)  # the event loop has set it to how many it takes at once
        self._watching = asyncio.create_task(watch(self.server_state.connections))


def _most() -> int:
    """Connections that there are descriptors for, with as many left for files."""
    try:
        import resource
    except ModuleNotFoundError:  # a system without that limit
        return MOST_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, files // 2)
