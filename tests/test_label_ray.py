"""`ruac label` on a cluster, in lanes, and from an object store: whatever does the work, the results are the same."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_label import KILLED, boxes, files_of, photos

from ruac.cli import main
from ruac.data.image import ImageError, read_image
from ruac.label.images import find_images
from ruac.label.ray_engine import Recipe, _Worker
from ruac.label.store import read_from_store
from ruac.model import RuacModel, weights_sha256

IMAGES, WORKERS = 12, 2
# a job that ends every worker that looks at it
DEADLY = """
import os, sys
from ruac.label.ray_engine import Recipe, on_ray

class Deadly:
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        os._exit(9)

_, model, sha256 = sys.argv
list(on_ray(Recipe(model, None, "cpu", "fp32", sha256, None, None), [Deadly()], 1))
"""


@pytest.fixture
def words(tmp_path: Path, tiny_model_folder: Path) -> list[str]:
    """The command, without --out: two objects in each of the pictures, of which one cannot be read."""
    names = photos(tmp_path / "in", IMAGES)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    prompts = boxes(tmp_path, [*names, "broken.png"])
    return ["label", str(tmp_path / "in"), "--prompts", str(prompts), "--model", str(tiny_model_folder)]


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of the store that lives in this process."""
    fsspec = pytest.importorskip("fsspec")
    yield "memory://bucket/photos"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def put(url: str, content: bytes) -> None:
    import fsspec

    with fsspec.open(url, "wb") as file:
        file.write(content)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["threads", "ray"])
