"""What the page's server refuses."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from app_pages import two_pictures
from httpx import ASGITransport, AsyncClient
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ruac.app.guard import MAX_REQUEST, UPLOAD, Guard, answer_to_error
from ruac.app.models import Models
from ruac.app.room import Room
from ruac.app.serving import MAX_FILE, running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures on the server."""
    return two_pictures(tmp_path_factory.mktemp("allowed"))


@pytest.fixture(scope="module")
def address(tiny_model_folder: Path, folder: Path) -> Iterator[str]:
    with running(Models([str(tiny_model_folder)]), folder, "127.0.0.1", 0) as address:
        yield address


def answer_to(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def posted(address: str, path: str, body: bytes, kind: str = "application/json") -> tuple[int, str]:
    return answer_to(urllib.request.Request(address + path, body, {"Content-Type": kind}))


def refused(address: str, path: str, body: bytes, kind: str = "application/json") -> str:
    """The whole answer to a request whose body the server may refuse to read to its end."""
    host, port = address.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head.encode() + body)
        with suppress(ConnectionResetError):
            while piece := connection.recv(2**16):
                answer += piece
    return answer.decode()


def upload_of(name: str, content: bytes) -> tuple[bytes, str]:
    start = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    return start.encode() + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def test_hostile_names_stay_in_the_temporary_folder(address: str, tmp_path: Path) -> None:
    for name in ("../../evil.png", "/etc/evil.png", "..\\..\\evil.png", "a" * 500 + ".png", "%2e%2e%2fevil.png", "-rf"):
        status, text = posted(address, UPLOAD, *upload_of(name, b"x"))
        assert status == 200
        path = Path(json.loads(text)[0])
        assert "ruac-app." in str(path.resolve())
        assert path.is_file()


def test_oversize_requests_are_refused_before_they_are_read(address: str) -> None:
    answer = refused(address, UPLOAD, *upload_of("big.png", bytes(MAX_FILE + 1)))
    assert answer.startswith("HTTP/1.1 413")
    assert "maximum" in answer or "exceeded" in answer
    answer = refused(address, "/gradio_api/component_server/", b"{" + b" " * MAX_REQUEST + b"}")
    assert answer.startswith("HTTP/1.1 413")
    assert answer.endswith("the body is over the limit of 1 MiB")
    host, port = address.removeprefix("http://").split(":")
    for length in ("", "Content-Length: 5\r\n"):  # with which a body of chunks may be of any length
        for path in (UPLOAD, "/gradio_api/component_server/"):
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{length}Transfer-Encoding: chunked\r\n\r\n"
            with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile("rb") as answered:
                connection.sendall(head.encode())
                answer = answered.read().decode()
            assert answer.startswith("HTTP/1.1 411")
            assert answer.endswith("send the body whole, with a Content-Length and without a Transfer-Encoding")


def test_uploads_without_a_name_are_refused(address: str, caplog: pytest.LogCaptureFixture) -> None:
    body, kind = upload_of("left.png", b"x")
    status, text = posted(address, UPLOAD, body.replace(b'; filename="left.png"', b""), kind)
    assert (status, text) == (400, "a file that is uploaded needs a name")
    assert caplog.records == []


def test_an_upload_that_is_broken_off_is_no_error(address: str, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    host, port = address.removeprefix("http://").split(":")
    body, kind = upload_of("left.png", b"x")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode() + body[:100])
    assert uploaded(address)
    time.sleep(0.3)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_other_sites_cannot_reach_a_page_of_this_machine(address: str) -> None:
    status, text = answer_to(urllib.request.Request(address, headers={"Host": "evil.example"}))
    assert (status, text) == (403, "this page is for this machine alone; start it with --host for others")
    status, _ = answer_to(urllib.request.Request(address, headers={"Host": "[::1"}))
    assert status == 403
    body, kind = upload_of("left.png", b"x")
    there = {"Origin": "http://evil.example", "Content-Type": kind}
    status, text = answer_to(urllib.request.Request(address + UPLOAD, body, there))
    assert (status, text) == (403, "requests from the pages of other sites are refused")


def test_files_of_this_machine_are_not_served(address: str, folder: Path) -> None:
    for path in (folder / "left.png", Path(__file__).resolve(), Path("/etc/passwd")):
        status, _ = answer_to(urllib.request.Request(f"{address}/gradio_api/file={path}"))
        assert status in (403, 404)


# ---- what gradio would fetch or read


