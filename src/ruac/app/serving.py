"""The page's server: where it listens, what it refuses before reading it, and how it ends."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from threading import Event, Thread

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ruac.app.conversation import Conversation
from ruac.app.desk import Desk
from ruac.app.models import Models
from ruac.app.samples import samples
from ruac.app.sessions import Sessions
from ruac.exchange.server import hostname, is_loopback

MAX_FILE = 64 * 2**20  # bytes of an uploaded file
MAX_UPLOAD, MAX_REQUEST = 2**30, 2**20  # bytes of a request that uploads files, and of any other
SESSIONS, SESSION_BYTES, SESSION_SECONDS = 64, 2 * 2**30, 1800.0
SWEEP = 60.0  # seconds
THREADS = 24  # that wait for the model or work with it
UPLOAD = "/gradio_api/upload"


def serve(models: Models, folder: Path | None, host: str, port: int, show: bool) -> None:
    """Until it is interrupted. Raises ValueError when the address cannot be had."""
    with running(models, folder, host, port, show) as address:
        print(f"look at {address}; stop with Ctrl-C", flush=True)
        Event().wait()


@contextmanager
def running(models: Models, folder: Path | None, host: str, port: int, show: bool = False) -> Iterator[str]:
    """The page's address, for as long as it is served. Raises ValueError when the address cannot be had."""
    port = _free_port(host, port)
    sessions: Sessions[Conversation] = Sessions(SESSIONS, SESSION_BYTES, SESSION_SECONDS)
    done = Event()
    with tempfile.TemporaryDirectory(prefix="ruac-app.") as room:
        uploads, results = Path(room) / "uploads", Path(room) / "results"
        uploads.mkdir()
        results.mkdir()
        # gradio reads these when it is imported or launched: uploads stay in the temporary folder, and nobody is told of them
        os.environ |= {"GRADIO_TEMP_DIR": str(uploads), "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}

        from ruac.app.labelling import Labelling
        from ruac.app.page import PHONE, build, style, theme

        page = build(Desk(models, samples(), uploads, sessions), Labelling(models, folder, results), MAX_FILE)
        Thread(target=_sweep, args=(sessions, done), daemon=True).start()
        try:
            page.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=show,
                prevent_thread_lock=True,
                quiet=True,
                max_threads=THREADS,
                max_file_size=MAX_FILE,
                state_session_capacity=SESSIONS,
                footer_links=[],
                enable_monitoring=False,
                ssr_mode=False,
                theme=theme(),
                css=style(),
                head=PHONE,
                app_kwargs={"middleware": [Middleware(Guard, local=is_loopback(host))]},
            )
            yield f"http://{host}:{port}"
        finally:
            done.set()
            page.close(verbose=False)


class Guard:
    """Refuses what is too large before it is read, and on this machine's own address every page of another one."""

    def __init__(self, app: ASGIApp, local: bool):
        self._app, self._local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(scope, self._local) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)


def _refusal(scope: Scope, local: bool) -> PlainTextResponse | None:
    headers = Headers(scope=scope)
    # a page in a browser could reach this server under a name of its own
    host = headers.get("host", "")
    if local and not is_loopback(hostname(host)):
        return PlainTextResponse("this page is for this machine alone; start it with --host for others", HTTPStatus.FORBIDDEN)
    # and could post a form to it without asking first; a proxy in front may change the host
    if local and "origin" in headers and headers["origin"].split("//")[-1] != host:
        return PlainTextResponse("requests from the pages of other sites are refused", HTTPStatus.FORBIDDEN)
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return None
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return PlainTextResponse("the body must have a Content-Length", HTTPStatus.LENGTH_REQUIRED)
    limit = MAX_UPLOAD if scope["path"].rstrip("/") == UPLOAD else MAX_REQUEST
    if int(length) > limit:
        return PlainTextResponse(f"the body is over the limit of {limit >> 20} MiB", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return None


def _sweep(sessions: Sessions[Conversation], done: Event) -> None:
    while not done.wait(SWEEP):
        sessions.sweep()


def _free_port(host: str, port: int) -> int:
    """Raises ValueError when it is taken, or the host is none of this machine's addresses."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return probe.getsockname()[1]
    except OSError as error:
        raise ValueError(f"--host {host} --port {port}: {error.strerror or error}; choose another") from None
