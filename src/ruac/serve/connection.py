"""One connection of a client: no more of them than there are descriptors for, and none that is held open for nothing."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Callable, Collection
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ruac.errors import one_line

LOG = logging.getLogger("ruac.serve")
HEAD = 10.0  # seconds from connecting to the end of the first request's head
IDLE = 30.0  # seconds between two requests
LOOK = 0.5  # seconds between two looks at all connections
QUIET = 60.0  # seconds between two lines of the log about connections that cannot be had
BROKEN = "the request is not HTTP/1.1, or its head is over 16 KiB"
BUSY = "busy: too many connections; try again"
OUT_OF_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Connection(H11Protocol):
    """Closed at once if there are more than `most`. While no request of it is being worked on, `close_if_late` looks at the clock, and
    not at whether bytes arrive or are taken: a client may send its head, or take the end of its answer, one byte a minute."""

    most: int

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._free_since = self.loop.time()
        # what is told to the application of the requests: how to get rid of the client
        self.app_state = {**self.app_state, "abort": transport.abort}
        if len(self.connections) > self.most:
            self._end(429, BUSY, {"Retry-After": "1"})

    def on_response_complete(self) -> None:
        self._free_since = self.loop.time()
        super().on_response_complete()

    def close_if_late(self) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        limit = HEAD if self.cycle is None else IDLE + HEAD
        # one that is being closed waits for the client to take what was sent
        if (answered or self.transport.is_closing()) and self.loop.time() - self._free_since > limit:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered as all errors are, unless an answer is on its way already."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._end(400, BROKEN)
        else:
            self.transport.abort()

    def _end(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"detail": detail}).encode()
        head = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
        events = h11.Response(status_code=status, headers=list(head.items())), h11.Data(data=body), h11.EndOfMessage()
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()


async def watch(connections: Collection[Any]) -> None:
    """Closes those that are late, for ever."""
    while True:
        await asyncio.sleep(LOOK)
        for connection in list(connections):
            connection.close_if_late()


def calm() -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """For the event loop, which reports each connection that it cannot take, at every try, with a traceback: a line now and then."""
    told = -QUIET

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal told
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in OUT_OF_FILES):
            loop.default_exception_handler(context)
        elif loop.time() - told >= QUIET:
            told = loop.time()
            LOG.error("connections have to wait: %s", one_line(error))

    return report
