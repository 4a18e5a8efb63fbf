"""`ruac serve`, over real HTTP: its answers are those of the Python API, and too much is refused in the right words."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import HEIGHT, WIDTH, Running, picture, running

from ruac.calibrate.bounds import Guarantee, bounds, tempered
from ruac.calibrate.file import Calibration
from ruac.calibrate.policy import Policy
from ruac.calibrate.risk import Level, Limit
from ruac.client import Client, prompt
from ruac.everything import Search, generate
from ruac.exchange.server import hostname
from ruac.model import RuacModel
from ruac.predictor import Predictor
from ruac.serve import gate as gate_module
from ruac.serve.bounded import PIECE
from ruac.serve.engine import Engine
from ruac.serve.gate import Door
from ruac.serve.lane import BusyError, Lane
from ruac.serve.metrics import Metrics
from ruac.serve.settings import Deadline, LateError, Settings

CLICK = {"prompts": [{"point_coords": [[40, 20]]}]}


@pytest.fixture
def server(tiny_model: RuacModel, tmp_path: Path) -> Iterator[Running]:
    with running(tiny_model, tmp_path) as server:
        yield server


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.url, patience=0) as client:
        yield client


@pytest.fixture
def predictor(tiny_model: RuacModel) -> Predictor:
    predictor = Predictor(tiny_model)
    predictor.set_image(picture())
    return predictor


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Work on clicks begins (the first event) and goes on when the second one is set."""
    begun, go_on = threading.Event(), threading.Event()
    predict = Engine.predict

    def wait(self: Engine, *arguments: Any) -> bytes:
        begun.set()
        assert go_on.wait(120)
        return predict(self, *arguments)

    monkeypatch.setattr(Engine, "predict", wait)
    yield begun, go_on
    go_on.set()


