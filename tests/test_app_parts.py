"""The parts of the page's server that know nothing of requests: who and what is forgotten when, words, models."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from app_pages import two_pictures

from ruac.app import view
from ruac.app.labelling import ALLOWED, EVERYTHING, TOLD, UPLOADED, Labelling
from ruac.app.legend import NAMES, one_in, rows, summary
from ruac.app.models import Models
from ruac.app.room import Room, temporary_room
from ruac.app.samples import samples
from ruac.app.sessions import Sessions

# ---- sessions


class Thing:
    def __init__(self, nbytes: int):
        self.nbytes = nbytes


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def put(sessions: Sessions[Thing], secret: str, nbytes: int = 1) -> None:
    with sessions.use(secret) as entry:
        entry.content = Thing(nbytes)


def held(sessions: Sessions[Thing], secret: str) -> bool:
    with sessions.use(secret) as entry:
        return entry.content is not None


def test_sessions_are_bounded_in_number_the_longest_unused_goes_first() -> None:
    sessions: Sessions[Thing] = Sessions(2, 100, 10, Clock())
    put(sessions, "a")
    put(sessions, "b")
    assert held(sessions, "a")
    put(sessions, "c")
    assert sessions.count == 2
    assert held(sessions, "a")
    assert not held(sessions, "b")


def test_sessions_are_bounded_in_bytes() -> None:
    sessions: Sessions[Thing] = Sessions(10, 100, 10, Clock())
    for secret in "abc":
        put(sessions, secret, 40)
    assert (sessions.count, sessions.nbytes) == (2, 80)
    put(sessions, "d", 500)
    assert (sessions.count, sessions.nbytes) == (1, 500)


def test_sessions_are_forgotten_after_a_while() -> None:
    clock = Clock()
    sessions: Sessions[Thing] = Sessions(10, 100, 10, clock)
    put(sessions, "a")
    clock.now = 9
    put(sessions, "b")
    clock.now = 12
    sessions.sweep()
    assert sessions.count == 1
    assert held(sessions, "b")


# ---- room


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def room(tmp_path: Path, clock: Clock) -> Room:
    (tmp_path / "room").mkdir()
    return Room(tmp_path / "room", 10**6, 1800, clock)


def put_file(room: Room, name: str, size: int = 10, folder: str = "hash") -> Path:
    path = room.files / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    room.use([path])
    return path


def test_files_are_forgotten_half_an_hour_after_they_were_used_last(room: Room, clock: Clock) -> None:
    old, used = put_file(room, "old.png", folder="a"), put_file(room, "used.png", folder="b")
    os.utime(old.parent, (0, 0))
    clock.now = 1000
    room.use([used, room.files / "gone.png"])
    clock.now = 1801
    room.sweep()
    assert [path.name for path in room.files.rglob("*")] == ["b", "used.png"]
    clock.now = 2801
    room.sweep()
    assert not used.exists()


def test_a_folder_that_waits_for_its_file_stays(room: Room, clock: Clock) -> None:
    (room.files / "hash").mkdir()
    os.utime(room.files / "hash", (100, 100))
    clock.now = 1000
    room.sweep()
    assert (room.files / "hash").is_dir()


def test_the_bytes_of_a_room_are_counted_once(room: Room) -> None:
    path = put_file(room, "x.png", 300)
    assert room.nbytes == 300
    (room.work / "same.png").hardlink_to(path)
    (room.work / "other.png").write_bytes(bytes(50))
    assert room.nbytes == 350


def test_a_room_is_gone_at_the_end_even_while_somebody_writes_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started, done = threading.Event(), threading.Event()

    def write(folder: Path) -> None:
        number = 0
        while not done.is_set():
            try:
                (folder / str(number)).write_bytes(b"x")
            except FileNotFoundError:
                return
            number += 1
            started.set()

    with temporary_room(1000, 60) as room:
        put_file(room, "x.png")
        thread = threading.Thread(target=write, args=(room.work,))
        thread.start()
        assert started.wait(10)
    done.set()
    thread.join()
    assert list(tmp_path.iterdir()) == []


# ---- labelling


@pytest.fixture
def model(tiny_model_folder: Path) -> str:
    return str(tiny_model_folder)


@pytest.fixture
def labelling(model: str, tmp_path: Path, room: Room, monkeypatch: pytest.MonkeyPatch) -> Labelling:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(room.files))
    (tmp_path / "pictures").mkdir()
    return Labelling(Models([model]), two_pictures(tmp_path / "pictures"), room)


def test_results_of_labelling_are_forgotten_as_uploads_are(labelling: Labelling, room: Room, clock: Clock, model: str) -> None:
    _, download, page = labelling._run(ALLOWED, None, EVERYTHING, None, "10%", model)
    assert "<iframe" in page
    (archive,) = [path for path in room.files.rglob("*") if path.is_file()]
    assert download.value["path"] == str(archive)  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
    assert list(room.work.iterdir()) == []
    clock.now = archive.stat().st_mtime + 1801
    room.sweep()
    assert not archive.exists()


def test_labelling_keeps_the_uploads_for_another_run(labelling: Labelling, room: Room, tmp_path: Path, model: str) -> None:
    upload = put_file(room, "left.png")
    upload.write_bytes((tmp_path / "pictures" / "left.png").read_bytes())
    for _ in range(2):
        labelling._run(UPLOADED, [str(upload)], EVERYTHING, None, "10%", model)
    assert upload.is_file()


def test_labelling_without_room_is_refused_and_leaves_nothing(labelling: Labelling, room: Room, model: str) -> None:
    with pytest.raises(gr.Error, match="upload the file that says where the objects are"):
        labelling._run(ALLOWED, None, TOLD, None, "10%", model)
    assert list(room.work.iterdir()) == []
    put_file(room, "large.png", 10**6 + 1)
    with pytest.raises(gr.Error, match="there is no room left for results; try again in half an hour"):
        labelling._run(ALLOWED, None, EVERYTHING, None, "10%", model)


# ---- words


def test_the_legend_counts_what_is_expected_to_be_wrong() -> None:
    error = np.full((10, 10), 0.002, np.float32)
    error[:2], error[2:3], error[3:4] = 0.2, 0.25, 0.4
    found = rows(error, error)
    assert [row.name for row in found] == [NAMES[0], NAMES[3]]
    assert [row.words for row in found] == ["1 in 500 pixels here is likely wrong", "1 in 4 pixels here is likely wrong"]
    assert [row.share for row in found] == pytest.approx([0.6, 0.4])
    assert (one_in(0.2), one_in(0.5), one_in(0.0001), one_in(0)) == ("1 in 5", "1 in 2", *["fewer than 1 in 1,000"] * 2)


def test_the_summary_says_how_much_of_the_mask_is_wrong() -> None:
    mask = np.zeros((10, 10), bool)
    error = np.full((10, 10), 0.1, np.float32)
    assert summary(error, mask).startswith("Nothing is in the mask")
    mask[:4] = True
    assert summary(error, mask) == "For every 4 pixels of the mask, one in or around it is likely wrong."
    assert summary(error * 5, mask).startswith("More pixels are expected to be wrong than the mask has")


def test_outlines_are_where_the_mask_is() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:5, 3:7] = True
    assert view.path(mask, (2, 2)) == "M7.0 5.0L7.0 9.0L13.0 9.0L13.0 5.0Z"


def test_samples_are_on_this_disk() -> None:
    found = samples()
    assert found[0].name == "Grace Hopper"
    assert all(sample.path.is_file() for sample in found)
