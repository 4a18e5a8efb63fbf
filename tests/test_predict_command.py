import json
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import ruac.output
from ruac.cli import main
from ruac.errors import WorkError
from ruac.predict import Told, demo, group, parse_box, parse_point, predict

HEIGHT, WIDTH = 48, 80


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("text", "point"), [("3,4", (3, 4, 1)), ("3.5,4,0", (3.5, 4, 0)), ("3,4,1", (3, 4, 1)), (" 3 , 4 ", (3, 4, 1))]
)
def test_points_are_read(text: str, point: tuple[float, float, int]) -> None:
    assert parse_point(text) == point


@pytest.mark.parametrize("text", ["", "3", "3,4,1,1", "x,y", "3;4", "3,4,2", "3,4,0.5"])
def test_other_points_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--point"):
        parse_point(text)


def test_boxes_are_read() -> None:
    assert parse_box("1,2,3.5,4") == (1, 2, 3.5, 4)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d"])
def test_other_boxes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--box"):
        parse_box(text)


P, Q, OFF, BOX, BOX2 = (1.0, 2.0, 1), (3.0, 4.0, 1), (5.0, 6.0, 0), (0.0, 0.0, 9.0, 9.0), (1.0, 1.0, 5.0, 5.0)


@pytest.mark.parametrize(
    ("points", "boxes", "separate", "objects"),
    [
        ([P, Q, OFF], [], False, [Told((P, Q, OFF))]),
        ([P, OFF], [BOX], False, [Told((P, OFF), BOX)]),
        ([], [BOX, BOX2], False, [Told(box=BOX), Told(box=BOX2)]),
        ([P, Q], [], True, [Told((P,)), Told((Q,))]),
        ([P], [BOX, BOX2], True, [Told((P,)), Told(box=BOX), Told(box=BOX2)]),
    ],
)
def test_points_and_boxes_are_grouped_into_objects(points: list, boxes: list, separate: bool, objects: list[Told]) -> None:
    assert group(points, boxes, separate) == objects


