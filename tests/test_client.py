"""The client: patient with a server that is busy, short with one that says no, and free of torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import HEIGHT, WIDTH, picture, running

from ruac.client import Client, Health, ServerError
from ruac.model import RuacModel

HEALTH = {"status": "ok", "model": "m", "model_sha256": "s", "calibrated": False, "ruac": "0"}


class Script(ThreadingHTTPServer):
    """Answers with what it is told, one after the other: status, Retry-After, content."""

    def __init__(self, *answers: tuple[int, str | None, bytes], port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers = list(answers)
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Script  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.server.asked += 1
        status, retry, content = self.server.answers.pop(0)
        self.send_response(status)
        if retry is not None:
            self.send_header("Retry-After", retry)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client has waited, without the waiting."""
    waited: list[float] = []
    monkeypatch.setattr("ruac.client.time.sleep", waited.append)
    return waited


@pytest.fixture
def scripted() -> Iterator[list[Script]]:
    servers: list[Script] = []
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def script(servers: list[Script], *answers: tuple[int, str | None, bytes], port: int = 0) -> Script:
    servers.append(Script(*answers, port=port))
    threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}).start()
    return servers[-1]


GOOD = (200, None, json.dumps(HEALTH).encode())


def test_comes_again_when_the_server_says(scripted: list[Script], pauses: list[float]) -> None:
    server = script(scripted, (429, "7", b'{"detail": "busy"}'), (503, "1", b"{}"), (502, None, b""), GOOD)
    with Client(server.url) as client:
        assert client.health().model == "m"
    assert server.asked == 4
    assert 7 <= pauses[0] <= 7.5
    assert 1 <= pauses[1] <= 1.5
    assert 0 < pauses[2] < 2


def test_patience_ends(scripted: list[Script], pauses: list[float]) -> None:
    server = script(scripted, (429, "7", b'{"detail": "busy"}'))
    with Client(server.url, patience=5) as client, pytest.raises(ServerError, match=r"^GET /health: 429, busy$") as caught:
        client.health()
    assert (caught.value.status, server.asked, pauses) == (429, 1, [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"detail": "no such image"}', "no such image"),
        (b"<html>\nproxy\n", "<html> proxy"),
        (b"", "Not Found"),
        (b"[1]", r"\[1\]"),
    ],
)
def test_refusal_is_one_line_and_final(scripted: list[Script], pauses: list[float], content: bytes, words: str) -> None:
    server = script(scripted, (404, None, content))
    with Client(server.url) as client, pytest.raises(ServerError, match=f"^GET /health: 404, {words}$"):
        client.health()
    assert (server.asked, pauses) == (1, [])


def test_work_that_took_too_long_is_not_asked_for_again(scripted: list[Script], pauses: list[float]) -> None:
    server = script(scripted, (504, None, b'{"detail": "the work took longer"}'))
    with Client(server.url) as client, pytest.raises(ServerError, match=r"^GET /health: 504, the work took longer$"):
        client.health()
    assert (server.asked, pauses) == (1, [])


@pytest.mark.parametrize("content", [b"<html>\n<p>Sign in</p>", b"", b"[1]", b'{"status": "ok"}', b"\xff", b"null"])
def test_answer_of_something_else_is_one_line(scripted: list[Script], pauses: list[float], content: bytes) -> None:
    server = script(scripted, (200, None, content))
    words = r"http://127\.0\.0\.1:\d+/health: 200, but not the answer of ruac serve: '.*'; is it the server's address\?"
    with Client(server.url) as client, pytest.raises(ServerError) as caught:
        client.health()
    assert re.fullmatch(words, str(caught.value))
    assert (server.asked, pauses) == (1, [])


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "localhost:8000",
        "ftp://127.0.0.1",
        "",
        "http://",
        "http://a:b",
        "http://a:99999",
        "http://[::1",
        "http://a\n",
    ],
)
def test_address_that_is_none_is_one_line(url: str) -> None:
    with pytest.raises(ServerError) as caught:
        Client(url)
    assert re.fullmatch(r"'.*': .*; give (one|an address) like http://127\.0\.0\.1:8000", str(caught.value))


