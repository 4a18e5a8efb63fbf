"""`ruac label-studio`: a server that Label Studio can be connected to as a machine-learning backend.

GET /health, POST /setup and POST /predict of Label Studio's protocol, by Python's own HTTP server. What needs torch is imported by
the functions that use it.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ruac.errors import one_line
from ruac.leaving import leave

if TYPE_CHECKING:
    from ruac.exchange.backend import Backend

MAX_BODY = 32 * 2**20  # bytes
SILENCE = 30.0  # seconds, after which a connection is closed
WAITING = 8  # requests that may wait for their turn; more are turned away


def label_studio(
    images: Path,
    host: str = "127.0.0.1",
    port: int = 9090,
    model: str = "nano",
    head: Path | None = None,
    device: str = "cpu",
) -> None:
    """Be Label Studio's assistant: a click or a box becomes a mask, with its expected IoU as score.

    Connect http://localhost:9090 in Label Studio under Settings, Model, with interactive preannotations. The labelling
    configuration needs an Image, BrushLabels or PolygonLabels, and KeyPointLabels or RectangleLabels with smart="true".
    Pictures are read from the folder --images only, by the names in their addresses; nothing is ever fetched. There is no
    password, so the server is for this machine alone unless --host says otherwise.

    Example: ruac label-studio --images photos

    Args:
        images: Folder of the pictures: that of Label Studio's local storage, or its media/upload for uploaded ones.
        host: Address to listen at.
        port: Port to listen at.
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM, or a file of original SAM 2 weights.
        head: A head trained for that model, as a file.
        device: cpu, cuda, mps ...

    Raises:
        ValueError: When there is no such folder, or the address is taken.
        FileNotFoundError: When there is no such model.
    """
    if not images.is_dir():
        raise ValueError(f"--images {images}: no such folder")
    if not 0 <= port <= 65535:
        raise ValueError(f"--port {port}: from 0 to 65535")

    from importlib.metadata import version

    from ruac.exchange.backend import Backend
    from ruac.model import weights_sha256
    from ruac.predictor import Predictor

    predictor = Predictor(model, device, head)
    backend = Backend(predictor, images, f"ruac {version('ruac')} {model} {weights_sha256(predictor.model)[:8]}")
    with open_server(backend, host, port) as server:
        print(f"Label Studio can connect to http://{host}:{server.server_port}; stop with Ctrl-C", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt as reason:
            leave(reason)


class Server(ThreadingHTTPServer):
    """One thread a connection, one prediction at a time."""

    def __init__(self, backend: Backend, host: str, port: int):
        super().__init__((host, port), _Handler)
        self.backend = backend
        self.turn = Lock()
        self.places = BoundedSemaphore(WAITING)
        self.local = is_loopback(host)


def open_server(backend: Backend, host: str, port: int) -> Server:
    """Bound but not serving yet; port 0: any. Raises ValueError when that cannot be had."""
    try:
        return Server(backend, host, port)
    except OSError as error:
        raise ValueError(f"--host {host} --port {port}: {error.strerror or error}; choose another") from None


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def hostname(host: str) -> str:
    """Of a Host header, without the port; empty for nonsense."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class _RefusedError(Exception):
    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ruac"
    sys_version = ""
    timeout = SILENCE
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if self.path.split("?")[0] in ("/", "/health"):
            self._answer(HTTPStatus.OK, {"status": "UP", "model_class": "ruac"})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "GET /health, POST /setup and POST /predict are all there is")

    def do_POST(self) -> None:
        try:
            path = self.path.split("?")[0].rstrip("/")
            if path not in ("/predict", "/setup"):
                raise _RefusedError(HTTPStatus.NOT_FOUND, f"{path[:80]}: this backend does not train or keep versions")
            request = self._body()
            self._answer(HTTPStatus.OK, self._predict(request) if path == "/predict" else self._setup())
        except _RefusedError as refusal:
            self._refuse(refusal.status, str(refusal))
        except ValueError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, one_line(error))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What Python's server refuses by itself, as all else is refused."""
        self.close_connection = True
        self._refuse(HTTPStatus(code), message or explain or HTTPStatus(code).phrase)

    def _setup(self) -> dict[str, Any]:
        return {"model_version": self.server.backend.model_version}

    def _predict(self, request: dict[str, Any]) -> dict[str, Any]:
        if not self.server.places.acquire(blocking=False):
            raise _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"busy: {WAITING} requests are waiting; try again")
        try:
            with self.server.turn:
                return self.server.backend.predict(request)
        except OSError as error:
            raise _RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"the picture cannot be kept or read here: {error.strerror or error}"
            ) from None
        finally:
            self.server.places.release()

    def _body(self) -> dict[str, Any]:
        """Checks all that can be checked before anything is read. Raises _RefusedError, ValueError."""
        from ruac.exchange.parsing import parse_json

        # a page in a browser could reach this server under a name of its own, or post plain text without asking first
        if self.server.local and not is_loopback(hostname(self.headers.get("Host", ""))):
            raise _RefusedError(HTTPStatus.FORBIDDEN, "this server is for this machine alone; start it with --host for others")
        if self.headers.get_content_type() != "application/json":
            raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "the body must have a Content-Length")
        if int(length) > MAX_BODY:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is over the limit of {MAX_BODY >> 20} MiB")
        request = parse_json(self.rfile.read(int(length)))
        if not isinstance(request, dict):
            raise ValueError("the body must be a JSON object")
        return request

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """The rest of a body may be unread, so the connection ends."""
        self.close_connection = True
        self._answer(status, {"error": message})

    def _answer(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        body = json.dumps(content, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
