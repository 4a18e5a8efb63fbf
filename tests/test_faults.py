"""What commands do when the disk is full, the folder is read-only, somebody else writes there, or they are killed.

The disks are real, small file systems in memory: root can mount them; where that is not allowed these tests are skipped. Faults that
other files test already are listed in docs/hardening.md.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from faulty import Disk, files, leftovers, mounted
from PIL import Image
from squares import write_set

import ruac.writing
from ruac.cli import main
from ruac.writing import naming, only_writer, write_whole

Words = Callable[[Path], list[str]]
IMAGES = 12
RESULTS = ("predict", "label", "eval", "convert", "train")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """in/: photographs; set/: a labelled set; published/: one of COCO's kind."""
    root = tmp_path_factory.mktemp("inputs")
    write_set(root / "set", IMAGES)
    rng = np.random.default_rng(0)
    published = root / "published" / "instance_version"
    for folder in (root / "in", published / "val"):
        folder.mkdir(parents=True)
    images, annotations = [], []
    for i in range(IMAGES):
        picture = Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))
        picture.save(root / "in" / f"{i}.png")
        picture.save(published / "val" / f"{i}.jpg")
        images.append({"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 56})
        annotations.append({"id": i, "image_id": i, "segmentation": [[5, 5, 25, 5, 25, 20, 5, 20]], "iscrowd": 0})
    (published / "instances_val_trashcan.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    prompts = {f"{i}.png": [{"points": [[20, 15]]}] for i in range(IMAGES)}
    (root / "points.json").write_text(json.dumps(prompts))
    return root


@pytest.fixture
def words(inputs: Path, tiny_model_folder: Path, tmp_path: Path) -> Callable[[str], Words]:
    """Of a command, what to type for an output folder."""
    model = ["--model", str(tiny_model_folder)]

    def recipe(out: Path) -> list[str]:
        file = tmp_path / f"{out.name}.yaml"
        stage = {"steps": 6, "image_size": 64, "images": 2, "objects": 1, "warmup": 1}
        values = {"data": [str(inputs / "set")], "out": str(out), "start": str(tiny_model_folder), "image_size": 64}
        file.write_text(json.dumps({**values, "workers": 0, "checkpoint_minutes": 0.0, "stages": [stage]}))
        return ["train", "--config", str(file)]

    commands: dict[str, Words] = {
        "predict": lambda out: [
            "predict",
            *map(str, sorted((inputs / "in").iterdir())),
            "--point",
            "20,15",
            *model,
            "--out",
            str(out),
        ],
        "label": lambda out: [
            "label",
            str(inputs / "in"),
            "--prompts",
            str(inputs / "points.json"),
            *model,
            "--out",
            str(out),
            "--workers",
            "1",
        ],
        "eval": lambda out: ["eval", "--data", str(inputs / "set"), "--clicks", "1", *model, "--out", str(out)],
        "convert": lambda out: ["data", "convert", "TrashCan", str(inputs / "published"), str(out)],
        "train": recipe,
    }
    return lambda name: commands[name]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk") as found:
        yield found


@pytest.mark.parametrize("command", RESULTS)
def test_a_full_disk_is_told_in_a_line_and_the_work_goes_on_when_there_is_room(
    command: str, words: Callable[[str], Words], disk: Disk, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, type_for = disk.place / "out", words(command)
    filler = disk.fill()
    assert main(type_for(out)) == 1
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("ruac: ") or "No space left" in line]
    assert told[0].startswith("ruac: ")
    assert all(str(out) in line for line in told if "No space left on device" in line)
    assert "No space left on device" in "\n".join(told)
    assert leftovers(out) == []
    # but those that grow
    kept = {name: content for name, content in files(out).items() if not name.endswith((".jsonl", ".safetensors"))}
    filler.unlink()
    assert main(type_for(out)) == 0
    assert kept.items() <= files(out).items()
    assert main(type_for(tmp_path / "whole")) == 0
    assert files(out) == files(tmp_path / "whole")


def test_a_full_disk_under_a_file_that_grows_is_told_with_its_name() -> None:
    path = Path("/dev/full")
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"), naming(path), path.open("a") as file:
        file.write("a line")


@pytest.mark.parametrize("command", RESULTS)
def test_a_read_only_folder_is_told_in_a_line(
    command: str, words: Callable[[str], Words], disk: Disk, capfd: pytest.CaptureFixture[str]
) -> None:
    (disk.place / "out").mkdir()
    disk.read_only()
    assert main(words(command)(disk.place / "out")) == 1
    said = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert said[0].startswith("ruac: ")
    assert "Read-only file system" in "\n".join(said)
    assert len(said) <= IMAGES + 1  # predict and label say it of every image


@pytest.mark.parametrize("command", ["label", "eval", "convert", "train"])
def test_a_folder_that_somebody_else_writes_to_is_refused_and_left_alone(
    command: str,
    words: Callable[[str], Words],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ruac.writing, "ORPHANS", 0.3)
    with only_writer(tmp_path / "out"):
        assert main(words(command)(tmp_path / "out")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == f"ruac: {tmp_path / 'out'}: another process is writing there; wait for it, or choose another folder"
    assert list((tmp_path / "out").iterdir()) == []
    assert main(words(command)(tmp_path / "out")) == 0


def test_a_killed_process_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruac.writing, "ORPHANS", 0.3)
    holder = "import sys, time; from pathlib import Path; from ruac.writing import only_writer\n"
    holder += "with only_writer(Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(ValueError, match="another process is writing there"), only_writer(tmp_path):
        pass
    process.kill()
    process.communicate()
    with only_writer(tmp_path):
        write_whole(tmp_path / "a", b"a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# `ruac`, but kill -9 comes when so many files have their names and the next is written, but does not have its own yet
KILLED = """
import os, signal, sys
from pathlib import Path
from ruac.cli import main
replace, left = Path.replace, [int(sys.argv[1])]
def replace_or_die(self, target):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = replace_or_die
main(sys.argv[2:])
"""


@pytest.mark.slow
def test_a_killed_conversion_goes_on_to_the_same_bytes(words: Callable[[str], Words], tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    dead = subprocess.run([sys.executable, "-c", KILLED, "8", *words("convert")(killed)], capture_output=True)
    assert dead.returncode == -signal.SIGKILL
    assert len(leftovers(killed)) == 1
    assert not (killed / "meta.json").exists()
    for out in (killed, whole):
        assert main(words("convert")(out)) == 0
    assert files(killed) == files(whole)
    assert leftovers(killed) == []


# what `ruac export` does at its end, but kill -9 comes before the folder has its name
EXPORT = """
import os, signal, sys
from pathlib import Path
from ruac.export.bundle import Bundle, write
if sys.argv[2] == "die":
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
facts = Bundle("nano", "0", "fp32", 64, 16, "pad", 124, None, True, 17, {}, {}, "1")
write(Path(sys.argv[1]), facts, {"encoder.onnx": b"new", "decoder.onnx": b"new"})
"""


def test_an_export_that_is_killed_leaves_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "exported"
    for end, code, content in (("live", 0, b"new"), ("die", -signal.SIGKILL, b"old"), ("live", 0, b"new")):
        done = subprocess.run([sys.executable, "-c", EXPORT, str(out), end], capture_output=True)
        assert done.returncode == code, done.stderr
        assert (out / "encoder.onnx").read_bytes() == content
        (out / "encoder.onnx").write_bytes(b"old")


def test_what_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no file that could be replaced"):
        write_whole(tmp_path / "pipe", b"content")
    assert [(path.name, path.is_fifo()) for path in tmp_path.iterdir()] == [("pipe", True)]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["label", "eval", "convert", "train"])
def test_ctrl_c_is_one_line_and_the_work_goes_on(command: str, words: Callable[[str], Words], tmp_path: Path) -> None:
    first = {"label": "parts/*.json", "eval": "*.jsonl", "convert": "images/*.jpg", "train": "checkpoint.safetensors"}
    # a file is there long before the end: 12 images, or 6 steps that are each written
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "ruac", *words(command)(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(out.glob(first[command])) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.strip().splitlines()[-1:]) == (130, ["ruac: interrupted"])
    assert "Traceback" not in err
    assert leftovers(out) == []
    for folder in (out, tmp_path / "whole"):
        assert main(words(command)(folder)) == 0
    assert files(out) == files(tmp_path / "whole")