@pytest.mark.parametrize("url", ["http://nobody.invalid", "http://.../", "https"])
def test_address_that_cannot_be_right_is_not_tried_again(scripted: list[Script], pauses: list[float], url: str) -> None:
    if url == "https":  # to a server without TLS
        url = script(scripted).url.replace("http", "https")
    with Client(url) as client, pytest.raises(ServerError, match=r"^http\S+: .*; is the address right\?$"):
        client.health()
    assert pauses == []


def test_token_of_any_letters_is_sent(scripted: list[Script]) -> None:
    with Client(script(scripted, GOOD).url, token="sésame…\n") as client:
        assert client.health().model == "m"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"point_coords": [[float("nan"), 1]]}, "point_coords: NaN or infinite; give finite numbers"),
        ({"point_coords": [[1, 2], [3]]}, "point_coords: setting an array element"),
        ({"point_coords": [["left", 1]]}, "point_coords: could not convert string"),
        ({"point_coords": [[1, 2]], "point_labels": ["yes"]}, "point_labels: ufunc 'isfinite'"),
        ({"box": [0, 0, float("inf"), 9]}, "box: NaN or infinite"),
        ({"mask_input": [[float("nan")]]}, "mask_input: NaN or infinite"),
        ({"point_coords": [[1, 2]], "levels": [float("nan")]}, "levels: NaN or infinite"),
        ({"point_coords": [[1, 2]], "multimask_output": object()}, "the request: Object of type object is not JSON"),
    ],
)
def test_what_are_no_numbers_is_not_sent(words: dict[str, Any], message: str) -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServerError) as caught:
        client.predict("0" * 64, **words)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_is_no_image_is_named(tiny_model: RuacModel, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with running(tiny_model, tmp_path / "server") as server, Client(server.url, patience=0) as client:
        for image, message in (
            (text, f"{text}: 422, the upload: not an image"),
            (tmp_path / "gone.jpg", f"{tmp_path / 'gone.jpg'}: No such file or directory; name the file of an image"),
            (tmp_path, f"{tmp_path}: Is a directory"),
            ("a\0b", "a\0b: embedded null byte"),
            (np.zeros((4, 4, 3)), "the pixels: float64 [4, 4, 3]; give uint8, RGB [height, width, 3]"),
            (np.zeros((0, 4, 3), np.uint8), "the pixels: uint8 [0, 4, 3]; give"),
        ):
            with pytest.raises(ServerError) as caught:
                client.upload(image)  # pyright: ignore[reportArgumentType]  the wrong kind of pixels
            assert str(caught.value).startswith(message)
            assert "\n" not in str(caught.value)
        with pytest.raises(ServerError, match=r"^POST /images/\.\.%2Fhealth/predict: 4\d\d, "):
            client.predict("../health", [[1, 2]])


def test_server_that_is_not_there_is_one_line() -> None:
    with Client("http://127.0.0.1:9", patience=0) as client:
        with pytest.raises(ServerError, match=r"^http://127\.0\.0\.1:9/?: .*; is the server running\?$") as caught:
            client.health()
        assert caught.value.status is None


def test_waits_for_a_server_that_is_being_started(scripted: list[Script]) -> None:
    with Script() as before:
        port = before.server_port
    found: list[Health] = []
    with Client(f"http://127.0.0.1:{port}", patience=30) as client:
        thread = threading.Thread(target=lambda: found.append(client.health()))
        thread.start()
        script(scripted, GOOD, port=port)
        thread.join(30)
    assert [health.model for health in found] == ["m"]


def test_image_may_be_a_file_bytes_or_pixels(tiny_model: RuacModel, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(picture()).save(file)
    with running(tiny_model, tmp_path) as server, Client(server.url, patience=0) as client:
        uploads = [client.upload(image) for image in (file, str(file), file.read_bytes(), picture())]
        assert {(upload.width, upload.height) for upload in uploads} == {(WIDTH, HEIGHT)}
        masks = [client.predict(upload.id, [[40, 20]]).masks for upload in uploads]
        assert all((mask == masks[0]).all() for mask in masks)
        with pytest.raises(ServerError, match=r"^POST /images: 422, the upload: not an image") as caught:
            client.upload(b"no picture")
        assert caught.value.status == 422


def test_client_needs_no_torch() -> None:
    code = "import sys, ruac.client; ruac.client.Client(); print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
