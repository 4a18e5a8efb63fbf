"""What comes in and goes out over a connection: never more than allowed, and never held up for ever by the other side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from ruac.serve.bounded import send_in_pieces

SILENCE = 30.0  # seconds that a body may take whatever its length
PACE = 16 * 1024  # bytes a second that it has to come at then
TAKE = 60.0  # seconds that the client may take for one piece of an answer
# the page shows itself in no frame of others, and no upload is taken for a script
HEADERS = {"X-Frame-Options": "SAMEORIGIN", "X-Content-Type-Options": "nosniff"}


class RefusedError(Exception):
    """The message is for people; close: whether the client is not to send the rest of its body."""

    def __init__(self, status: HTTPStatus, message: str, close: bool = False):
        super().__init__(message)
        self.status, self.close = status, close


class Incoming:
    """Passes a body on as it comes. arrived: told the bytes so far, may refuse to take more."""

    def __init__(self, receive: Receive, arrived: Callable[[int], Awaitable[None]]):
        self._receive, self._arrived = receive, arrived
        self._start, self._read, self._all = time.monotonic(), 0, False

    async def __call__(self) -> Message:
        """Raises RefusedError for a body that comes too slowly, and as `arrived` does."""
        late = None if self._all else max(0.0, self._start + SILENCE + self._read / PACE - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), late)
        except TimeoutError:
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, "this took too long to arrive; try again", close=True) from None
        piece = message.get("body", b"")
        self._read += len(piece)
        self._all = not message.get("more_body", False)
        if piece:
            await self._arrived(self._read)
        return message


class Outgoing:
    """Passes an answer on, with HEADERS, no faster than the client takes it; a client that takes nothing of it for TAKE seconds is cut
    off. However long the server is silent itself, as in a stream of events, that counts for nothing."""

    def __init__(self, send: Send, scope: Scope):
        self._send, self._scope = send, scope

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        try:
            async with asyncio.timeout(TAKE):
                await send_in_pieces(self._send, message)
        except TimeoutError:
            self._scope["state"]["abort"]()
