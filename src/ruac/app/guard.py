"""What the page's server refuses before gradio sees it: other sites, other routes than the page's own, too much, and other files."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ruac.app.flow import Incoming, Outgoing, RefusedError
from ruac.app.room import Room
from ruac.errors import one_line
from ruac.exchange.server import hostname, is_loopback

LOG = logging.getLogger("ruac.app")
MAX_UPLOAD, MAX_REQUEST = 2**30, 2**20  # bytes of a request that uploads files, and of any other
LOOK = 4 * 2**20  # bytes of an upload between two looks at how much room is left
API = "/gradio_api"
UPLOAD, FILE = f"{API}/upload", f"{API}/file="
# all that the page asks for; gradio has many more, which fetch addresses, keep state or write files
READ = {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", f"{API}/queue/data", f"{API}/upload_progress"}
FOLDERS = ("/assets/", "/static/", f"{API}/heartbeat/")
PARTS = f"{API}/component_server/"
ASKED = {PARTS, f"{API}/run/predict", f"{API}/queue/join"}


class Guard:
    """local: whether the page is for this machine alone; part: the number of the one component that can be asked."""

    def __init__(self, app: ASGIApp, room: Room, local: bool, part: int):
        self._app, self._room, self._local, self._part = app, room, local, part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        out = Outgoing(send, scope)
        try:
            await self._let_in(scope, receive, out)
        except RefusedError as refused:
            await refusal(refused)(scope, receive, out)

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
            length = _length(headers, MAX_REQUEST)
            if headers.get("content-type", "").split(";")[0].strip() != "application/json":
                raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be JSON")
            body = await _body(receive, length)
            hosts = {headers[name] for name in ("host", "x-forwarded-host") if name in headers}
            request = await run_in_threadpool(require_own_files, body, self._room, hosts)
            if path == PARTS and not self._is_known(request):
                raise RefusedError(HTTPStatus.NOT_FOUND, "the page has no such part; load it again")
            await self._app(scope, _again(body, receive), send)

    def _require_readable(self, path: str) -> None:
        """Raises RefusedError."""
        if path.startswith(FILE):
            if not self._room.holds(path.removeprefix(FILE)):
                raise RefusedError(HTTPStatus.FORBIDDEN, "no such file here, or it is forgotten by now")
        elif path not in READ and not path.startswith(FOLDERS):
            raise RefusedError(HTTPStatus.NOT_FOUND, "the page has no such address")

    def _is_known(self, request: Any) -> bool:
        """Whether that is asked of the part of the page that answers."""
        if not isinstance(request, dict) or not isinstance(request.get("session_hash"), str):
            return False
        number = request.get("component_id")
        return type(number) is int and number == self._part and request.get("fn_name") == "ask" and "data" in request

    async def _upload(self, length: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises RefusedError when it is more than there is room for."""
        await self._require_room(length)
        looked = 0

        async def arrived(count: int) -> None:
            nonlocal looked
            if count - looked >= LOOK:  # what has come is on the disk
                looked = count
                await self._require_room(0)

        await self._app(scope, Incoming(receive, arrived), send)

    async def _require_room(self, count: int) -> None:
        """For so many bytes more. Raises RefusedError."""
        if await run_in_threadpool(lambda: self._room.nbytes) + count > self._room.most_bytes:
            limit = f"{self._room.most_bytes / 2**30:.3g} GiB"
            message = f"there is no room left: the page keeps {limit} of uploads and results; try again in half an hour"
            raise RefusedError(HTTPStatus.INSUFFICIENT_STORAGE, message)


def refusal(error: RefusedError) -> Response:
    return PlainTextResponse(str(error), error.status, {"Connection": "close"} if error.close else None)


async def answer_to_error(request: Request, error: Exception) -> Response:
    """For gradio's application, which would write a traceback about what a client did wrong."""
    if isinstance(error, RefusedError):
        return refusal(error)
    if isinstance(error, ClientDisconnect):
        return PlainTextResponse("the upload is not whole", HTTPStatus.BAD_REQUEST)  # nobody is there to read it
    path = request.url.path
    if isinstance(error, TypeError) and path == UPLOAD:  # so gradio takes a file without a name
        return PlainTextResponse("a file that is uploaded needs a name", HTTPStatus.BAD_REQUEST)
    LOG.error("%s %s: %s", request.method, ascii(path)[:80], one_line(error, type(error).__name__))
    return PlainTextResponse("the server could not do that; try again", HTTPStatus.INTERNAL_SERVER_ERROR)


HANDLERS: dict[Any, Any] = dict.fromkeys((RefusedError, ClientDisconnect, TypeError, Exception), answer_to_error)


def require_own_files(body: bytes, room: Room, hosts: Collection[str]) -> Any:
    """The content of a body. Raises RefusedError for a file that was not uploaded here, which gradio would read from any path or fetch
    from any address, an address of another host, and what is no JSON.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is no JSON") from None
    left: list[Any] = [content]
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
    return content


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
    # of the two, a body in chunks would be as long as it likes
    if "transfer-encoding" in headers:
        message = "send the body whole, with a Content-Length and without a Transfer-Encoding"
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, message, close=True)
    if not length.isdecimal():
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "the body must have a Content-Length")
    if int(length) > limit:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is over the limit of {limit >> 20} MiB")
    return int(length)


async def _body(receive: Receive, length: int) -> bytes:
    """Raises RefusedError when the client goes away, is too slow, or sends more."""

    async def arrived(count: int) -> None:
        if count > length:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is longer than its Content-Length", close=True)

    incoming, pieces, more = Incoming(receive, arrived), [], True
    while more:
        message = await incoming()
        if message["type"] == "http.disconnect":
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is not whole")
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


def _again(body: bytes, receive: Receive) -> Receive:
    """To read what has been read already."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return left.pop() if left else await receive()

    return read
