"""The backend for Label Studio, over real HTTP, with the JSON that Label Studio sends."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ruac.exchange.server as server_module
from ruac.cli import main
from ruac.data.image import MAX_PIXELS
from ruac.data.labels import decode
from ruac.exchange import backend as backend_module
from ruac.exchange import label_studio
from ruac.exchange.backend import Backend, read_interface
from ruac.exchange.brush import decode_brush
from ruac.exchange.server import MAX_BODY, WAITING, Server, is_loopback, open_server
from ruac.model import RuacModel
from ruac.predictor import Predictor

HEIGHT, WIDTH = 48, 80
CONFIG = """
<View>
    <Image name="image" value="$image" zoom="true"/>
    <BrushLabels name="tag" toName="image"><Label value="Banana" background="#FF0000"/></BrushLabels>
    <KeyPointLabels name="tag2" toName="image" smart="true"><Label value="Banana"/></KeyPointLabels>
    <RectangleLabels name="tag3" toName="image" smart="true"><Label value="Banana"/></RectangleLabels>
</View>
"""
POLYGONS = CONFIG.replace("BrushLabels", "PolygonLabels")
CLICK = {
    "original_width": WIDTH,
    "original_height": HEIGHT,
    "image_rotation": 0,
    "value": {"x": 50.0, "y": 25.0, "width": 0.32, "labels": ["Banana"], "keypointlabels": ["Banana"]},
    "is_positive": True,
    "id": "fBWv1t0S2L",
    "from_name": "tag2",
    "to_name": "image",
    "type": "keypointlabels",
    "origin": "manual",
}
BOX = {
    "original_width": WIDTH,
    "original_height": HEIGHT,
    "type": "rectanglelabels",
    "value": {"x": 10, "y": 20, "width": 60, "height": 50, "rotation": 0, "rectanglelabels": ["Orange"]},
}


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)


def request(*results: Any, address: Any = "/data/local-files/?d=deep/a.png", config: Any = CONFIG) -> dict[str, Any]:
    """As Label Studio's MLApi.make_predictions has it."""
    context = {"result": list(results)} if results else None
    return {
        "tasks": [{"id": 3, "data": {"image": address}, "annotations": [], "predictions": []}],
        "model_version": "x",
        "project": "7.1690000000",
        "label_config": config,
        "params": {"login": None, "password": None, "context": context},
    }


class Counting(Predictor):
    """Counts the pictures that are encoded."""

    encoded = 0

    def set_image(self, image: Any) -> None:
        super().set_image(image)
        self.encoded += 1


@pytest.fixture
def predictor(tiny_model: RuacModel) -> Counting:
    return Counting(tiny_model)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(picture()).save(folder / "deep" / "a.png")
    Image.fromarray(picture()[::-1]).save(folder / "b.png")
    Image.fromarray(picture()).save(tmp_path / "secret.png")
    return folder