@pytest.fixture
def outward(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name that is looked up and every address that is called, other than this machine's."""
    seen: list[str] = []

    def note(host: Any) -> None:
        if str(host) not in ("127.0.0.1", "localhost", "::1"):
            seen.append(str(host))

    look_up, connect = socket.getaddrinfo, socket.socket.connect
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **named: note(host) or look_up(host, *more, **named))
    monkeypatch.setattr(socket.socket, "connect", lambda self, to: note(to[0]) or connect(self, to))
    return seen


def file_data(path: Any, **more: Any) -> dict[str, Any]:
    return {"path": path, "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}, **more}


def label_request(address: str, file: Any) -> dict[str, Any]:
    """What the page sends when its button to label is pressed."""
    config = json.loads(answer_to(urllib.request.Request(f"{address}/config"))[1])
    (number,) = [function["id"] for function in config["dependencies"] if len(function["inputs"]) == 6]
    data = ["pictures that I upload", [file], "everything that looks like an object", None, "many", None]
    return {"data": data, "fn_index": number, "session_hash": "guest", "event_data": None, "trigger_id": None}


def uploaded(address: str) -> str:
    return json.loads(posted(address, UPLOAD, *upload_of("left.png", b"x"))[1])[0]


@pytest.mark.parametrize("route", ["queue/join", "run/predict", "component_server/"])
@pytest.mark.parametrize("address_", ["http://203.0.113.7/x.png", "https://example.org/x.png"])
def test_no_address_is_fetched_that_a_request_tells(address: str, outward: list[str], route: str, address_: str) -> None:
    mine = uploaded(address)
    for file in (file_data(address_), file_data(address_, meta={}), file_data(mine, url=address_), {"url": address_}):
        status, text = posted(address, f"/gradio_api/{route}", json.dumps(label_request(address, file)).encode())
        assert status == 403
        assert text.startswith(("a file in this request was not uploaded here", "files are never fetched from an address"))
    assert outward == []


def test_no_file_is_read_that_was_not_uploaded(address: str, folder: Path) -> None:
    mine = uploaded(address)
    places = str(folder / "left.png"), "/etc/passwd", f"{mine}/../../../../../../etc/passwd", str(Path(mine).parent), "", "a\0b"
    for path in (*places, None, 7, ["x"]):
        request = label_request(address, file_data(path))
        status, text = posted(address, "/gradio_api/queue/join", json.dumps(request).encode())
        assert status == 403, path
        assert text == "a file in this request was not uploaded here, or it is forgotten by now: upload it again"


def test_a_file_that_was_uploaded_is_taken_and_shown(address: str) -> None:
    mine = uploaded(address)
    request = label_request(address, file_data(mine, url=f"{address}/gradio_api/file={mine}"))
    status, text = posted(address, "/gradio_api/queue/join", json.dumps(request).encode())
    assert (status, list(json.loads(text))) == (200, ["event_id"])
    assert answer_to(urllib.request.Request(f"{address}/gradio_api/file={mine}")) == (200, "x")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/proxy=https://example.org/x.png"),
        ("GET", "/gradio_api/file=https://example.org/x.png"),
        ("GET", "/gradio_api/file=http%3A%2F%2Fexample.org/x.png"),
        ("GET", "/gradio_api/file/etc/passwd"),
        ("GET", "/gradio_api/stream/a/b/1/playlist.m3u8"),
        ("GET", "/gradio_api/deep_link?session_hash=guest"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/gradio_api/vibe-code"),
        ("GET", "/custom_component/1/client/component/x.js"),
        ("GET", "/monitoring"),
        ("GET", "/login/huggingface"),
        ("POST", "/login"),
        ("POST", "/gradio_api/api/predict"),
        ("POST", "/gradio_api/call/predict"),
        ("POST", "/gradio_api/call/v2/predict"),
        ("POST", "/gradio_api/stream/1"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/run-history/connect"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/gradio_api/cancel"),
        ("PUT", "/gradio_api/upload"),
        ("OPTIONS", "/gradio_api/upload"),
    ],
)
def test_routes_that_the_page_does_not_need_are_closed(address: str, outward: list[str], method: str, path: str) -> None:
    body = b"{}" if method in ("POST", "PUT") else None
    status, text = answer_to(urllib.request.Request(address + path, body, {"Content-Type": "application/json"}, method=method))
    assert (status, text) in ((404, "the page has no such address"), (403, "no such file here, or it is forgotten by now"))
    assert outward == []


def test_bodies_that_are_no_json_are_refused(address: str) -> None:
    for body, kind, status in (
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff\xfe\xff", "application/json", 400),
        (*upload_of("x.png", b"x"), 415),
        (b"{}", "text/plain", 415),
    ):
        assert posted(address, "/gradio_api/component_server/", body, kind)[0] == status


