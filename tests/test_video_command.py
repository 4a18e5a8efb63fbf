"""`ruac video`, and the films and folders that it reads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from ruac.cli import main
from ruac.video import frames as frames_module
from ruac.video.frames import Clip, open_frames
from ruac.video.movie import encoder
from ruac.video.results import PROGRESS, STATE, Results
from ruac.writing import only_writer

FRAMES, SIZE = 40, (48, 64)


def picture(i: int) -> np.ndarray:
    """Grey, and the brighter the later; a white square that moves."""
    frame = np.full((*SIZE, 3), 20 + 4 * i, np.uint8)
    frame[16:32, 10 + i // 2 : 26 + i // 2] = 255
    return frame


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with encoder(path, 12.5) as write:
        for i in range(FRAMES):
            write(picture(i))
    return path


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stills")
    for i in range(30):
        Image.fromarray(picture(i)).save(folder / f"{i}.png")
    return folder


def read_all(path: Path) -> list[np.ndarray]:
    opened = open_frames(path)
    return [opened[i] for i in range(len(opened))]


def run(*words: object) -> int:
    return main(["video", *map(str, words)])


@pytest.mark.parametrize("kept", [frames_module.KEPT_BYTES, 3 * SIZE[0] * SIZE[1] * 3])
def test_any_frame_of_a_film_can_be_read_in_any_order(film: Path, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "KEPT_BYTES", kept)
    opened = open_frames(film)
    assert (len(opened), opened.size, opened.fps) == (FRAMES, SIZE, 12.5)
    order = [*range(FRAMES), *reversed(range(FRAMES)), 7, 30, 8, 8, 0]
    for i in order:
        assert abs(int(opened[i][0, 0, 0]) - (20 + 4 * i)) <= 2
    with pytest.raises(IndexError, match="frames 0 to 39"):
        opened[FRAMES]


def test_a_film_that_cannot_be_searched_in_is_read_all_the_same(film: Path, tmp_path: Path) -> None:
    path = tmp_path / "film.ts"  # has no index
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    opened = open_frames(path)
    assert len(opened) == FRAMES
    for i in [*range(FRAMES), 30, 7, 8, 0]:
        assert abs(int(opened[i][0, 0, 0]) - (20 + 4 * i)) <= 2


def test_two_runs_do_not_write_to_one_folder(
    tiny_model_folder: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ruac.writing.ORPHANS", 0.0)
    with only_writer(tmp_path / "out"):
        assert run(film, "--point", "18,24", "--model", tiny_model_folder, "--out", tmp_path / "out") == 2
    assert "another process is writing there" in capsys.readouterr().err


def test_a_film_from_a_telephone_stands_upright(film: Path, tmp_path: Path) -> None:
    data = bytearray(film.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    turned = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # a quarter turn, clockwise
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    (tmp_path / "turned.mp4").write_bytes(data)
    opened = open_frames(tmp_path / "turned.mp4")
    assert opened.size == SIZE[::-1]
    upright = np.rot90(picture(0), -1)
    assert np.abs(opened[0].astype(int) - upright).mean() < 4


def test_a_folder_is_read_in_the_order_of_its_numbers(stills: Path) -> None:
    opened = open_frames(stills)
    assert [int(opened[i][0, 0, 0]) for i in (1, 2, 10, 29)] == [24, 28, 60, 136]


@pytest.mark.parametrize(("name", "content"), [("text.mp4", b"no film"), ("empty.mp4", b"")])
def test_what_is_no_film_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        open_frames(tmp_path / name)


def test_a_film_that_was_cut_short_is_named(film: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"cut\.mp4"):
        read_all(tmp_path / "cut.mp4")


def test_frames_of_several_sizes_are_refused(tmp_path: Path) -> None:
    for i, width in enumerate((20, 30)):
        Image.new("RGB", (width, 20)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match=r"1\.png: 30 x 20 pixels, but the first frame has 20 x 20"):
        open_frames(tmp_path)[1]
    with pytest.raises(ValueError, match="of one size"):
        Clip([np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)])


def test_the_command_writes_masks_doubt_lines_and_a_film(tiny_model_folder: Path, film: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (
        film,
        "--point",
        "20,24",
        "--point",
        "50,40",
        "--separate",
        "--frame",
        25,
        "--model",
        tiny_model_folder,
        "--out",
        out,
    )
    assert run(*words) == 0
    lines = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [line["objects"]["1"]["told"] for line in lines] == [i == 25 for i in range(FRAMES)]
    for line in lines:
        assert set(line["objects"]) == {"1", "2"}
        assert 0 <= line["objects"]["2"]["own_doubt"] <= line["objects"]["2"]["doubt"] <= 1
    ids = np.asarray(Image.open(out / "masks" / "00012.png"))
    assert ids.shape == SIZE
    assert set(np.unique(ids)) <= {0, 1, 2}
    assert Image.open(out / "masks" / "00012.png").mode == "P"
    bits = cv2.imread(str(out / "uncertainty" / "00012.png"), cv2.IMREAD_UNCHANGED)
    assert bits.dtype == np.uint16
    assert bits.max() > 0
    told = json.loads((out / "track.json").read_text())
    assert told["frames"] == FRAMES
    assert 0 <= told["objects"]["1"]["correct_next"] < FRAMES
    with av.open(str(out / "overlay.mp4")) as overlay:
        assert len(list(overlay.decode(video=0))) == FRAMES
        assert overlay.streams.video[0].average_rate == 12.5
    assert not (out / STATE).exists()
    assert not (out / PROGRESS).exists()
    # all names are plain, and of what was made here
    made = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    pictures = {f"{kind}/{i:05}.png" for kind in ("masks", "uncertainty") for i in range(FRAMES)}
    assert made == {"frames.jsonl", "track.json", "overlay.mp4", "settings.json", "SHA256SUMS"} | pictures
    # again: all is there; with other words the folder is refused
    before = (out / "overlay.mp4").stat().st_mtime_ns
    assert run(*words) == 0
    assert (out / "overlay.mp4").stat().st_mtime_ns == before
    assert run(film, "--point", "1,1", "--model", tiny_model_folder, "--out", out) == 2


def test_both_ways_say_where_the_way_back_disagrees(tiny_model_folder: Path, stills: Path, tmp_path: Path) -> None:
    for name, more in (("both", ["--both-ways"]), ("one", [])):
        words = ("--point", "20,24", "--frame", 25, "--model", tiny_model_folder, "--out", tmp_path / name, *more)
        assert run(stills, *words) == 0
    both, one = (
        [json.loads(line)["objects"]["1"] for line in (tmp_path / name / "frames.jsonl").read_text().splitlines()]
        for name in ("both", "one")
    )
    back = [answer.pop("way_back") for answer in both]
    assert both == one
    assert all(value is None or 0 <= value <= 1 for value in back)
    assert sum(value is not None for value in back) > 20
    summaries = [(tmp_path / name / "track.json").read_text() for name in ("both", "one")]
    assert summaries[0] == summaries[1]


def test_a_folder_that_is_not_as_the_run_left_it_is_not_taken_for_finished(
    tiny_model_folder: Path, stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for i in range(3):
        shutil.copy(stills / f"{i}.png", few)
    out = tmp_path / "out"

    def again() -> str:
        assert run(few, "--point", "24,24", "--model", tiny_model_folder, "--out", out) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert run(few, "--point", "24,24", "--model", tiny_model_folder, "--out", out) == 0
    for name in ("masks/00001.png", "uncertainty/00002.png", "frames.jsonl", "track.json", "overlay.mp4"):
        there = (out / name).read_bytes()
        (out / name).write_bytes(there + b"x")
        assert f"{name}: not what the run left there" in again()
        (out / name).unlink()
        assert f"{name}: not what the run left there" in again()
        (out / name).write_bytes(there)
    settings = (out / "settings.json").read_text()
    (out / "settings.json").unlink()
    assert "no settings.json that says what made it" in again()
    (out / "settings.json").write_text(settings)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(few / "1.png")
    assert "made with another source_bytes" in again()
    # an overlay alone is no run
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(out / "overlay.mp4", other)
    assert run(few, "--point", "24,24", "--model", tiny_model_folder, "--out", other) == 2
    # nor is a folder of somebody's photographs
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "a.jpg").touch()
    assert run(few, "--point", "24,24", "--model", tiny_model_folder, "--out", mine) == 2
    assert [path.name for path in mine.iterdir()] == ["a.jpg"]
    assert not (other / "settings.json").exists()


@pytest.mark.parametrize("name", ["12:05.mp4", "..%2f..%2fx.mp4", "-y.mp4", "concat:a|b.mp4", "a\nb.mp4"])
def test_no_name_of_a_film_leads_out_of_the_folder(
    name: str, tiny_model_folder: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with encoder(Path("short.mp4"), 10) as write:
        for i in range(2):
            write(picture(i))
    Path("short.mp4").rename(name)
    assert len(open_frames(Path(name))) == 2
    before = {path.name for path in tmp_path.iterdir()}
    if not name.startswith("-"):  # which the shell's user writes as ./-y.mp4
        assert run(name, "--point", "24,24", "--model", tiny_model_folder, "--out", "at 12:05") == 0
        assert {path.name for path in tmp_path.iterdir()} == before | {"at 12:05"}
        assert all(path.name.replace(".", "").isalnum() for path in Path("at 12:05").rglob("*"))


def test_names_of_long_videos_are_in_the_order_of_the_frames(tmp_path: Path) -> None:
    results = Results.open(tmp_path / "out", {"frames": 100_001})
    for frame in (99_999, 100_000, 7):
        results.save_frame(frame, np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.float32))
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["000007.png", "099999.png", "100000.png"]


@pytest.mark.slow
@pytest.mark.parametrize("both_ways", [False, True])
def test_a_run_that_was_killed_goes_on_and_ends_alike(
    both_ways: bool, tiny_model_folder: Path, stills: Path, tmp_path: Path
) -> None:
    def words(out: str) -> list[str]:
        options = ["--point", "24,24", "--frame", "5", "--model", str(tiny_model_folder), "--out", str(tmp_path / out)]
        return [sys.executable, "-m", "ruac", "video", str(stills), *options, *(["--both-ways"] if both_ways else [])]

    def under_way() -> bool:
        """A state was kept and, with a way back, one of the way back, which begins after the 30 frames."""
        if not (tmp_path / "killed" / STATE).exists():
            return False
        with safe_open(tmp_path / "killed" / STATE, "pt") as opened:
            return int(opened.metadata()["done"]) > (30 if both_ways else 0)

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    process = subprocess.Popen(words("killed"), **quiet)
    while process.poll() is None and not under_way():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "killed" / STATE).exists()
    assert not (tmp_path / "killed" / "overlay.mp4").exists()
    for out in ("killed", "whole"):
        subprocess.run(words(out), check=True, **quiet)
    whole, killed = ({path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*") if path.is_file()}
                     for out in ("whole", "killed"))  # fmt: skip
    assert whole == killed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.mp4", "--point", "1,1"], "missing.mp4: no such video"),
        (["{stills}", "--point", "1,1", "--frame", "99"], "frames 0 to 29"),
        (["{stills}", "--point", "99,99"], "outside the image"),
        (["{stills}"], "nothing to segment"),
    ],
)
def test_wrong_use_is_one_line(
    tiny_model_folder: Path, stills: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [word.format(stills=stills) for word in words]
    assert run(*named, "--model", tiny_model_folder, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