@pytest.mark.parametrize(
    ("points", "boxes", "separate", "message"),
    [
        ([], [], False, "nothing to segment"),
        ([P], [BOX, BOX2], False, "which belong together"),
        ([P, OFF], [], True, "none can have the label 0"),
    ],
)
def test_groups_that_cannot_be_known_are_refused(points: list, boxes: list, separate: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group(points, boxes, separate)


def test_one_object_has_the_name_of_its_image(
    photo: Path, tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    predict([photo], point=["40,20", "3,3,0"], box=["10,10,70,40"], out=out, model=str(tiny_model_folder))
    assert names(out) == ["photo.json", "photo.mask.png", "photo.overlay.png", "photo.uncertainty.png"]
    assert capsys.readouterr().out == f"look at {out / 'photo.overlay.png'}\n"
    summary = read_json(out / "photo.json")
    assert summary["prompt"] == {"points": [[40, 20, 1], [3, 3, 0]], "box": [10, 10, 70, 40]}
    assert summary["model"] == str(tiny_model_folder)
    assert len(summary["model_sha256"]) == 64


def test_several_objects_are_numbered(photo: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict([photo], point=["40,20", "3,3"], separate=True, out=out, model=str(tiny_model_folder))
    assert len(names(out)) == 8
    points = [read_json(out / f"photo.{number}.json")["prompt"]["points"] for number in (1, 2)]
    assert points == [[[40, 20, 1]], [[3, 3, 1]]]


def test_images_of_the_same_name_are_all_kept(photo: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "photo.png"
    other.parent.mkdir()
    Image.new("RGB", (30, 20)).save(other)
    out = tmp_path / "out"
    predict([photo, other], point=["5,5"], out=out, model=str(tiny_model_folder))
    assert [read_json(out / name)["width"] for name in ("photo.json", "photo_2.json")] == [WIDTH, 30]


def test_rotated_photo_gives_its_mask_the_way_up_it_is_shown(photo: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.jpg"
    Image.open(photo).save(turned, exif=exif)
    # outside the stored picture of 80 x 48, inside the shown one of 48 x 80
    predict([turned], point=["20,70"], out=tmp_path / "out", model=str(tiny_model_folder))
    for kind in ("mask", "uncertainty"):
        assert cv2.imread(str(tmp_path / "out" / f"turned.{kind}.png"), cv2.IMREAD_UNCHANGED).shape == (WIDTH, HEIGHT)
    assert read_json(tmp_path / "out" / "turned.json")["rle"]["size"] == [WIDTH, HEIGHT]


def test_local_model_needs_no_network(
    photo: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("the network was used")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    predict([photo], point=["5,5"], out=tmp_path / "out", model=str(tiny_model_folder))
    assert len(names(tmp_path / "out")) == 4


def test_batch_goes_on_past_bad_files_and_lists_them(photo: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    """Through the real command, as a user would see it."""
    broken, small, out = tmp_path / "broken.png", tmp_path / "small.png", tmp_path / "out"
    broken.write_bytes(b"no picture")
    Image.new("RGB", (10, 10)).save(small)
    words = [
        "predict",
        broken,
        photo,
        small,
        tmp_path / "gone.jpg",
        "--point",
        "40,20",
        "--out",
        out,
        "--model",
        tiny_model_folder,
    ]
    done = subprocess.run([sys.executable, "-m", "ruac", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == f"look at {out / 'photo.overlay.png'}\n"
    assert names(out) == ["photo.json", "photo.mask.png", "photo.overlay.png", "photo.uncertainty.png"]
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert lines[0] == "ruac: 3 of 4 images failed:"
    assert lines[1].startswith(f"{broken}: not an image")
    assert lines[2] == f"{small}: point (40, 20) is outside the image of 10 x 10 pixels"
    assert lines[3].startswith(f"{tmp_path / 'gone.jpg'}: no such file")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--point", "3"], "--point 3: expected x,y"),
        ([], "nothing to segment"),
        (["--point", "80,4"], "point (80, 4) is outside the image of 80 x 48 pixels"),
        (["--point", "nan,4"], "point_coords holds NaN"),
        (["--box", "9,9,3,3"], "inside out"),
        (["--point", "3,4", "--model", "/nowhere"], "no model at /nowhere"),
        (["--point", "3,4", "--device", "abacus"], "--device abacus: not available here"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(
    photo: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    defaults = ["--out", str(tmp_path / "out"), "--model", str(tiny_model_folder)]
    assert main(["predict", str(photo), *defaults, *options]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert message in shown


def test_output_folder_that_is_a_file_is_refused(photo: Path, tiny_model_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"--out .*photo\.jpg: a file, not a folder"):
        predict([photo], point=["5,5"], out=photo, model=str(tiny_model_folder))


def test_full_disk_fails_the_image_but_not_the_batch(
    photo: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ruac.output.write_whole

    def full(path: Path, content: bytes) -> None:
        if path.name.startswith("photo.u"):
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(ruac.output, "write_whole", full)
    other = tmp_path / "other.png"
    Image.new("RGB", (30, 20)).save(other)
    with pytest.raises(WorkError, match=r"1 of 2 images failed:\n.*photo\.uncertainty\.png: No space left on device$"):
        predict([photo, other], point=["5,5"], out=tmp_path / "out", model=str(tiny_model_folder))
    assert (tmp_path / "out" / "other.json").is_file()


def test_interruption_leaves_no_half_written_file(
    photo: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = Path.write_bytes

    def interrupted(self: Path, data: bytes) -> int:
        if ".uncertainty." in self.name:
            write(self, data[:10])
            raise KeyboardInterrupt
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    out = tmp_path / "out"
    words = ["predict", str(photo), "--point", "5,5", "--out", str(out), "--model", str(tiny_model_folder)]
    assert main(words) == 130
    assert capsys.readouterr().err == "ruac: interrupted\n"
    assert names(out) == ["photo.mask.png"]
    assert cv2.imread(str(out / "photo.mask.png"), cv2.IMREAD_UNCHANGED).shape == (HEIGHT, WIDTH)


def test_demo_uses_a_photograph_that_is_installed(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo(out=tmp_path / "demo", model=str(tiny_model_folder))
    assert capsys.readouterr().out == f"look at {tmp_path / 'demo' / 'grace_hopper.overlay.png'}\n"
    assert read_json(tmp_path / "demo" / "grace_hopper.json")["width"] == 512
