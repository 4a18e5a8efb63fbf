"""Connections as no good client makes them: closed in time, refused in words, never a line of the log each, and the server goes on."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import resource
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from serving import Running, picture, running

from ruac.client import Client
from ruac.model import RuacModel
from ruac.serve import connection as connections
from ruac.serve.command import FILES
from ruac.serve.command import _connections as most_connections
from ruac.serve.settings import BATCH, MIB

LIMIT = MIB
SOON = 15.0  # seconds, on a busy machine


@pytest.fixture
def server(
    tiny_model: RuacModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Running]:
    """Impatient. At its end it still serves, has kept and written nothing, and has said nothing."""
    monkeypatch.setattr(connections, "HEAD", 0.5)
    monkeypatch.setattr(connections, "IDLE", 0.5)
    monkeypatch.setattr(connections, "LOOK", 0.05)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING), running(tiny_model, temporary, max_upload=LIMIT, timeout=2, connections=8) as server:
        yield server
        with Client(server.url) as client:
            image = client.upload(picture()).id
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [image]
        said = [*caplog.get_records("call"), *caplog.get_records("teardown")]
        assert [record.getMessage() for record in said if record.name != "httpx"] == []


def connect(server: Running) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", server.port))
    made.settimeout(SOON)
    return made


def trickle(made: socket.socket, byte: bytes = b"a") -> None:
    """A byte after the other, until the other side has had enough."""
    end = time.monotonic() + SOON
    try:
        while time.monotonic() < end:
            made.sendall(byte)
            time.sleep(0.02)
    except OSError:
        return
    raise AssertionError("still listened to")


def rest(made: socket.socket) -> bytes:
    """All that comes, up to the end of the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := made.recv(2**16):
            received += piece
    return received