@pytest.mark.parametrize(
    "change", [{"component_id": 0}, {"component_id": "1"}, {"component_id": None}, {"fn_name": "__class__"}, {"session_hash": 1}]
)
def test_parts_that_the_page_has_not_are_refused(address: str, change: dict[str, Any]) -> None:
    request = {"data": {"action": "undo"}, "component_id": 10**6, "fn_name": "ask", "session_hash": "guest", **change}
    status, text = posted(address, "/gradio_api/component_server/", json.dumps(request).encode())
    assert (status, text) == (404, "the page has no such part; load it again")


def test_an_error_of_the_server_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    request = Request(
        {"type": "http", "method": "POST", "path": "/config", "headers": [], "query_string": b"", "server": ("x", 1)}
    )
    reply = asyncio.run(answer_to_error(request, KeyError("what\nis missing")))
    assert (reply.status_code, reply.body) == (500, b"the server could not do that; try again")
    (record,) = caplog.records
    assert record.getMessage() == r"POST '/config': KeyError: 'what\nis missing'"
    assert record.exc_info is None


def test_the_page_still_answers(address: str, tiny_model_folder: Path) -> None:
    """After all of the above."""
    config = json.loads(answer_to(urllib.request.Request(f"{address}/config"))[1])
    (number,) = [part["id"] for part in config["components"] if part["type"] == "html" and part["props"].get("server_fns")]
    words = {"secret": "a" * 32, "action": "sample", "number": 0, "model": str(tiny_model_folder)}
    request = {"data": words, "component_id": number, "fn_name": "ask", "session_hash": "guest"}
    status, text = posted(address, "/gradio_api/component_server/", json.dumps(request).encode())
    assert (status, json.loads(text)["picture"]["name"]) == (200, "grace_hopper.jpg")


# ---- room


def guarded(app: ASGIApp, room: Room) -> AsyncClient:
    """A client of an application that is guarded, without a server."""
    return AsyncClient(transport=ASGITransport(Guard(app, room, local=True, part=0)), base_url="http://127.0.0.1")


def storing(room: Room) -> ASGIApp:
    """An application that writes what comes into a file, named as the first letter of it, as it comes."""

    async def store(scope: Scope, receive: Receive, send: Send) -> None:
        more, name = True, ""
        while more:
            message = await receive()
            name = name or message["body"][:1].decode()
            with (room.files / name).open("ab") as file:
                file.write(message["body"])
            await asyncio.sleep(0)  # for others to come as well
            more = message.get("more_body", False)
        await PlainTextResponse("stored")(scope, receive, send)

    return store


async def pieces(letter: bytes, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield letter * 100


def test_uploads_are_refused_where_there_is_no_room_left(tmp_path: Path) -> None:
    room = Room(tmp_path, 1000, 60)

    async def upload(body: bytes) -> tuple[int, str]:
        async with guarded(storing(room), room) as client:
            reply = await client.post(UPLOAD, content=body)
            return reply.status_code, reply.text

    assert asyncio.run(upload(b"a" * 600)) == (200, "stored")
    status, text = asyncio.run(upload(b"b" * 600))
    assert status == 507
    assert text.startswith("there is no room left: the page keeps")
    assert [path.name for path in room.files.iterdir()] == ["a"]
    (room.files / "a").unlink()
    assert asyncio.run(upload(b"b" * 600)) == (200, "stored")


def test_uploads_that_arrive_at_the_same_time_share_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ruac.app.guard.LOOK", 100)
    room = Room(tmp_path, 1000, 60)

    async def together() -> list[int]:
        async with guarded(storing(room), room) as client:
            length = {"Content-Length": "800"}
            replies = await asyncio.gather(
                *(client.post(UPLOAD, content=pieces(name, 8), headers=length) for name in (b"a", b"b"))
            )
            return [reply.status_code for reply in replies]

    assert 507 in asyncio.run(together())
    assert room.nbytes <= 1200  # a piece of each more


def test_uploads_that_are_announced_and_do_not_come_take_no_room(tmp_path: Path) -> None:
    room = Room(tmp_path, 1000, 60)
    waiting = asyncio.Event()

    async def nothing() -> AsyncIterator[bytes]:
        yield b"a"
        await waiting.wait()

    async def both() -> int:
        async with guarded(storing(room), room) as client:
            silent = asyncio.create_task(client.post(UPLOAD, content=nothing(), headers={"Content-Length": "900"}))
            await asyncio.sleep(0.1)
            reply = await client.post(UPLOAD, content=b"b" * 900)
            waiting.set()
            await silent
            return reply.status_code

    assert asyncio.run(both()) == 200
