"""The page's HTTP server, in a thread of its own; bounds for its connections are those of `ruac serve`."""

from __future__ import annotations

import time
from socket import socket
from threading import Thread

from starlette.types import ASGIApp

from ruac.serve.bounded import BoundedServer

MOST_CONNECTIONS = 400  # where there are twice as many descriptors
GRACE = 2  # seconds that answers under way have at the end
POLL = 0.02  # seconds


class Server(BoundedServer):
    """Of an application on a socket that is bound already; name: of its thread."""

    def __init__(self, app: ASGIApp, listener: socket, name: str):
        super().__init__(app, listener, _most(), GRACE, "critical")
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


def _most() -> int:
    """Connections that there are descriptors for, with as many left for files."""
    try:
        import resource
    except ModuleNotFoundError:  # a system without that limit
        return MOST_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, files // 2)
