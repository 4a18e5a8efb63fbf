"""Uploads as no good client sends them: refused with a clear line, nothing written where it should not be, and the server goes on."""

from __future__ import annotations

import io
import re
import socket
import struct
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import Running, picture, running

from ruac.model import RuacModel
from ruac.serve.settings import MIB
from ruac.serve.spool import FullError, Incoming, Spool

LIMIT = MIB
PIXELS = 20_000


@pytest.fixture
def server(tiny_model: RuacModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Everything that is written anywhere by name is under tmp_path/temporary."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(tmp_path)
    with running(tiny_model, temporary, max_upload=LIMIT, max_pixels=PIXELS) as server:
        yield server


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb_png(width: int, height: int, text: bytes = b"") -> bytes:
    """Small as a file, and large once it is decoded; text: of a compressed remark."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    remark = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text, 9)) if text else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + remark + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../evil.png", bytes(50 * MIB))
    return buffer.getvalue()


def scans_jpeg() -> bytes:
    """A progressive JPEG whose last scan is repeated so often that decoding would take minutes."""
    data = encoded(np.zeros((100, 150, 3), np.uint8), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 600 + data[-2:]


BAD = {
    "empty": (b"", 400, "an empty body"),
    "text": (b"hello", 422, "the upload: not an image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 422, "not an image"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "not an image"),
    "archive": (archive(), 422, "not an image"),
    "truncated png": (encoded(picture(), "PNG")[:2000], 422, "the upload: damaged"),
    "truncated jpeg": (encoded(picture(), "JPEG")[:700], 422, "the upload: damaged"),
    "head alone": (encoded(picture(), "PNG")[:20], 422, "the upload: "),
    "pixels": (bomb_png(8000, 8000), 422, "8000 x 8000 pixels is over the limit of 0.02 megapixels"),
    "billions of pixels": (bomb_png(60_000, 60_000)[:100_000], 422, "over the limit"),
    "compressed remark": (bomb_png(9, 9, bytes(100 * MIB)), 422, "the upload: "),
    "many scans": (scans_jpeg(), 422, "more than 100 scans"),
    "large": (bytes(LIMIT + 64 * 1024 + 1), 413, "over the limit of 1 MiB"),
    "a little too large": (bytes(LIMIT + 1), 413, "over the limit of 1 MiB"),
}


def all_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def require_well(server: Running, tmp_path: Path) -> None:
    """It still serves, and keeps nothing of what was sent before."""
    files = [name for name in all_files(tmp_path) if not name.startswith("temporary/gauge")]
    assert files == []
    with server.http() as http:
        answer = http.post("/images", files={"image": ("a.png", encoded(picture(), "PNG"))})
        assert answer.status_code == 201
        assert [f"temporary/spool/{answer.json()['id']}"] == all_files(tmp_path)


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("way", ["body", "form", "chunks"])
def test_bad_image_is_refused_in_a_line(server: Running, tmp_path: Path, name: str, way: str) -> None:
    content, status, message = BAD[name]
    with server.http() as http:
        if way == "form":
            answer = http.post("/images", files={"image": ("a.png", content, "image/png")})
        else:
            body = (content[i : i + 1000] for i in range(0, len(content), 1000)) if way == "chunks" else content
            answer = http.post("/images", content=body, headers={"Content-Type": "image/png"})
    assert answer.status_code == status
    assert message in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert str(tmp_path) not in answer.text
    require_well(server, tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../../evil.png", "/etc/passwd", "..", ".", "..\\..\\evil", "a\x00.png", "a\nb.png", "x" * 300, "%2e%2e/x"],
)
def test_hostile_name_is_refused(server: Running, tmp_path: Path, name: str) -> None:
    frame = f'--x\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
    body = frame + encoded(picture(), "PNG") + b"\r\n--x--\r\n"
    with server.http() as http:
        answer = http.post("/images", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code in (400, 422)
    assert re.search(r"the file name .* is none: send a plain one|must have one file|multipart|parsing", answer.json()["detail"])
    require_well(server, tmp_path)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"x", 415),
        ("application/x-www-form-urlencoded", b"image=x", 415),
        ("application/json", b"{}", 415),
        ("", b"x", 415),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=x", b"no boundary", 400),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\ntext\r\n--x--\r\n', 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nt\r\n--x--\r\n',
            422,
        ),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\ntext',
            422,
        ),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 10_000, 400),
    ],
)
def test_wrong_kind_of_body_is_refused(server: Running, tmp_path: Path, kind: str, body: bytes, status: int) -> None:
    with server.http() as http:
        answer = http.post("/images", content=body, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == status
    assert answer.json()["detail"]
    require_well(server, tmp_path)


def test_two_files_of_a_form_are_refused(server: Running, tmp_path: Path) -> None:
    files = [("image", ("a.png", encoded(picture(), "PNG"))), ("image", ("b.png", encoded(picture(), "PNG")))]
    with server.http() as http:
        assert http.post("/images", files=files).status_code == 400
    require_well(server, tmp_path)


def test_compressed_body_is_not_unpacked(server: Running, tmp_path: Path) -> None:
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    with server.http() as http:
        assert http.post("/images", content=zlib.compress(bytes(MIB)), headers=headers).status_code == 415
    require_well(server, tmp_path)


def test_upload_that_breaks_off_leaves_nothing(server: Running, tmp_path: Path) -> None:
    head = b"POST /images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 500000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head + bytes(200_000))
        while not any(server.spool.iterdir()):
            time.sleep(0.01)
    while server.door.inside:
        time.sleep(0.01)
    require_well(server, tmp_path)


def test_announced_size_over_the_limit_is_refused_unread(server: Running, tmp_path: Path) -> None:
    head = f"POST /images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: {10**15}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")
    require_well(server, tmp_path)


def test_full_spool_is_answered_429_and_loses_nothing(tiny_model: RuacModel, tmp_path: Path) -> None:
    with running(tiny_model, tmp_path, spool_bytes=10_000) as server, server.http() as http:
        kept = http.post("/images", files={"image": ("a.png", encoded(picture(), "PNG"))}).json()["id"]
        refused = http.post("/images", files={"image": ("b.png", encoded(picture(1), "PNG"))})
        assert (refused.status_code, "expire" in refused.json()["detail"]) == (429, True)
        assert int(refused.headers["Retry-After"]) >= 1
        asked = {"prompts": [{"point_coords": [[4, 4]]}]}
        assert http.post(f"/images/{kept}/predict", json=asked).status_code == 200


def test_spool_counts_blocks_of_the_disk(tmp_path: Path) -> None:
    """Files of a few bytes take more of it than their content."""
    spool = Spool(tmp_path / "spool", 60, 10 * 4096)
    spool.open()
    for number in range(8):
        with spool.receive() as incoming:
            incoming.write(bytes([number]))
            spool.keep(incoming)
    assert spool.sweep() == 8 * 4096
    spool.require_place()
    with spool.receive() as incoming:
        incoming.write(bytes(4097))
        spool.keep(incoming)
    assert spool.sweep() == 10 * 4096
    with pytest.raises(FullError):
        spool.require_place()


def test_spool_is_not_searched_by_the_event_loop(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    sweep = Spool.sweep

    def note(self: Spool) -> int:
        threads.append(threading.current_thread())
        return sweep(self)

    monkeypatch.setattr(Spool, "sweep", note)
    with server.http() as http:
        assert http.post("/images", files={"image": ("a.png", encoded(picture(), "PNG"))}).status_code == 201
        http.get("/metrics")
    assert len(threads) == 2
    assert server.thread not in threads


def test_error_that_is_not_the_disks_is_a_mistake(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(self: Incoming, chunk: bytes) -> None:
        raise TimeoutError

    with monkeypatch.context() as patched, server.http() as http:
        patched.setattr(Incoming, "write", late)
        answer = http.post("/images", files={"image": ("a.png", encoded(picture(), "PNG"))})
        assert (answer.status_code, answer.json()["detail"]) == (500, "a mistake of the server; its log says more")
    require_well(server, tmp_path)


def test_full_disk_is_said_and_survived(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Incoming, chunk: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, server.http() as http:
        patched.setattr(Incoming, "write", full)
        answer = http.post("/images", files={"image": ("a.png", encoded(picture(), "PNG"))})
        assert (answer.status_code, answer.json()["detail"]) == (503, "the server cannot keep the image: No space left on device")
    require_well(server, tmp_path)
