"""Who may enter, with how much, and when it is too much: all that is decided before the application sees a request."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ruac.exchange.server import hostname, is_loopback
from ruac.serve.bounded import send_in_pieces
from ruac.serve.metrics import Metrics
from ruac.serve.settings import MAX_JSON, MIB, Deadline, Settings

ENDPOINTS = re.compile(r"/(?:images(?:/[^/]*/(?P<verb>predict|everything))?|(?P<other>health|metrics|openapi\.json))")
JSON = re.compile(r"application/json(?:\s*;.*)?", re.IGNORECASE)
MULTIPART_FRAME = 64 * 1024  # bytes around the file


@dataclass
class Count:
    """Of one worker's requests. accepted: were given a place; answered: got the whole answer; gone: the client left before it, or did
    not take it."""

    accepted: int = 0
    answered: int = 0
    gone: int = 0


@dataclass
class Door:
    """Whether there is a place, for `queue` requests at a time, and whether new ones are let in at all."""

    queue: int
    inside: int = 0
    count: Count = field(default_factory=Count)
    closing: asyncio.Event = field(default_factory=asyncio.Event)


class Gate:
    """ASGI middleware. Refuses before the body is read whatever can be refused then; wait: seconds that a refused client is to wait.

    A place is held from the head of a request to the end of its answer, and work is only done for those that have one, so that memory
    is bounded by their number.
    """

    def __init__(self, app: ASGIApp, settings: Settings, door: Door, metrics: Metrics, wait: Callable[[], int]):
        self._app, self._settings, self._door, self._metrics, self._wait = app, settings, door, metrics, wait

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, name = time.monotonic(), endpoint(scope["path"])
        sent = _Sent(send, self._settings.timeout, scope["state"]["abort"])
        try:
            refusal = self._refusal(scope["method"], name, Headers(scope=scope))
            if refusal is not None:
                await refusal(scope, receive, sent)
            elif scope["method"] == "POST":
                await self._admit(scope, receive, sent, self._limit(name))
            else:
                await self._app(scope, receive, sent)
        finally:
            self._metrics.requests.labels(name, str(sent.status or "none")).inc()
            self._metrics.seconds.labels(name).observe(time.monotonic() - start)

    async def _admit(self, scope: Scope, receive: Receive, sent: _Sent, limit: int) -> None:
        door = self._door
        door.inside += 1
        door.count.accepted += 1
        self._metrics.accepted.set(door.inside)
        deadline = Deadline.after(self._settings.timeout)
        scope["state"]["deadline"] = deadline
        body = _Body(receive, limit, deadline)
        try:
            await self._app(scope, body, sent)
        finally:
            door.inside -= 1
            self._metrics.accepted.set(door.inside)
            if body.gone or sent.late:
                door.count.gone += 1
            else:
                door.count.answered += sent.whole

    def _limit(self, name: str) -> int:
        """Bytes of a body for that endpoint."""
        return self._settings.max_upload + MULTIPART_FRAME if name == "images" else MAX_JSON

    def _refusal(self, method: str, name: str, headers: Headers) -> JSONResponse | None:
        settings, door, host = self._settings, self._door, headers.get("host", "")
        # a page in a browser could reach this server under a name of its own, or post a form to it without asking first
        if settings.local and not is_loopback(hostname(host)):
            return refuse(403, "this server is for this machine alone; start it with --host for others")
        if "origin" in headers and headers["origin"].split("//")[-1] != host:
            return refuse(403, "requests from the pages of other sites are refused")
        if settings.token is not None and name != "health" and not _knows(headers, settings.token):
            return refuse(401, "send the header 'Authorization: Bearer TOKEN'", {"WWW-Authenticate": "Bearer"})
        working = method == "POST"
        if door.closing.is_set() and (working or name == "health"):
            return refuse(503, "the server is being stopped; try again", {"Retry-After": "1", "Connection": "close"})
        if not working:
            return None
        if headers.get("content-encoding", "identity") != "identity":
            return refuse(415, "send the body as it is, without a Content-Encoding")
        if name in ("predict", "everything") and not JSON.fullmatch(headers.get("content-type", "")):
            return refuse(415, "the body must be application/json")
        length, limit = headers.get("content-length", "0"), self._limit(name)
        if int(length) > limit:  # the server has checked that it is a number
            return refuse(413, too_large(limit))
        if door.inside >= door.queue:
            return refuse(429, f"busy: {door.queue} requests are being worked on; try again", {"Retry-After": str(self._wait())})
        return None


class _Sent:
    """Passes an answer on, no faster than the client takes it, and notes its status, and whether it was sent to its end.

    late: whether the client has not taken a part of it within `timeout` seconds; the connection is then given up with `abort`.
    """

    def __init__(self, send: Send, timeout: float, abort: Callable[[], None]):
        self._send, self._timeout, self._abort = send, timeout, abort
        self.status: int | None = None
        self.whole = self.late = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        try:
            # the head as well: before it goes what is left of the answer to an earlier request
            async with asyncio.timeout(self._timeout):
                await send_in_pieces(self._send, message)
                self.whole = message["type"] == "http.response.body" and not message.get("more_body", False)
        except TimeoutError:
            self.late = True
            self._abort()
            await asyncio.sleep(0)  # now it is known that nobody is there, and the rest goes nowhere


class _Body:
    """Passes a body on, up to `limit` bytes and the deadline; gone: whether the client has closed the connection."""

    def __init__(self, receive: Receive, limit: int, deadline: Deadline):
        self._receive, self._limit, self._deadline = receive, limit, deadline
        self._read, self._all = 0, False
        self.gone = False

    async def __call__(self) -> Message:
        """Raises HTTPException."""
        try:
            # after its body a client may wait for the answer as long as it likes
            message = await asyncio.wait_for(self._receive(), None if self._all else self._deadline.left)
        except TimeoutError:
            raise HTTPException(408, "the body did not arrive in time; send it faster or make it smaller") from None
        self.gone = message["type"] == "http.disconnect"
        self._read += len(message.get("body", b""))
        self._all = not message.get("more_body", False)
        if self._read > self._limit:
            raise HTTPException(413, too_large(self._limit))
        return message


def endpoint(path: str) -> str:
    """For metrics: one of a few words, whatever was asked for."""
    match = ENDPOINTS.fullmatch(path)
    return (match["verb"] or match["other"] or "images") if match else "unknown"


def refuse(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


def too_large(limit: int) -> str:
    return f"the body is over the limit of {limit // MIB} MiB"


def _knows(headers: Headers, token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # headers are Latin-1, whatever bytes they hold
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), token.encode())
