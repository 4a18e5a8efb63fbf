"""Connections to the page that are held open for nothing, bodies that do not come, and answers that nobody takes."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from starlette.types import Message, Scope

import ruac.app.flow as flow
import ruac.serve.connection as connection_module
from ruac.app.flow import HEADERS, Incoming, Outgoing, RefusedError
from ruac.app.guard import UPLOAD
from ruac.app.models import Models
from ruac.app.server import MOST_CONNECTIONS, Server
from ruac.app.serving import running
from ruac.serve.bounded import PIECE

MOST, HEAD, SILENCE = 20, 1.0, 2.0


@pytest.fixture(scope="module")
def place(tiny_model_folder: Path) -> Iterator[tuple[str, int]]:
    """Of a page that is in a hurry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ruac.app.server.MOST_CONNECTIONS", MOST)
        patch.setattr(connection_module, "HEAD", HEAD)
        patch.setattr(connection_module, "IDLE", HEAD)
        patch.setattr(flow, "SILENCE", SILENCE)
        with running(Models([str(tiny_model_folder)]), None, "127.0.0.1", 0) as address:
            yield "127.0.0.1", int(address.rsplit(":", 1)[1])


def page(place: tuple[str, int]) -> int:
    """The status that it is answered with."""
    return httpx.get(f"http://{place[0]}:{place[1]}/theme.css", timeout=20).status_code


def head(path: str, *more: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *more, "", ""]).encode()


def rest(connection: socket.socket, seconds: float = 20) -> bytes:
    """All that comes until the server closes. Raises TimeoutError when it does not."""
    connection.settimeout(seconds)
    answer = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(2**16):
            answer += piece
    return answer


def test_silent_connections_end_and_too_many_are_told_so(place: tuple[str, int]) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(place, timeout=20)) for _ in range(3 * MOST)]
        answers = [rest(connection) for connection in silent]
    told = [answer for answer in answers if answer]
    assert len(told) >= MOST
    assert all(answer.startswith(b"HTTP/1.1 429") and b"too many connections" in answer for answer in told)
    assert page(place) == 200


def test_a_stream_of_events_is_not_cut_however_seldom_one_comes(place: tuple[str, int]) -> None:
    with socket.create_connection(place, timeout=20) as connection:
        connection.sendall(head("/gradio_api/heartbeat/guest", method="GET"))
        answer = b""
        while b"ALIVE" not in answer:
            answer += connection.recv(2**16)
        with pytest.raises(TimeoutError):  # neither a word nor an end
            rest(connection, 2 * HEAD + SILENCE + 1)


def test_uploads_that_do_not_come_are_ended_and_block_no_other(place: tuple[str, int]) -> None:
    kind = "Content-Type: multipart/form-data; boundary=x"
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(place, timeout=20)) for _ in range(4)]
        for connection in silent:
            connection.sendall(head(UPLOAD, kind, f"Content-Length: {2**30}"))
        time.sleep(0.2)
        files = {"files": ("left.png", b"x")}
        assert httpx.post(f"http://{place[0]}:{place[1]}{UPLOAD}", files=files, timeout=20).status_code == 200
        answers = [rest(connection) for connection in silent]
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)
    assert all(answer.endswith(b"this took too long to arrive; try again") for answer in answers)


def test_a_body_that_trickles_is_ended(place: tuple[str, int]) -> None:
    with socket.create_connection(place, timeout=20) as connection:
        connection.sendall(head("/gradio_api/component_server/", "Content-Type: application/json", "Content-Length: 1000"))
        start = time.monotonic()
        connection.settimeout(0.2)
        answer = b""
        while not answer and time.monotonic() - start < 20:
            connection.sendall(b" ")
            with suppress(TimeoutError):
                answer = connection.recv(2**16)
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_large_body_may_take_its_time() -> None:
    async def slow() -> Message:
        await asyncio.sleep(0.1)
        return {"type": "http.request", "body": bytes(2**20), "more_body": True}

    async def arrived(count: int) -> None:
        counts.append(count)

    async def read(start: float) -> None:
        incoming = Incoming(slow, arrived)
        incoming._start -= start
        for _ in range(3):
            await incoming()

    counts: list[int] = []
    asyncio.run(read(flow.SILENCE - 0.5))
    assert counts == [2**20, 2**21, 3 * 2**20]
    with pytest.raises(RefusedError, match="too long"):
        asyncio.run(read(flow.SILENCE + 1))


def test_an_answer_goes_in_pieces_and_is_given_up_where_nobody_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "TAKE", 0.05)
    sent: list[Message] = []
    aborted: list[bool] = []
    scope: Scope = {"type": "http", "state": {"abort": lambda: aborted.append(True)}}

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 4:
            await asyncio.sleep(60)

    async def answer() -> None:
        out = Outgoing(send, scope)
        await out({"type": "http.response.start", "status": 200, "headers": []})
        await out({"type": "http.response.body", "body": bytes(2 * PIECE), "more_body": False})
        assert not aborted
        await out({"type": "http.response.body", "body": b"x", "more_body": False})

    asyncio.run(answer())
    assert [(len(message["body"]), message["more_body"]) for message in sent[1:]] == [(PIECE, True), (PIECE, False), (1, False)]
    assert {name.decode(): value.decode() for name, value in sent[0]["headers"]} == {
        name.lower(): value for name, value in HEADERS.items()
    }
    assert aborted == [True]


@pytest.mark.parametrize(("files", "most"), [(256, 128), (4096, MOST_CONNECTIONS), (resource.RLIM_INFINITY, MOST_CONNECTIONS)])
def test_there_are_no_more_connections_than_descriptors_for_them(monkeypatch: pytest.MonkeyPatch, files: int, most: int) -> None:
    monkeypatch.setattr("ruac.app.server.MOST_CONNECTIONS", MOST_CONNECTIONS)  # the page above is in a hurry
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (files, files))

    async def nothing(scope: Scope, receive: object, send: object) -> None: ...

    with socket.socket() as listener:
        assert Server(nothing, listener, "test").config.http.most == most  # pyright: ignore[reportAttributeAccessIssue]