@pytest.fixture
def server(predictor: Counting, images: Path) -> Iterator[Server]:
    with open_server(Backend(predictor, images, "ruac test"), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def send(server: Server, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """The status and the JSON of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, content, {"Content-Type": "application/json"} | (headers or {}))
    answer = connection.getresponse()
    data = json.loads(answer.read())
    connection.close()
    return answer.status, data


def expected(predictor: Predictor, pixels: np.ndarray, **words: Any) -> tuple[np.ndarray, float]:
    predictor.set_image(pixels)
    prediction = predictor.predict(**words)
    return prediction.masks[0], float(prediction.expected_iou[0])


def test_connecting_asks_for_health_and_setup(server: Server) -> None:
    assert send(server, "GET", "/health") == (200, {"status": "UP", "model_class": "ruac"})
    assert send(server, "GET", "/")[0] == 200
    body = {"project": "7.169", "schema": CONFIG, "hostname": "http://localhost:8080", "access_token": "t"}
    assert send(server, "POST", "/setup", body) == (200, {"model_version": "ruac test"})


def test_nothing_is_predicted_before_the_first_click(server: Server, predictor: Counting) -> None:
    assert send(server, "POST", "/predict", request()) == (200, {"results": []})
    assert predictor.encoded == 0


def test_click_becomes_a_brush_with_its_expected_iou(server: Server, tiny_model: RuacModel) -> None:
    status, answer = send(server, "POST", "/predict", request(CLICK))
    mask, score = expected(Predictor(tiny_model), picture(), point_coords=[[40, 12]], point_labels=[1])
    assert status == 200
    (prediction,) = answer["results"]
    assert (prediction["model_version"], prediction["score"]) == ("ruac test", score)
    (one,) = prediction["result"]
    assert mask.any()
    np.testing.assert_array_equal(decode_brush(one["value"]["rle"], mask.shape), mask)
    told = {key: one[key] for key in ("type", "from_name", "to_name", "original_width", "original_height", "score")}
    assert told == {
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "score": score,
    }
    assert one["value"]["brushlabels"] == ["Banana"]
    # what a person accepts is what an export gives back
    task = {"data": {"image": "a.png"}, "annotations": [{"result": [one]}]}
    (accepted,) = label_studio.read([task], None).labels.pictures[0].objects
    np.testing.assert_array_equal(decode(accepted.mask), mask)


def test_all_clicks_and_the_box_count(server: Server, tiny_model: RuacModel) -> None:
    beside = CLICK | {"is_positive": False, "value": CLICK["value"] | {"x": 100, "y": 0}}
    other = CLICK | {"type": "choices", "value": {"choices": ["x"]}}
    status, answer = send(server, "POST", "/predict", request(CLICK, beside, other, BOX))
    words = {"point_coords": [[40, 12], [79, 0]], "point_labels": [1, 0], "box": [8, 9.6, 56, 33.6]}
    mask, score = expected(Predictor(tiny_model), picture(), **words)
    assert status == 200
    assert answer["results"][0]["score"] == score
    (one,) = answer["results"][0]["result"]
    np.testing.assert_array_equal(decode_brush(one["value"]["rle"], mask.shape), mask)
    assert one["value"]["brushlabels"] == ["Orange"]


def test_polygon_is_drawn_where_the_configuration_has_no_brush(server: Server) -> None:
    _, answer = send(server, "POST", "/predict", request(CLICK, config=POLYGONS))
    (one,) = answer["results"][0]["result"]
    points = np.array(one["value"]["points"])
    assert (one["type"], one["value"]["polygonlabels"]) == ("polygonlabels", ["Banana"])
    assert len(points) >= 3
    assert (points.min() >= 0, points.max() <= 100) == (True, True)


def test_picture_is_encoded_once_for_all_its_clicks(server: Server, predictor: Counting, images: Path) -> None:
    for _ in range(2):
        assert send(server, "POST", "/predict", request(CLICK))[0] == 200
    assert predictor.encoded == 1
    assert send(server, "POST", "/predict", request(CLICK, address="http://any.host/data/upload/3/0a1b2c3d-b.png"))[0] == 200
    assert predictor.encoded == 2
    assert send(server, "POST", "/predict", request(CLICK, address="gone.png"))[0] == 400
    assert send(server, "POST", "/predict", request(CLICK, address="b.png"))[0] == 200
    assert predictor.encoded == 2
    Image.fromarray(picture()[:20]).save(images / "b.png")
    assert send(server, "POST", "/predict", request(CLICK, address="b.png"))[0] == 200
    assert predictor.encoded == 3


def test_failed_picture_is_not_taken_for_the_one_before(server: Server, predictor: Counting, images: Path) -> None:
    assert send(server, "POST", "/predict", request(CLICK))[0] == 200
    (images / "bad.png").write_bytes(b"no picture")
    for _ in range(2):
        status, answer = send(server, "POST", "/predict", request(CLICK, address="bad.png"))
        assert (status, "not an image" in answer["error"]) == (400, True)
    assert send(server, "POST", "/predict", request(CLICK))[0] == 200
    assert predictor.encoded == 2


def test_inline_picture_is_read_within_limits(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    answers = [send(server, "POST", "/predict", request(CLICK, address=a)) for a in (address, "/data/local-files/?d=deep/a.png")]
    assert [status for status, _ in answers] == [200, 200]
    inline, local = (answer["results"][0] for _, answer in answers)
    assert inline["score"] == local["score"]
    assert inline["result"][0]["value"] == local["result"][0]["value"]
    assert backend_module.MAX_PIXELS <= MAX_PIXELS
    monkeypatch.setattr(backend_module, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    status, answer = send(server, "POST", "/predict", request(CLICK, address=address))
    assert status == 400
    assert re.fullmatch(r"inline picture: .* is over the limit of .*", answer["error"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (request(CLICK, address="../secret.png"), "leads out"),
        (request(CLICK, address="/data/local-files/?d=../secret.png"), "leads out"),
        (request(CLICK, address="/data/local-files/?d=%2e%2e%2fsecret.png"), "leads out"),
        (request(CLICK, address="file:///etc/passwd"), "no picture 'etc/passwd'"),
        (request(CLICK, address="http://169.254.169.254/latest"), "no picture 'latest'"),
        (request(CLICK, address="data:image/png,abc"), "not base64"),
        (request(CLICK, address="data:image/png;base64,@@"), "not base64"),
        (request(CLICK, address="data:image/png;base64,YWJj"), "inline picture: not an image"),
        (request(CLICK, address=7), "no address of a picture at 'image'"),
        (request(CLICK, config=None), "no label_config"),
        (request(CLICK, config="<View"), "label_config: not XML"),
        (request(CLICK, config="<!DOCTYPE x><View/>"), "refused"),
        (request(CLICK, config="<View/>"), "label_config: no <Image"),
        (request(CLICK, config='<View><Image name="i" value="$i"/></View>'), "neither BrushLabels nor PolygonLabels"),
        (request(CLICK | {"value": {"x": 101, "y": 5, "keypointlabels": ["a"]}}), "no percentages"),
        (request(CLICK | {"value": {"x": 5, "keypointlabels": ["a"]}}), "y: 'None' is no number"),
        (request(CLICK | {"value": {"x": 5, "y": 5}}), "keypointlabels: 'None' is no name"),
        (request(BOX | {"value": BOX["value"] | {"rotation": 9}}), "turned"),
        (request(BOX | {"value": BOX["value"] | {"width": 0}}), "empty or inside out"),
        (request({"type": "choices"}), "neither a click nor a box"),
        (request(7), "expected an object, got 7"),
        (request(CLICK) | {"tasks": []}, "one task"),
        (request(CLICK) | {"tasks": [7]}, "expected an object"),
        ([1], "must be a JSON object"),
        (b"{", "not JSON"),
        (b'{"tasks": NaN}', "NaN is no number"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_requests_that_make_no_sense_are_refused_in_a_line(server: Server, body: Any, message: str) -> None:
    status, answer = send(server, "POST", "/predict", body)
    assert status == 400
    assert message in answer["error"]
    assert "\n" not in answer["error"]
    assert send(server, "GET", "/health")[0] == 200


@pytest.mark.parametrize("method", ["DELETE", "PUT", "HEADS"])
def test_methods_that_it_does_not_have_are_refused_as_all_else(server: Server, method: str) -> None:
    status, answer = send(server, method, "/predict", {})
    assert status == 501
    assert "Unsupported method" in answer["error"]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/predict", {"Content-Type": "text/plain"}, 415),
        ("/predict", {"Content-Length": str(MAX_BODY + 1)}, 413),
        ("/predict", {"Content-Length": "-1"}, 411),
        ("/predict", {"Transfer-Encoding": "chunked"}, 411),
        ("/predict", {"Host": "evil.example"}, 403),
        ("/predict", {"Host": "localhost:9090"}, 200),
        ("/train", {}, 404),
        ("/../predict", {}, 404),
    ],
)
def test_what_no_label_studio_sends_is_turned_away_unread(
    server: Server, path: str, headers: dict[str, str], status: int
) -> None:
    assert send(server, "POST", path, request(), headers)[0] == status


def test_too_many_at_once_are_turned_away(server: Server) -> None:
    for _ in range(WAITING):
        server.places.acquire()
    assert send(server, "POST", "/predict", request(CLICK))[0] == 503
    for _ in range(WAITING):
        server.places.release()
    assert send(server, "POST", "/predict", request(CLICK))[0] == 200


def test_several_people_at_once_get_the_masks_of_their_own_pictures(server: Server, tiny_model: RuacModel) -> None:
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        answers[number] = send(server, "POST", "/predict", request(CLICK, address=("deep/a.png", "b.png")[number % 2]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scores = [expected(Predictor(tiny_model), p, point_coords=[[40, 12]])[1] for p in (picture(), picture()[::-1])]
    assert scores[0] != scores[1]
    for number, (status, answer) in answers.items():
        assert (status, answer["results"][0]["score"]) == (200, scores[number % 2])


def test_interface_prefers_the_brush_of_the_picture() -> None:
    config = CONFIG.replace("<View>", '<View><PolygonLabels name="poly" toName="image"/><BrushLabels name="x" toName="text"/>')
    interface = read_interface(config)
    assert (interface.key, interface.tags.from_name, interface.tags.to_name, interface.shape) == ("image", "tag", "image", "mask")


def test_loopback_is_this_machine_alone() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.4", "evil.example", "")] == [
        *[True] * 3,
        *[False] * 4,
    ]


def test_command_serves_until_it_is_interrupted(images: Path, tiny_model_folder: Path) -> None:
    """Through the real command."""
    words = ["label-studio", "--images", str(images), "--port", "0", "--model", str(tiny_model_folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "ruac", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stdout is not None
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+);", process.stdout.readline())[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", "/predict", json.dumps(request(CLICK)), {"Content-Type": "application/json"})
        (prediction,) = json.loads(connection.getresponse().read())["results"]
        assert prediction["model_version"].startswith(f"ruac 0.1.0 {tiny_model_folder} ")
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert shown.endswith("ruac: interrupted\n")


def test_wrong_use_is_one_line_and_code_2(
    server: Server, images: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["label-studio", "--model", str(tiny_model_folder)]
    taken = str(server.server_port)
    for words, message in (
        (["--images", "nowhere"], "--images nowhere: no such folder"),
        (["--images", str(images), "--port", "70000"], "--port 70000: from 0 to 65535"),
        (["--images", str(images), "--port", taken], f"--host 127.0.0.1 --port {taken}: Address already in use; choose another"),
    ):
        assert main([*start, *words]) == 2
        assert capsys.readouterr().err == f"ruac: {message}\n"


def test_help_does_not_load_torch() -> None:
    code = f"import sys; import {server_module.__name__}, ruac.exchange.command; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
