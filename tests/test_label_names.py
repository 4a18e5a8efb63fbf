"""`ruac label` on files whose names are no text, or would move the cursor."""

import json
import os
import shutil
from pathlib import Path

import pytest
from test_label import photos

from ruac.cli import main


def test_a_name_that_is_no_text_costs_its_picture_alone(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    photos(folder, 1)
    shutil.copy(folder / "a" / "000.png", os.fsencode(folder) + b"/sur\xff.png")
    shutil.copy(folder / "a" / "000.png", folder / "line\nfeed\x1b[2J.png")
    words = ["label", folder, "--everything", "--grid", "2", "--least", "0", "--model", tiny_model_folder, "--out", out]
    assert main([*map(str, words)]) == 1
    assert capsys.readouterr().err == "ruac: 1 of 3 images failed:\nsur\\udcff.png: a name that is not UTF-8; rename the file\n"
    assert len(json.loads((out / "labels.json").read_text())["images"]) == 2
    assert (out / "review.html").is_file()
    (folder / "line\nfeed\x1b[2J.png").write_bytes(b"no picture")
    assert main([*map(str, words)]) == 1
    _, line, _ = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{folder}/line feed\\x1b[2J.png: not an image")
