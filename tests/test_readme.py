"""What the README shows works."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert len(code.splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    photo = np.full((480, 640, 3), 60, np.uint8)
    photo[140:340, 220:420] = (200, 40, 30)
    Image.fromarray(photo).save("photo.jpg")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    answer, better = names["answer"], names["better"]
    assert answer.masks[0].shape == better.masks[0].shape == (480, 640)
    assert 0 <= answer.uncertainty[0].min() < answer.uncertainty[0].max() <= 1
    assert answer.expected_error[0].max() <= 0.5
    square = np.zeros((480, 640), bool)
    square[140:340, 220:420] = True
    assert (answer.masks[0] & square).sum() / (answer.masks[0] | square).sum() > 0.8


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#]+)\)|`((?:src|configs|benchmarks)/[\w./-]+)`", README))
def test_every_file_that_the_readme_names_is_there(path):
    (name,) = [p for p in path if p]
    assert (Path(__file__).parents[1] / name).exists()