def later(action: Any) -> tuple[threading.Thread, list[Any]]:
    """The action in a thread, and where its result will be."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(action()))
    thread.start()
    return thread, results


def test_answers_are_those_of_the_python_api(client: Client, predictor: Predictor) -> None:
    photo = client.upload(picture())
    assert (photo.width, photo.height) == (WIDTH, HEIGHT)
    words = {"point_coords": [[40, 20], [4.5, 3]], "point_labels": [1, 0], "box": [8, 9.5, 56, 33]}
    answer = client.predict(photo.id, **words, uncertainty="png16", low_res_logits=True)
    expected = predictor.predict(**words)
    np.testing.assert_array_equal(answer.masks, expected.masks)
    assert answer.iou.tolist() == expected.iou.tolist()
    assert answer.expected_iou.tolist() == expected.expected_iou.tolist()
    assert answer.uncertainty is not None
    np.testing.assert_allclose(answer.uncertainty, expected.uncertainty, atol=1 / 65535)
    click = predictor.next_click(expected)
    assert (answer.next_clicks[0].x, answer.next_clicks[0].y, answer.next_clicks[0].label) == (click.x, click.y, click.label)
    assert answer.low_res_logits is not None
    better = client.predict(photo.id, [[10, 10]], mask_input=answer.low_res_logits[0])
    earlier = expected.low_res_logits[0].astype(np.float16)
    np.testing.assert_array_equal(better.masks, predictor.predict([[10, 10]], mask_input=earlier).masks)


def test_many_prompts_and_candidates_at_once(client: Client, predictor: Predictor) -> None:
    photo = client.upload(picture())
    told = [prompt([[40, 20]]), prompt(box=[1, 2, 30, 40]), prompt([[70, 40]])]
    answers = client.predict_many(photo.id, told, multimask_output=True, uncertainty="bands", levels=[0.5, 0.9])
    assert [len(answer.masks) for answer in answers] == [3, 3, 3]
    expected = predictor.predict(box=[1, 2, 30, 40], multimask_output=True)
    np.testing.assert_array_equal(answers[1].masks, expected.masks)
    np.testing.assert_allclose(answers[1].expected_iou, expected.expected_iou, atol=1e-6)
    assert answers[1].bands is not None
    assert list(answers[1].bands) == [0.5, 0.9]
    np.testing.assert_array_equal(answers[1].bands[0.5], expected.uncertainty >= 0.5)


def test_everything_is_what_the_python_api_finds(client: Client, predictor: Predictor) -> None:
    photo = client.upload(picture())
    found = client.everything(photo.id, grid=4, least=0.2, overlap=0.9)
    expected = generate(predictor, picture(), Search(4, least=0.2, overlap=0.9))
    assert len(found) == len(expected) > 0
    for answer, segment in zip(found, expected, strict=True):
        np.testing.assert_array_equal(answer.masks[0], segment.mask)
    assert [float(answer.expected_iou[0]) for answer in found] == sorted(
        (float(answer.expected_iou[0]) for answer in found), reverse=True
    )


def test_calibration_gives_inner_and_outer_masks(tiny_model: RuacModel, tmp_path: Path, predictor: Predictor) -> None:
    level = Level(0.1, Limit(-0.5, 0.1, 0.3), Limit(0.5, 0.1, 0.2))
    calibration = Calibration("tiny", "", {}, "", 50, 50, Policy("box", 5, 0), 2.0, (level,), ())
    guarantee = Guarantee(calibration, level)
    with running(tiny_model, tmp_path, guarantee) as server, Client(server.url, patience=0) as client:
        photo = client.upload(picture())
        boxed, clicked = client.predict_many(photo.id, [prompt(box=[1, 2, 60, 40]), prompt([[40, 20]])], uncertainty="png16")
        assert client.health().calibrated
    plain = predictor.predict(box=[1, 2, 60, 40])
    expected = bounds(plain, guarantee, True)
    assert boxed.bounds is not None
    assert clicked.bounds is not None
    np.testing.assert_array_equal(boxed.bounds.inner, expected.inner)
    np.testing.assert_array_equal(boxed.bounds.outer, expected.outer)
    assert (boxed.bounds.holds, clicked.bounds.holds, boxed.bounds.alpha) == (True, False, 0.1)
    assert boxed.uncertainty is not None
    np.testing.assert_allclose(boxed.uncertainty, tempered(plain, 2.0).uncertainty, atol=1 / 65535)


def test_image_is_encoded_once_for_all_its_clicks(tiny_model: RuacModel, tmp_path: Path) -> None:
    with running(tiny_model, tmp_path, cache_images=1) as server, Client(server.url, patience=0) as client:
        first = client.upload(picture())
        for _ in range(3):
            client.predict(first.id, [[40, 20]])
        assert 'ruac_embeddings_total{cache="hit"} 3.0' in server.http().get("/metrics").text
        mask = client.predict(first.id, [[40, 20]]).masks
        client.upload(picture(1))  # takes the only place
        np.testing.assert_array_equal(client.predict(first.id, [[40, 20]]).masks, mask)
        assert 'ruac_embeddings_total{cache="miss"} 1.0' in server.http().get("/metrics").text


def test_same_file_has_the_same_id(client: Client, server: Running) -> None:
    assert client.upload(picture()).id == client.upload(picture()).id != client.upload(picture(1)).id
    assert len(list(server.spool.iterdir())) == 2


def test_image_expires_after_its_last_use(tiny_model: RuacModel, tmp_path: Path) -> None:
    with running(tiny_model, tmp_path, ttl=1.5) as server, server.http() as http:
        image = http.post("/images", files={"image": ("a.png", png(), "image/png")}).json()["id"]
        assert http.post(f"/images/{image}/predict", json=CLICK).status_code == 200
        time.sleep(1.6)
        answer = http.post(f"/images/{image}/predict", json=CLICK)
        assert answer.status_code == 404
        assert "upload it" in answer.json()["detail"]
        http.get("/metrics")  # looks after what has expired
        assert not list(server.spool.iterdir())


def png(seed: int = 0) -> bytes:
    import cv2

    return cv2.imencode(".png", picture(seed))[1].tobytes()


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"prompts": []}, 422, "prompts: List should have at least 1 item"),
        ({"prompts": [{}] * 33}, 422, "prompts: List should have at most 32 items"),
        ({"prompts": [{}]}, 422, "nothing is said about the object"),
        ({"prompts": [{"point_coords": [[80, 1]]}]}, 422, "point (80, 1) is outside the image of 80 x 48 pixels"),
        ({"prompts": [{"point_coords": [[1, 2, 3]]}]}, 422, "prompts.0.point_coords.0"),
        ({"prompts": [{"point_coords": [[1, 2]], "point_labels": [2]}]}, 422, "prompts.0.point_labels.0"),
        ({"prompts": [{"point_coords": [[1, 2]], "point_labels": [1, 0]}]}, 422, "one label a point"),
        ({"prompts": [{"box": [5, 5, 4, 9]}]}, 422, "inside out"),
        ({"prompts": [{"mask_input": "@"}]}, 422, "not base64"),
        ({"prompts": [{"mask_input": "AAAA"}]}, 422, "mask_input must be 16 x 16"),
        ({"prompts": [{"mask_input": base64.b64encode(b"\0\x7e" * 256).decode()}]}, 422, "NaN"),
        ({**CLICK, "uncertainty": "jpeg"}, 422, "uncertainty: Input should be 'none', 'png16' or 'bands'"),
        ({**CLICK, "levels": [0]}, 422, "levels.0"),
        ({**CLICK, "multimask": True}, 422, "multimask: Extra inputs"),
        ([], 422, "the body: Input should be"),
        (b"{", 400, "not JSON"),
        (b'{"prompts": [{"point_coords": [[NaN, 1]]}]}', 422, "prompts.0.point_coords.0.0"),
        (b"[" * 100_000, 400, ""),
        (b" " * (8 * 2**20 + 1), 413, "over the limit of 8 MiB"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(server: Running, client: Client, asked: Any, status: int, message: str) -> None:
    image = client.upload(picture()).id
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    with server.http() as http:
        answer = http.post(f"/images/{image}/predict", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status
        assert message in answer.json()["detail"]
        assert "\n" not in answer.json()["detail"]
        assert http.post(f"/images/{image}/predict", json=CLICK).status_code == 200


def test_what_is_not_there_or_not_meant_is_refused(server: Running) -> None:
    with server.http() as http:
        assert http.post(f"/images/{'0' * 64}/predict", json=CLICK).status_code == 404
        assert http.post("/images/..%2F..%2Fetc%2Fpasswd/predict", json=CLICK).status_code in (404, 422)
        assert http.post(f"/images/{'0' * 64}/predict", content="{}", headers={"Content-Type": "text/plain"}).status_code == 415
        assert http.get("/images").status_code == 405
        assert http.get("/docs").status_code == 404
        assert http.get("/health", headers={"Host": "evil.example"}).status_code == 403
        assert http.get("/health", headers={"Host": "localhost:1"}).status_code == 200
        assert http.post("/images", content=png(), headers={"Origin": "http://evil.example"}).status_code == 403


def test_token_is_asked_of_all_but_health(tiny_model: RuacModel, tmp_path: Path) -> None:
    with running(tiny_model, tmp_path, token="sésame ouvre-toi") as server, server.http() as http:
        assert http.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s"}, {"Authorization": b"Bearer \xff"}):
            answer = http.post("/images", content=png(), headers={**headers, "Content-Type": "image/png"})
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert http.get("/metrics", headers=headers).status_code == 401
        assert not list(server.spool.iterdir())
    with running(tiny_model, tmp_path, token="open-sesame") as server:
        with Client(server.url, "open-sesame", patience=0) as client:
            client.upload(picture())
        security = server.http(headers={"Authorization": "Bearer open-sesame"}).get("/openapi.json").json()
        assert security["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


def test_overload_is_answered_429_and_says_when_to_come_again(
    tiny_model: RuacModel, tmp_path: Path, held: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = held
    with running(tiny_model, tmp_path, queue=2) as server, server.http() as http:
        path = f"/images/{Client(server.url).upload(picture()).id}/predict"
        waiting = [later(lambda: http.post(path, json=CLICK).status_code)]
        assert begun.wait(120)
        waiting.append(later(lambda: http.post(path, json=CLICK).status_code))
        while server.door.inside < 2:
            time.sleep(0.01)
        refused = http.post(path, json=CLICK)
        assert (refused.status_code, refused.json()["detail"]) == (429, "busy: 2 requests are being worked on; try again")
        assert 1 <= int(refused.headers["Retry-After"]) <= 30
        assert http.get("/health").status_code == 200  # the event loop is free while the lane works
        go_on.set()
        for thread, _ in waiting:
            thread.join()
        assert [results for _, results in waiting] == [[200], [200]]
        assert http.post(path, json=CLICK).status_code == 200


def test_request_that_takes_too_long_is_answered_in_time(
    tiny_model: RuacModel, tmp_path: Path, held: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = held
    with running(tiny_model, tmp_path, timeout=0.5) as server, server.http() as http:
        path = f"/images/{Client(server.url, patience=20).upload(picture()).id}/predict"
        thread, results = later(lambda: http.post(path, json=CLICK))
        assert begun.wait(120)
        waited = http.post(path, json=CLICK)  # its turn never comes
        thread.join()
        assert (results[0].status_code, waited.status_code) == (504, 429)
        assert int(waited.headers["Retry-After"]) >= 1
        assert "0.5 seconds" in results[0].json()["detail"]
        go_on.set()
        while http.post(path, json=CLICK).status_code != 200:
            time.sleep(0.05)


def test_time_of_work_begins_with_its_turn() -> None:
    """Waiting uses up none of it; whose turn does not come in time is turned away, not late."""

    async def run() -> tuple[str, ...]:
        lane, nobody = Lane(0.6), asyncio.create_task(asyncio.sleep(60))

        async def ask(seconds: float) -> str:
            def work(deadline: Deadline) -> str:
                time.sleep(seconds)
                return "answered" if deadline.left else "out of time"

            try:
                return await lane.run(work, Deadline.after(0.6), nobody)
            except (BusyError, LateError) as error:
                return type(error).__name__

        results = await asyncio.gather(ask(0.4), ask(0.4), ask(0.1))
        late = await ask(0.9)
        nobody.cancel()
        lane.close()
        return *results, late

    assert asyncio.run(run()) == ("answered", "answered", "BusyError", "LateError")


def test_search_for_everything_stops_when_its_time_is_up(
    tiny_model: RuacModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    predict = Predictor.predict_many

    def slow(self: Predictor, *arguments: Any, **words: Any) -> Any:
        looked.append(1)
        time.sleep(0.4)
        return predict(self, *arguments, **words)

    monkeypatch.setattr(Predictor, "predict_many", slow)
    with running(tiny_model, tmp_path, timeout=1.0) as server, server.http() as http:
        image = Client(server.url, patience=20).upload(picture()).id
        answer = http.post(f"/images/{image}/everything", json={"grid": 32})
        assert answer.status_code == 504
        time.sleep(1)
        assert len(looked) <= 5  # of 20 batches


def test_request_of_a_client_that_has_left_is_not_begun(
    server: Running, client: Client, held: tuple[threading.Event, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = held
    image = client.upload(picture()).id
    thread, results = later(lambda: client.predict(image, [[40, 20]]))
    assert begun.wait(120)
    begun.clear()
    body = json.dumps(CLICK)
    head = f"POST /images/{image}/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        while server.door.inside < 2:
            time.sleep(0.01)
    while server.door.inside > 1:
        time.sleep(0.01)
    go_on.set()
    thread.join()
    assert len(results) == 1
    client.upload(picture(1))  # the lane has gone through all that was before it
    assert not begun.is_set()
    assert server.door.count.gone == 1


def test_body_that_does_not_arrive_is_given_up(tiny_model: RuacModel, tmp_path: Path) -> None:
    with running(tiny_model, tmp_path, timeout=0.3) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(
                b"POST /images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nabc"
            )
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        while server.door.inside:
            time.sleep(0.01)
        assert not list(server.spool.iterdir())


def test_stop_finishes_what_was_accepted_and_refuses_the_rest(
    server: Running, client: Client, held: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = held
    image = client.upload(picture()).id
    thread, results = later(lambda: client.predict(image, [[40, 20]]))
    assert begun.wait(120)
    server.stop()
    with server.http() as http:
        refused = http.post(f"/images/{image}/predict", json=CLICK)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert http.get("/health").status_code == 503
    go_on.set()
    thread.join()
    assert len(results) == 1
    server.thread.join(20)
    assert not server.thread.is_alive()
    count = server.door.count
    assert (count.accepted, count.answered, count.gone) == (2, 2, 0)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health")


def test_metrics_count_requests_by_kind_and_status(server: Running, client: Client) -> None:
    image = client.upload(picture()).id
    client.predict(image, [[40, 20]])
    with server.http() as http:
        http.post("/images/evil%0A/predict", json=CLICK)
        http.get("/what/ever")
        answer = http.get("/metrics")
    lines = answer.text.splitlines()
    assert answer.headers["content-type"].startswith("text/plain")
    for line in (
        'ruac_requests_total{endpoint="images",status="201"} 1.0',
        'ruac_requests_total{endpoint="predict",status="200"} 1.0',
        'ruac_requests_total{endpoint="predict",status="422"} 1.0',
        'ruac_requests_total{endpoint="unknown",status="404"} 1.0',
        "ruac_cached_images 1.0",
        "ruac_spool_bytes 12288.0",  # three blocks
    ):
        assert line in lines
    assert not re.search(r"evil|ever", answer.text)


def test_openapi_names_every_status_that_is_given(server: Running) -> None:
    with server.http() as http:
        paths = http.get("/openapi.json").json()["paths"]
    statuses = {path: set(next(iter(methods.values()))["responses"]) for path, methods in paths.items()}
    given = {"400", "401", "403", "404", "405", "408", "413", "415", "422", "429", "500", "503", "504"}
    assert statuses["/images/{image}/predict"] == statuses["/images/{image}/everything"] == {"200", *given}
    assert statuses["/images"] == {"201", *given} - {"404"}
    assert statuses["/metrics"] == {"200", "400", "401", "403", "405", "429", "500"}
    assert statuses["/health"] == statuses["/metrics"] | {"503"}
    assert set(paths["/images"]["post"]["requestBody"]["content"]) == {
        "application/octet-stream",
        "image/*",
        "multipart/form-data",
    }


def test_answer_that_would_be_too_large_is_refused(server: Running, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from ruac.serve import engine

    image = client.upload(picture()).id
    monkeypatch.setattr(engine, "MAX_ANSWER", 2000)
    with server.http() as http:
        answer = http.post(f"/images/{image}/predict", json={**CLICK, "uncertainty": "png16"})
        assert (answer.status_code, "ask about fewer objects" in answer.json()["detail"]) == (422, True)


def test_client_that_does_not_take_its_answer_loses_its_place(tmp_path: Path) -> None:
    """Of 64 MiB, no more is held for it than a piece, and it is given up in time."""
    settings = Settings("tiny", None, "cpu", None, None, 1, tmp_path, tmp_path, timeout=0.2)
    door, pieces = Door(1), []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(64 * 2**20)})

    async def send(message: Any) -> None:
        pieces.append(len(message.get("body", b"")))
        await asyncio.sleep(10 if len(pieces) > 2 else 0)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    gate = gate_module.Gate(answer, settings, door, Metrics(), lambda: 1)
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    aborted: list[int] = []
    state = {"abort": lambda: aborted.append(len(pieces))}
    scope = {"type": "http", "method": "POST", "path": "/images/x/predict", "headers": headers, "state": state}
    asyncio.run(gate(scope, receive, send))
    assert pieces == [0, PIECE, PIECE]
    assert aborted == [3]
    assert (door.inside, door.count.accepted, door.count.answered, door.count.gone) == (0, 1, 0, 1)


def test_host_headers_that_are_no_address_are_refused() -> None:
    assert [hostname(host) for host in ("[::1", "", "[::1]:80", "127.0.0.1:8000")] == ["", "", "::1", "127.0.0.1"]
