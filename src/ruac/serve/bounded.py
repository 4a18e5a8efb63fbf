"""uvicorn with the bounds of `connection`, and answers that go out no faster than they are taken."""

from __future__ import annotations

import asyncio
from socket import socket

import uvicorn
from starlette.types import ASGIApp, Message, Send

from ruac.serve.connection import IDLE, Connection, calm, watch
from ruac.serve.settings import BACKLOG, BATCH

PIECE = 256 * 1024  # bytes of an answer that are sent at once


class BoundedServer(uvicorn.Server):
    """Of an application on a socket that is bound already. connections: that it holds open; grace: seconds that answers under way have
    at the end; log_level: of uvicorn's own log, which clients must not be able to fill."""

    def __init__(self, app: ASGIApp, listener: socket, connections: int, grace: int, log_level: str):
        class Limited(Connection):
            most = connections

        config = uvicorn.Config(
            app,
            http=Limited,
            ws="none",
            log_level=log_level,
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(IDLE),
            backlog=BATCH,
            timeout_graceful_shutdown=grace,
        )
        super().__init__(config)
        self._listener = listener

    async def startup(self, sockets: list[socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(calm())
        await super().startup(sockets)
        self._listener.listen(BACKLOG)  # the event loop has set it to how many it takes at once
        self._watching = asyncio.create_task(watch(self.server_state.connections))

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._watching.cancel()


async def send_in_pieces(send: Send, message: Message) -> None:
    """Of what is sent in one piece uvicorn would keep all that the client has not taken yet, and call the answer complete."""
    if message["type"] != "http.response.body":
        await send(message)
        return
    body, more = message.get("body", b""), message.get("more_body", False)
    for start in range(0, len(body) or 1, PIECE):
        rest = more or start + PIECE < len(body)
        await send({"type": message["type"], "body": body[start : start + PIECE], "more_body": rest})