def test_a_run_killed_with_one_engine_goes_on_with_the_other_to_the_same_bytes(
    words: list[str], tmp_path: Path, first: str
) -> None:
    """Through the real command."""
    pytest.importorskip("ray")
    options = {"threads": [], "ray": ["--engine", "ray", "--workers", str(WORKERS)]}
    second = "ray" if first == "threads" else "threads"
    killed, parts = tmp_path / "killed", tmp_path / "killed" / "parts"
    dead = subprocess.run(
        [sys.executable, "-c", KILLED, "5", *words, *options[first], "--out", str(killed)], capture_output=True, text=True
    )
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    done = {path: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    assert len(done) == 5
    outputs = [
        subprocess.run([sys.executable, "-m", "ruac", *words, *more], capture_output=True, text=True)
        for more in ([*options[second], "--out", str(killed)], ["--out", str(tmp_path / "whole")])
    ]
    assert [output.returncode for output in outputs] == [1, 1], outputs[0].stderr
    goes_on, whole = (output.stderr for output in outputs)
    assert "broken.png: not an image" in whole
    assert goes_on.endswith(whole)  # Ray may say something of its own before
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(files_of(tmp_path / "whole")) == 2 * IMAGES + 4
    assert files_of(killed) == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_what_kills_every_worker_is_not_tried_for_ever(tiny_model: RuacModel, tiny_model_folder: Path) -> None:
    pytest.importorskip("ray")
    told = subprocess.run(
        [sys.executable, "-c", DEADLY, str(tiny_model_folder), weights_sha256(tiny_model)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert re.search("WorkError: the cluster gave up: .*; what is done stays, and the same command goes on", told.stderr), (
        told.stderr
    )


def test_a_worker_with_other_weights_is_refused(tiny_model_folder: Path) -> None:
    threads = torch.get_num_threads()
    try:
        with pytest.raises(ValueError, match="other weights on a worker than here"):
            _Worker(Recipe(str(tiny_model_folder), None, "cpu", "fp32", "0" * 64, None, None))
    finally:
        torch.set_num_threads(threads)


def test_one_lane_or_three_make_the_same_files_and_leave_torch_as_it_was(words: list[str], tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    for lanes in ("1", "3"):
        assert main([*words, "--workers", lanes, "--out", str(tmp_path / lanes)]) == 1
    assert torch.get_num_threads() == threads
    one = files_of(tmp_path / "1")
    assert len(one) == 2 * IMAGES + 4
    assert one == files_of(tmp_path / "3")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "spark"], "--engine spark: threads or ray"),
        (["--workers", "0"], "--workers 0: at least 1"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([*words, *options, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"ruac: {message}\n"


def test_without_ray_the_command_to_install_it_is_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*words, "--engine", "ray", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "ruac: --engine ray needs Ray: pip install 'ruac[scale]'\n"


def test_images_of_a_store_get_the_labels_of_the_same_images_on_disk(words: list[str], tmp_path: Path, memory: str) -> None:
    for path in (tmp_path / "in").rglob("*.png"):
        put(f"{memory}/{path.relative_to(tmp_path / 'in').as_posix()}", path.read_bytes())
    put(f"{memory}/notes.md", b"no image by its name")
    assert main([*words, "--out", str(tmp_path / "disk")]) == 1
    words[1] = f"{memory}/"
    assert main([*words, "--out", str(tmp_path / "store")]) == 1
    disk, store = (json.loads((tmp_path / out / "labels.json").read_text()) for out in ("disk", "store"))
    assert len(store["annotations"]) == 2 * IMAGES
    assert store == disk
    parts = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store" / "parts").iterdir()}
    assert main([*words, "--out", str(tmp_path / "store")]) == 1
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store" / "parts").iterdir()} == parts


def test_what_a_store_cannot_give_is_said_in_a_line(tmp_path: Path, memory: str) -> None:
    put(f"{memory}/broken.png", b"no picture")
    Image.new("RGB", (20, 20)).save(tmp_path / "fine.png")
    put(f"{memory}/fine.png", (tmp_path / "fine.png").read_bytes())
    np.testing.assert_array_equal(read_from_store(f"{memory}/fine.png"), read_image(tmp_path / "fine.png"))
    for name, limit, message in (
        ("broken.png", 100, "broken.png: not an image"),
        ("gone.png", 100, "gone.png: no such file"),
        ("fine.png", 10, "fine.png: more than"),
    ):
        with pytest.raises(ImageError) as refused:
            read_from_store(f"{memory}/{name}", most_bytes=limit)
        assert str(refused.value).startswith(f"{memory}/{message}")


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        (["https://host/a.jpg"], "https://host/a.jpg: not one of s3://"),
        (["zip://a.jpg::file:///tmp/x.zip"], "not one of s3://"),
        (["memory://bucket/photos/", "photos"], "photos: a path among URLs"),
        (["memory://bucket/photos/*.tif"], "no image there"),
        (["memory://bucket/nowhere/"], "memory://bucket/nowhere/: no image there"),
        (["memory://bucket/photos/a.png", "file:///photos/a.png"], "in several stores"),
    ],
)
def test_urls_that_cannot_be_used_are_refused(tmp_path: Path, memory: str, urls: list[str], message: str) -> None:
    put(f"{memory}/a.png", b"")
    with pytest.raises(ValueError, match=re.escape(message)):
        find_images(urls, tmp_path)


def test_a_manifest_names_paths_or_urls_a_line(tmp_path: Path) -> None:
    photos(tmp_path / "in", 3)
    manifest = tmp_path / "list.txt"
    manifest.write_text(f"{tmp_path / 'in/b/000.png'}\n\n{tmp_path / 'in/a/001.png'}\n")
    assert [file.name for file in find_images([str(manifest)], tmp_path / "out").files] == ["b/000.png", "a/001.png"]
    manifest.write_text("memory://bucket/deep/a.png\r\nmemory://bucket/b.png\r\n")
    pytest.importorskip("fsspec")
    found = find_images([str(manifest)], tmp_path / "out")
    assert [file.name for file in found.files] == ["deep/a.png", "b.png"]
    manifest.write_text("\n \n")
    with pytest.raises(ValueError, match="names no image"):
        find_images([str(manifest)], tmp_path / "out")
