"""As test_faults.py, of what serves: a full or read-only disk is an answer that a client can read, and the server goes on."""

from __future__ import annotations

import base64
import io
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from faulty import Disk, full_from, mounted
from PIL import Image
from serving import picture, running
from squares import write_set
from test_label_studio import CLICK, request, send

from ruac.app.labelling import ALLOWED, EVERYTHING, Labelling
from ruac.app.models import Models
from ruac.app.room import Room
from ruac.exchange.backend import Backend
from ruac.exchange.server import open_server
from ruac.model import RuacModel
from ruac.predictor import Predictor


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk") as found:
        yield found


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_server_on_a_full_disk_refuses_uploads_and_answers_about_what_it_has(
    tiny_model: RuacModel, disk: Disk, tmp_path: Path
) -> None:
    with running(tiny_model, tmp_path, spool=disk.place / "spool") as server, server.http() as http:

        def upload(number: int) -> httpx.Response:
            return http.post("/images", files={"image": ("a.png", png(picture(number)))})

        kept = upload(0).json()["id"]
        filler = disk.fill(0)
        refused = upload(1)
        words = "the server cannot keep the image: No space left on device"
        assert (refused.status_code, refused.json()["detail"]) == (503, words)
        assert int(refused.headers["Retry-After"]) >= 1
        assert http.post(f"/images/{kept}/predict", json={"prompts": [{"point_coords": [[4, 4]]}]}).status_code == 200
        assert [path.name for path in server.spool.iterdir()] == [kept]
        filler.unlink()
        assert upload(1).status_code == 201
        disk.read_only()
        assert (upload(2).status_code, upload(2).json()["detail"][-21:]) == (503, "Read-only file system")
        assert http.get("/health").status_code == 200


def test_the_backend_for_label_studio_on_a_full_disk_or_a_read_only_one_says_so_and_goes_on(
    tiny_model: RuacModel, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk.place))
    body = request(CLICK, address=f"data:image/png;base64,{base64.b64encode(png(picture())).decode()}")
    with open_server(Backend(Predictor(tiny_model), tmp_path, "ruac test"), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            filler = disk.fill(0)
            words = "the picture cannot be kept or read here: No space left on device"
            assert send(server, "POST", "/predict", body) == (503, {"error": words})
            assert send(server, "GET", "/health")[0] == 200
            filler.unlink()
            assert send(server, "POST", "/predict", body)[0] == 200
            assert list(disk.place.iterdir()) == []
            disk.read_only()
            another = request(CLICK, address=f"data:image/png;base64,{base64.b64encode(png(picture(1))).decode()}")
            status, answer = send(server, "POST", "/predict", another)
            assert (status, answer["error"][-21:]) == (503, "Read-only file system")
            assert send(server, "GET", "/health")[0] == 200
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("then", ["ruac.app.labelling.label", "shutil.make_archive"])
def test_the_page_on_a_full_disk_or_a_read_only_one_says_so_and_keeps_no_half_of_the_results(
    then: str, tiny_model_folder: Path, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(tiny_model_folder)
    (disk.place / "room").mkdir()
    room = Room(disk.place / "room", 10**9, 1800)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(room.files))
    labelling = Labelling(Models([model]), write_set(tmp_path / "set", 2) / "images", room)
    with full_from(then, disk), pytest.raises(gr.Error) as error:
        labelling._run(ALLOWED, None, EVERYTHING, None, "10%", model)
    assert error.value.message == "the server cannot keep the results: No space left on device"
    assert [path for part in (room.files, room.work) for path in part.rglob("*")] == []
    assert "<iframe" in labelling._run(ALLOWED, None, EVERYTHING, None, "10%", model)[2]
    disk.read_only()
    with pytest.raises(gr.Error, match="the server cannot keep the results: Read-only file system"):
        labelling._run(ALLOWED, None, EVERYTHING, None, "10%", model)
