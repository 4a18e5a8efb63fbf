"""What the page's server does, without a browser: sessions, answers, downloads, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ruac.app.desk as desk_module
from ruac.app import view
from ruac.app.conversation import MOST_WORDS, Conversation
from ruac.app.desk import GONE, Desk
from ruac.app.downloads import COCO
from ruac.app.models import Models
from ruac.app.room import Room
from ruac.app.samples import Sample
from ruac.app.sessions import Sessions
from ruac.calibrate.bounds import bounds, tempered
from ruac.calibrate.file import Calibration
from ruac.calibrate.policy import Policy
from ruac.calibrate.risk import Level, Limit
from ruac.calibrate.shift import Traits
from ruac.data.labels import decode
from ruac.exchange import coco
from ruac.predictor import Predictor

HEIGHT, WIDTH = 48, 80
ANNA, BERT = "a" * 32, "b" * 32


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    (tmp_path / "room").mkdir()
    return Room(tmp_path / "room", 2**30, 60)


@pytest.fixture
def uploads(room: Room) -> Path:
    (room.files / "hash").mkdir()
    return room.files


@pytest.fixture
def desk(tiny_model_folder: Path, room: Room, tmp_path: Path) -> Desk:
    names = [tmp_path / "first.png", tmp_path / "second.png"]
    for seed, path in enumerate(names):
        Image.fromarray(picture(seed)).save(path)
    sessions: Sessions[Conversation] = Sessions(8, 2**30, 60)
    return Desk(Models([str(tiny_model_folder)]), [Sample(path.stem, path) for path in names], room, sessions)


@pytest.fixture
def model(desk: Desk) -> str:
    return desk.models.first


def open_sample(desk: Desk, secret: str = ANNA, number: int = 0) -> dict[str, Any]:
    return desk.ask({"secret": secret, "action": "sample", "number": number, "model": desk.models.first})


def say(desk: Desk, action: str, secret: str = ANNA, **words: Any) -> dict[str, Any]:
    return desk.ask({"secret": secret, "action": action, **words})


def pixels(url: str) -> np.ndarray:
    """RGBA."""
    content = base64.b64decode(url.split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def mask_of(reply: dict[str, Any]) -> np.ndarray:
    return pixels(reply["answer"]["layers"]["mask"])[..., 3] > 0


# ---- answers


def test_answers_are_those_of_the_predictor(desk: Desk, tiny_model_folder: Path) -> None:
    predictor = Predictor(str(tiny_model_folder))
    predictor.set_image(picture())
    opened = open_sample(desk)
    assert (opened["picture"]["width"], opened["picture"]["height"], opened["answer"]) == (WIDTH, HEIGHT, None)

    first = predictor.predict([[30, 20]], [1])
    answer = say(desk, "click", x=30, y=20, label=1)["answer"]
    assert np.array_equal(pixels(answer["layers"]["mask"])[..., 3] > 0, first.masks[0])
    doubt = pixels(answer["layers"]["uncertainty"])[..., 3] / 255
    assert np.abs(doubt - first.uncertainty[0]).max() <= 0.5 / 255 + 1e-6
    chosen = answer["candidates"][0]
    assert (chosen["score"], chosen["expected_iou"]) == pytest.approx((first.score, first.expected_iou[0]))
    click = Predictor.next_click(first)
    assert answer["suggestion"] == {"x": click.x, "y": click.y, "label": click.label}

    words = [[30, 20], [click.x, click.y]], [1, click.label]
    second = predictor.predict(*words, mask_input=first.low_res_logits[0])
    assert np.array_equal(mask_of(say(desk, "take")), second.masks[0])

    boxed = predictor.predict(*words, box=[10, 5, 60, 40])
    assert np.array_equal(mask_of(say(desk, "box", box=[60, 40, 10, 5])), boxed.masks[0])


def test_candidates_are_all_masks_and_the_chosen_one_is_refined(desk: Desk, tiny_model_folder: Path) -> None:
    predictor = Predictor(str(tiny_model_folder))
    predictor.set_image(picture())
    three = predictor.predict([[30, 20]], [1], multimask_output=True)
    open_sample(desk)
    answer = say(desk, "click", x=30, y=20, label=1)["answer"]
    assert [candidate["score"] for candidate in answer["candidates"]] == pytest.approx(three.iou.tolist())
    assert [candidate["area"] for candidate in answer["candidates"]] == pytest.approx(three.masks.mean((1, 2)).tolist())
    chosen = say(desk, "choose", candidate=2)
    assert chosen["answer"]["chosen"] == 2
    assert np.array_equal(mask_of(chosen), three.masks[2])
    refined = predictor.predict([[30, 20], [5, 5]], [1, 0], mask_input=three.low_res_logits[2])
    assert np.array_equal(mask_of(say(desk, "click", x=5, y=5, label=0)), refined.masks[0])
    assert say(desk, "choose", candidate=9)["error"] == "there is no such candidate"


def test_undo_goes_back_to_the_answer_before_and_clear_to_none(desk: Desk) -> None:
    open_sample(desk)
    first = say(desk, "click", x=30, y=20, label=1)
    say(desk, "click", x=60, y=30, label=0)
    say(desk, "box", box=[1, 1, 70, 40])
    assert say(desk, "undo")["answer"]["box"] is None
    assert say(desk, "undo") == first
    assert say(desk, "undo") == {"answer": None}
    assert say(desk, "undo") == {"answer": None}
    say(desk, "click", x=30, y=20, label=1)
    assert say(desk, "clear") == {"answer": None}
    assert say(desk, "click", x=30, y=20, label=1) == first


def test_a_picture_is_encoded_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    original = Predictor.set_image
    monkeypatch.setattr(Predictor, "set_image", lambda self, image: encoded.append(1) or original(self, image))
    open_sample(desk)
    for x in (10, 20, 30):
        assert "answer" in say(desk, "click", x=x, y=20, label=1)
    say(desk, "box", box=[1, 1, 70, 40])
    say(desk, "undo")
    assert len(encoded) == 1


def test_large_pictures_are_shown_small_and_downloaded_whole(desk: Desk, uploads: Path, model: str) -> None:
    path = uploads / "hash" / "large.png"
    Image.fromarray(picture()).resize((3000, 1800)).save(path)
    say(desk, "upload", path=str(path), name="large.png", model=model)
    reply = say(desk, "click", x=1500, y=900, label=1)
    assert mask_of(reply).shape == (614, 1024)
    file = say(desk, "download", kind=".mask.png")["file"]
    assert Image.open(io.BytesIO(base64.b64decode(file["content"]))).size == (3000, 1800)


def test_another_model_is_told_the_same_words(desk: Desk, tiny_model_folder: Path, tmp_path: Path) -> None:
    other = Models([str(tiny_model_folder), "nano"])
    desk.models = other
    open_sample(desk)
    say(desk, "click", x=30, y=20, label=1)
    say(desk, "box", box=[1, 1, 70, 40])
    before = say(desk, "click", x=60, y=30, label=0)["answer"]
    after = say(desk, "model", model="nano")["answer"]
    assert (after["points"], after["box"]) == (before["points"], before["box"])
    assert say(desk, "model", model=str(tiny_model_folder))["answer"] == before
    refused = say(desk, "model", model=str(tmp_path))
    assert refused["error"] == f"no model {str(tmp_path)!r} here; there are {tiny_model_folder}, nano"


# ---- calibration


@pytest.fixture
def calibrated(tiny_model_folder: Path, tmp_path: Path, desk: Desk) -> Desk:
    sha256 = desk.models.get(desk.models.first).sha256
    level = Level(0.1, Limit(-0.5, 0.08, 1.4), Limit(0.5, 0.07, 0.6))
    traits = Traits(tuple(map(float, range(11))), (0.1, 0.2, 0.3, 0.4))
    found = Calibration("x", sha256, {"x": 60}, "f", 60, 90, Policy("point"), 1.7, (level,), (traits,))
    found.write(tmp_path / "calibration.json")
    desk.models = Models([str(tiny_model_folder)], calibration=tmp_path / "calibration.json")
    return desk


def test_calibrated_masks_lie_around_and_probabilities_are_tempered(calibrated: Desk) -> None:
    loaded = calibrated.models.get(calibrated.models.first)
    predictor = Predictor(loaded.model)
    predictor.set_image(picture())
    raw = predictor.predict([[30, 20]], [1])
    assert loaded.guarantee is not None
    around = bounds(raw, loaded.guarantee, True)
    files = open_sample(calibrated)["files"]
    answer = say(calibrated, "click", x=30, y=20, label=1)["answer"]
    assert {".inner.png", ".outer.png"} < set(files)
    assert np.array_equal(pixels(answer["layers"]["band"])[..., 3] > 0, around.outer & ~around.inner)
    doubt = pixels(answer["layers"]["uncertainty"])[..., 3] / 255
    assert np.abs(doubt - tempered(raw, 1.7).uncertainty[0]).max() <= 0.5 / 255 + 1e-6
    assert set(answer["outlines"]) == {"mask", "inner", "outer"}
    assert answer["promise"].startswith("On average over pictures like the 60 of the calibration")
    outer = base64.b64decode(say(calibrated, "download", kind=".outer.png")["file"]["content"])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(outer))) > 0, around.outer)


def test_nothing_is_promised_of_a_prompt_of_another_kind(calibrated: Desk) -> None:
    open_sample(calibrated)
    say(calibrated, "click", x=30, y=20, label=1)
    answer = say(calibrated, "click", x=40, y=20, label=1)["answer"]
    assert answer["promise"] == (
        "Nothing is promised for these two masks: the calibration is for one click at the centre of the object, and this object "
        "was prompted otherwise."
    )
    assert answer["bounds"] == ["outer: no guarantee", "inner: no guarantee"]
    assert say(calibrated, "undo")["answer"]["promise"].startswith("On average over pictures like the 60")


# ---- downloads


def test_downloads_are_the_files_of_predict_and_coco(desk: Desk) -> None:
    files = open_sample(desk)["files"]
    shown = say(desk, "click", x=30, y=20, label=1)
    mask = mask_of(shown)
    contents = {}
    for kind in files:
        file = say(desk, "download", kind=kind)["file"]
        assert file["name"] == f"first{kind}"
        contents[kind] = base64.b64decode(file["content"])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(contents[".mask.png"]))) > 0, mask)
    uncertainty = np.asarray(Image.open(io.BytesIO(contents[".uncertainty.png"])))
    assert uncertainty.shape == mask.shape
    assert uncertainty.max() > 255
    known = json.loads(contents[".json"])
    assert known["image"] == "first.png"
    assert {key: known["next_click"][key] for key in ("x", "y", "label")} == shown["answer"]["suggestion"]
    (seen,) = coco.read(json.loads(contents[COCO])).labels.pictures
    assert np.array_equal(decode(seen.objects[0].mask), mask)
    assert seen.objects[0].numbers["expected_iou"] == pytest.approx(known["expected_iou"])


# ---- what is refused


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "a request is a JSON object"),
        ({"secret": "me", "action": "undo"}, "a request needs its session's secret"),
        ({"secret": ANNA, "action": "__class__"}, "unknown action '__class__'"),
        ({"secret": ANNA, "action": ["undo"]}, "unknown action \"['undo']\""),
        ({"secret": ANNA, "action": "undo"}, GONE),
        ({"secret": ANNA, "action": "sample", "number": 7}, "there is no such sample"),
        ({"secret": ANNA, "action": "sample", "number": -1}, "there is no such sample"),
        ({"secret": ANNA, "action": "sample", "number": True}, "number: a whole number is needed"),
        ({"secret": ANNA, "action": "sample", "number": 0}, "model: a text is needed"),
        ({"secret": ANNA, "action": "sample", "number": 0, "model": "/etc"}, "no model '/etc' here"),
        ({"secret": ANNA, "action": "upload", "path": "/etc/passwd", "name": "x"}, "this file has not been uploaded"),
        ({"secret": ANNA, "action": "upload", "path": "a\0b", "name": "x"}, "path: a text is needed"),
        ({"secret": ANNA, "action": "upload", "path": "x", "name": "\ud800.png"}, "name: a text is needed"),
    ],
)
def test_requests_that_make_no_sense_are_told_so(desk: Desk, request_: Any, message: str) -> None:
    assert desk.ask(request_)["error"].startswith(message)


@pytest.mark.parametrize(
    ("action", "words", "message"),
    [
        ("click", {"x": 500, "y": 1, "label": 1}, "point (500, 1) is outside the image of 80 x 48 pixels"),
        ("click", {"x": float("nan"), "y": 1, "label": 1}, "nan is no number"),
        ("click", {"x": 10**400, "y": 1, "label": 1}, "1000000000"),
        ("click", {"x": "1", "y": 1, "label": 1}, "'1' is no number"),
        ("click", {"x": "\ud800", "y": 1, "label": 1}, "'\\ud800' is no number"),
        ("click", {"x": 1, "y": 1, "label": 5}, "a point label is 1 (object) or 0 (background)"),
        ("box", {"box": [1, 2, 3]}, "a box has four numbers"),
        ("box", {"box": [1, 2, 1, 9]}, "box (1, 2, 1, 9) is empty"),
        ("take", {}, "click on an object first"),
        ("choose", {"candidate": 0}, "there is no such candidate"),
        ("download", {"kind": ".mask.png"}, "click on an object first"),
        ("download", {"kind": "../../x"}, "no file '../../x' to download"),
    ],
)
def test_words_that_make_no_sense_change_nothing(desk: Desk, action: str, words: dict[str, Any], message: str) -> None:
    open_sample(desk)
    assert say(desk, action, **words)["error"].startswith(message)
    assert say(desk, "undo") == {"answer": None}


def test_one_object_takes_so_many_words_and_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ruac.app.conversation.MOST_WORDS", 2)
    assert MOST_WORDS >= 50
    open_sample(desk)
    for x in (10, 20):
        say(desk, "click", x=x, y=20, label=1)
    assert say(desk, "click", x=30, y=20, label=1)["error"] == "2 clicks on one object are the most; clear them to go on"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "note.jpg: an empty file"),
        (b"<svg onload=alert(1)>", "note.jpg: not an image"),
        (b"PK\x03\x04" + bytes(100), "note.jpg: not an image"),
    ],
)
def test_uploads_that_are_no_pictures(desk: Desk, uploads: Path, model: str, content: bytes, message: str) -> None:
    open_sample(desk)
    say(desk, "click", x=30, y=20, label=1)
    path = uploads / "hash" / "x.jpg"
    path.write_bytes(content)
    reply = say(desk, "upload", path=str(path), name="../../note.jpg", model=model)
    assert reply["error"].startswith(message)
    # and what was open before is open still, with its clicks
    assert say(desk, "click", x=31, y=20, label=1)["answer"]["points"] == [[30, 20, 1], [31, 20, 1]]


def test_truncated_and_huge_uploads(desk: Desk, uploads: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = uploads / "hash" / "x.png"
    Image.fromarray(picture()).save(path)
    path.write_bytes(path.read_bytes()[:-4000])
    assert say(desk, "upload", path=str(path), name="x.png", model=model)["error"].startswith("x.png: damaged")
    # a hundred million pixels in a hundred kilobytes
    Image.new("1", (10000, 10000)).save(path)
    assert path.stat().st_size < 200_000
    start = time.monotonic()
    error = say(desk, "upload", path=str(path), name="x.png", model=model)["error"]
    assert error.startswith("x.png: 10000 x 10000 pixels is over the limit of 50 megapixels")
    assert time.monotonic() - start < 5
    assert "error" not in open_sample(desk)


def test_rotated_uploads_are_the_right_way_up(desk: Desk, uploads: Path, model: str) -> None:
    path = uploads / "hash" / "x.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(path, exif=exif)
    opened = say(desk, "upload", path=str(path), name="x.jpg", model=model)["picture"]
    assert (opened["width"], opened["height"]) == (HEIGHT, WIDTH)


def test_an_upload_that_is_opened_stays_for_who_labels_it_too(desk: Desk, uploads: Path, model: str) -> None:
    path = uploads / "hash" / "x.png"
    Image.fromarray(picture()).save(path)
    for secret in (ANNA, BERT):
        assert "picture" in say(desk, "upload", secret, path=str(path), name="x.png", model=model)
    assert path.is_file()


def test_an_upload_by_another_way_into_the_folder_is_refused(desk: Desk, uploads: Path, model: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.fromarray(picture()).save(secret)
    (uploads / "link.png").symlink_to(secret)
    for path in (secret, uploads / ".." / "secret.png", uploads / "link.png", uploads, uploads / "none.png"):
        reply = say(desk, "upload", path=str(path), name="x.png", model=model)
        assert reply == {"error": "this file has not been uploaded"}
    assert secret.exists()


def test_two_people_do_not_see_each_other(desk: Desk) -> None:
    open_sample(desk, ANNA, 0)
    open_sample(desk, BERT, 1)
    anna = say(desk, "click", ANNA, x=30, y=20, label=1)
    bert = say(desk, "click", BERT, x=30, y=20, label=1)
    assert anna != bert
    assert say(desk, "undo", ANNA) == {"answer": None}
    assert say(desk, "choose", BERT, candidate=0) == bert
    assert say(desk, "click", "c" * 32, x=1, y=1, label=1)["error"] == GONE


def test_more_requests_than_can_wait_are_told_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "AT_ONCE", 1)
    monkeypatch.setattr(desk_module, "WAITING", 2)
    small = Desk(desk.models, desk.samples, desk._room, desk.sessions)
    opened, release = threading.Event(), threading.Event()

    def slow(*_: Any) -> dict[str, Any]:
        opened.set()
        release.wait(20)
        return {}

    monkeypatch.setattr(view, "picture", slow)
    replies: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda s=s: replies.append(open_sample(small, s * 32))) for s in "123"]
    threads[0].start()
    assert opened.wait(20)
    for thread in threads[1:]:
        thread.start()
    while small._places._value:  # pyright: ignore[reportAttributeAccessIssue]
        time.sleep(0.01)
    assert open_sample(small, "4" * 32)["error"].startswith("busy")
    release.set()
    for thread in threads:
        thread.join()
    assert ["error" in reply for reply in replies] == [False] * 3
    assert "error" not in open_sample(small, "4" * 32)


def test_a_desk_that_is_closed_begins_nothing_new(desk: Desk) -> None:
    open_sample(desk)
    desk.close()
    assert say(desk, "click", x=30, y=20, label=1) == {"error": "the page is being stopped"}


def test_a_conversation_knows_what_it_holds(desk: Desk) -> None:
    open_sample(desk)
    before = desk.sessions.nbytes
    assert before > picture().nbytes
    say(desk, "click", x=30, y=20, label=1)
    say(desk, "click", x=31, y=20, label=1)
    assert desk.sessions.nbytes > before
    say(desk, "clear")
    assert desk.sessions.nbytes == before
