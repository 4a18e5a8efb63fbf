"""What the page's server refuses before gradio sees it: other sites, other routes than the page's own, too much, and other files."""

from __future__ import annotations

import json
from collections.abc import Collection
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ruac.app.room import Room
from ruac.exchange.server import hostname, is_loopback

MAX_UPLOAD, MAX_REQUEST = 2**30, 2**20  # bytes of a request that uploads files, and of any other
API = "/gradio_api"
UPLOAD, FILE = f"{API}/upload", f"{API}/file="
# all that the page asks for; gradio has many more, which fetch addresses, keep state or write files
READ = {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", f"{API}/startup-events"}
READ |= {f"{API}/queue/data", f"{API}/upload_progress"}
FOLDERS = ("/assets/", "/static/", f"{API}/heartbeat/")
ASKED = {f"{API}/component_server/", f"{API}/run/predict", f"{API}/queue/join"}


class RefusedError(Exception):
    """The message is for people."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


class Guard:
    """local: whether the page is for this machine alone."""

    def __init__(self, app: ASGIApp, room: Room, local: bool):
        self._app, self._room, self._local = app, room, local
        self._arriving = 0  # bytes of uploads that are not on the disk yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._let_in(scope, receive, send)
        except RefusedError as refused:
            await PlainTextResponse(str(refused), refused.status)(scope, receive, send)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises RefusedError."""
        headers, path = Headers(scope=scope), scope["path"]
        if self._local:
            _require_this_machine(headers)
        if scope["method"] in ("GET", "HEAD"):
            self._require_readable(path)
            await self._app(scope, receive, send)
        elif scope["method"] != "POST" or path not in {UPLOAD, *ASKED}:
            raise RefusedError(HTTPStatus.NOT_FOUND, "the page has no such address")
        elif path == UPLOAD:
            await self._upload(_length(headers, MAX_UPLOAD), scope, receive, send)
        else:
            _length(headers, MAX_REQUEST)
            if headers.get("content-type", "").split(";")[0].strip() != "application/json":
                raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be JSON")
            body = await _body(receive)
            hosts = {headers[name] for name in ("host", "x-forwarded-host") if name in headers}
            await run_in_threadpool(require_own_files, body, self._room, hosts)
            await self._app(scope, _again(body, receive), send)

    def _require_readable(self, path: str) -> None:
        """Raises RefusedError."""
        if path.startswith(FILE):
            if not self._room.holds(path.removeprefix(FILE)):
                raise RefusedError(HTTPStatus.FORBIDDEN, "no such file here, or it is forgotten by now")
        elif path not in READ and not path.startswith(FOLDERS):
            raise RefusedError(HTTPStatus.NOT_FOUND, "the page has no such address")

    async def _upload(self, length: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises RefusedError when it is more than there is room for."""
        self._arriving += length
        try:
            if await run_in_threadpool(lambda: self._room.nbytes) + self._arriving > self._room.most_bytes:
                limit = f"{self._room.most_bytes / 2**30:.3g} GiB"
                message = f"there is no room left: the page keeps {limit} of uploads and results; try again in half an hour"
                raise RefusedError(HTTPStatus.INSUFFICIENT_STORAGE, message)
            await self._app(scope, receive, send)
        finally:
            self._arriving -= length


def require_own_files(body: bytes, room: Room, hosts: Collection[str]) -> None:
    """Gradio would fetch a file from the address, or read it from the path, that a request tells it. Raises RefusedError for a file
    that was not uploaded here, an address of another host, and what is no JSON.
    """
    try:
        left: list[Any] = [json.loads(body)]
    except (ValueError, RecursionError):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is no JSON") from None
    while left:
        value = left.pop()
        if isinstance(value, list):
            left.extend(value)
        elif isinstance(value, dict):
            left.extend(value.values())
            if "path" in value and not (isinstance(value["path"], str) and room.holds(value["path"])):
                message = "a file in this request was not uploaded here, or it is forgotten by now: upload it again"
                raise RefusedError(HTTPStatus.FORBIDDEN, message)
            if value.get("url") is not None and not _is_own(value["url"], value.get("path"), hosts):
                raise RefusedError(HTTPStatus.FORBIDDEN, "files are never fetched from an address: upload them")


def _is_own(url: Any, path: Any, hosts: Collection[str]) -> bool:
    """Whether that is where the page itself shows the file."""
    try:
        parts = urlsplit(url)
    except (ValueError, TypeError, AttributeError):
        return False
    return parts.netloc in {"", *hosts} and unquote(parts.path) == f"{FILE}{path}"


def _require_this_machine(headers: Headers) -> None:
    """Raises RefusedError."""
    # a page in a browser could reach this server under a name of its own
    host = headers.get("host", "")
    if not is_loopback(hostname(host)):
        message = "this page is for this machine alone; start it with --host for others"
        raise RefusedError(HTTPStatus.FORBIDDEN, message)
    # and could post a form to it without asking first; a proxy in front may change the host
    if "origin" in headers and headers["origin"].split("//")[-1] != host:
        raise RefusedError(HTTPStatus.FORBIDDEN, "requests from the pages of other sites are refused")


def _length(headers: Headers, limit: int) -> int:
    """Raises RefusedError."""
    length = headers.get("content-length", "")
    if not length.isdecimal():
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "the body must have a Content-Length")
    if int(length) > limit:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is over the limit of {limit >> 20} MiB")
    return int(length)


async def _body(receive: Receive) -> bytes:
    """As long as its Content-Length says, for which the server cares. Raises RefusedError when the client goes away."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is not whole")
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """To read what has been read already."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return left.pop() if left else await receive()

    return read
