"""`ruac attack`, from the photograph and its mask to the sheet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ruac.attack import ATTACKS
from ruac.attack.command import OF_SEVERAL, Kind
from ruac.cli import main


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """A photograph of 40 x 60 pixels with a red and a green square, and its ids."""
    photo, ids = np.full((40, 60, 3), 90, np.uint8), np.zeros((40, 60), np.uint8)
    photo[5:25, 5:25], ids[5:25, 5:25] = (220, 40, 30), 1
    photo[15:35, 30:55], ids[15:35, 30:55] = (40, 200, 30), 7
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(ids).save(tmp_path / "ids.png")
    return [str(tmp_path / "photo.png"), str(tmp_path / "ids.png")]


def test_every_attack_but_none_is_offered():
    assert set(Kind.__args__) == set(ATTACKS) - {"none"}


@pytest.mark.parametrize("kind", Kind.__args__)
def test_a_sheet_is_drawn_and_magnitudes_said(kind, pair, tiny_model_folder, tmp_path, capsys):
    out = tmp_path / "out"
    pictures = 2 * pair if kind in OF_SEVERAL else pair
    code = main(["attack", *pictures, "--kind", kind, "--model", str(tiny_model_folder), "--steps", "2", "--out", str(out)])
    assert code == 0
    assert [path.name for path in out.iterdir()] == [f"attack.{kind}.png"]
    sheet = np.asarray(Image.open(out / f"attack.{kind}.png").convert("RGB"))
    assert sheet.std() > 20
    assert "rms" in capsys.readouterr().out


def test_the_real_command_on_two_pictures_is_the_same_for_the_same_seed(pair, tiny_model_folder, tmp_path):
    for name in ("a", "b"):
        command = [sys.executable, "-m", "ruac", "attack", *pair, *pair, "--kind", "noise", "--model", str(tiny_model_folder)]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / name)], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a" / "attack.noise.png").read_bytes() == (tmp_path / "b" / "attack.noise.png").read_bytes()


def test_a_mask_of_ruac_predict_is_one_object(pair, tiny_model_folder, tmp_path):
    ids = np.asarray(Image.open(pair[1]))
    Image.fromarray(((ids == 1) * 255).astype(np.uint8)).save(tmp_path / "photo.mask.png")
    words = ["attack", pair[0], str(tmp_path / "photo.mask.png"), "--kind", "noise", "--model", str(tiny_model_folder)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pair, folder: pair[:1], "name a mask after every photograph"),
        (lambda pair, folder: [pair[0], "nothing.png"], "nothing.png: no such mask"),
        (lambda pair, folder: [*pair, "--steps", "0"], "--steps 0: at least 1"),
        (lambda pair, folder: [pair[0], str(folder / "small.png")], "10 x 10 pixels, but"),
        (lambda pair, folder: [pair[0], str(folder / "empty.png")], "no object in it"),
        (lambda pair, folder: [*pair, "--kind", "laser"], "kind"),
        (lambda pair, folder: [*pair, "--kind", "dsu"], "--kind dsu: it mixes the styles of several pictures"),
    ],
)
def test_wrong_use_is_a_line(pair, tiny_model_folder, tmp_path, capsys, change, message):
    Image.fromarray(np.ones((10, 10), np.uint8)).save(tmp_path / "small.png")
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(tmp_path / "empty.png")
    code = main(["attack", *change(pair, tmp_path), "--model", str(tiny_model_folder), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