def test_connection_without_a_request_is_closed(server: Running) -> None:
    start = time.monotonic()
    with connect(server) as made:
        assert made.recv(1) == b""
    assert 0.5 < time.monotonic() - start < SOON


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"], ids=["first", "second"])
def test_head_that_trickles_is_given_up(server: Running, before: bytes) -> None:
    with connect(server) as made:
        made.sendall(before + b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        trickle(made)
        assert rest(made).count(b"HTTP/1.1") == (1 if before else 0)


def test_body_that_trickles_is_given_up(server: Running) -> None:
    head = b"POST /images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
    start = time.monotonic()
    with connect(server) as made:
        made.sendall(head)
        threading.Thread(target=trickle, args=(made,)).start()
        assert rest(made).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - start < SOON


def test_connection_in_use_is_not_closed(server: Running) -> None:
    with server.http() as http:
        for _ in range(20):
            assert http.get("/health").status_code == 200
            time.sleep(0.1)
        (only,) = http._transport._pool.connections  # pyright: ignore[reportAttributeAccessIssue]
        assert "Request Count: 20" in only.info()


def test_connections_above_the_limit_are_turned_away(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD", 5.0)
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(8)]
        for _ in range(10):
            with connect(server) as made:
                answer = rest(made)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429")
            assert b"\r\nRetry-After: 1" in head
            assert json.loads(body) == {"detail": connections.BUSY}
        with Client(server.url) as client:  # comes again
            assert client.health().model == "tiny"
        assert [made.recv(1) for made in idle] == [b""] * 8


HEAD = b"POST /images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n"
CHUNKED = HEAD % b"image/png" + b"Transfer-Encoding: chunked\r\n\r\n"
FORM = HEAD % b"multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nt\r\n'


def form(body: bytes) -> bytes:
    return FORM + b"Content-Length: %d\r\n\r\n" % len(body) + body


HOSTILE: dict[str, tuple[bytes, bytes]] = {
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00" + bytes(100) + b"\r\n\r\n", b"400"),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", b"400"),
    "long line": (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 2**20, b"400"),
    "long path": (b"GET /" + b"a" * 2**20, b"400"),
    "many headers": (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: a\r\n" * 100_000, b"400"),
    "long number": (HEAD % b"image/png" + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", b"400"),
    "two lengths": (HEAD % b"image/png" + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", b"400"),
    "negative length": (HEAD % b"image/png" + b"Content-Length: -1\r\n\r\n", b"400"),
    "unknown coding": (HEAD % b"image/png" + b"Transfer-Encoding: gzip\r\n\r\n", b"400"),
    "chunk without a size": (CHUNKED + b"zz\r\nabc\r\n", b"400"),
    "long size of a chunk": (CHUNKED + b"0" * 2**20, b"400"),
    "chunks over the limit": (CHUNKED + (b"10000\r\n" + bytes(2**16) + b"\r\n") * 40 + b"0\r\n\r\n", b"413"),
    "chunk over the limit": (CHUNKED + b"fffffffffff\r\n" + bytes(2 * LIMIT), b"413"),
    "upgrade": (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"200"),
    "many parts": (form(PART * 5000 + b"--x--\r\n"), b"400"),
    "many parts without a file": (form(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nt\r\n' * 5000), b"400"),
    "long line of a part": (
        form(b"--x\r\nContent-Disposition: form-data; a=" + b"a" * 900_000 + b"\r\n\r\nt\r\n--x--\r\n"),
        b"4",
    ),
    "space in the name of a part's header": (form(b"--x\r\nContent Disposition: form-data\r\n\r\nt\r\n--x--\r\n"), b"400"),
    "boundaries": (form(b"--x\r\n" * 100_000), b"4"),
    "form over the limit": (FORM + b"Transfer-Encoding: chunked\r\n\r\n" + b"200000\r\n" + PART + bytes(2**21), b"413"),
    "answers ahead": (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 2000 + b"\r\n\0\r\n\r\n", b"200"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_request_is_refused_or_closed_in_time(server: Running, name: str) -> None:
    sent, status = HOSTILE[name]
    with connect(server) as made:

        def send() -> None:
            with suppress(OSError):  # the server has heard enough
                made.sendall(sent)

        thread = threading.Thread(target=send)
        thread.start()
        received = rest(made)
        thread.join()
    assert received[9:].startswith(status) or (not received and status != b"200"), received[:200]
    if status != b"200" and received:
        assert json.loads(received.partition(b"\r\n\r\n")[2])["detail"]


def test_client_that_takes_none_of_its_answers_is_given_up(server: Running) -> None:
    """No traceback: it is no fault of the disk, nor of the server."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", server.port))
    made.setblocking(False)
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1000
    with made:
        end = time.monotonic() + 3 * SOON
        while time.monotonic() < end:
            try:
                made.send(asked)
            except BlockingIOError:
                time.sleep(0.05)
            except (BrokenPipeError, ConnectionResetError):
                return
    raise AssertionError("still connected")


def test_client_that_resets_its_connection_is_not_logged(server: Running) -> None:
    for _ in range(20):
        with connect(server) as made:
            made.sendall(CHUNKED + b"10000\r\nabc")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    while server.door.inside:
        time.sleep(0.01)


def test_connections_that_cannot_be_had_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def run(report: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(report)
        for _ in range(1000):
            loop.call_exception_handler({"message": "accept", "exception": OSError(errno.EMFILE, "Too many open files")})
        loop.call_exception_handler({"message": "a mistake", "exception": KeyError("x")})

    asyncio.run(run(connections.calm()))
    first, second = [record.getMessage() for record in caplog.records if record.name in ("ruac.serve", "asyncio")]
    assert first == "connections have to wait: [Errno 24] Too many open files"
    assert second.startswith("a mistake")


def test_number_of_connections_follows_from_the_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def allow(files: int) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda kind: (files, files))

    allow(100_000)
    assert most_connections(32) == 1032
    allow(resource.RLIM_INFINITY)
    assert most_connections(32) == 1032
    allow(256)
    assert 32 <= most_connections(32) == 256 - FILES - 2 * 32 - 4 * BATCH
    with pytest.raises(
        ValueError, match=r"^--queue 100: too much for 256 open files a process; allow more with ulimit -n, or lower"
    ):
        most_connections(100)
