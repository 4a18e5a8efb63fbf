"""What docs/server.md shows works as it stands, but for the address."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from serving import picture, running

from ruac.model import RuacModel

PAGE = (Path(__file__).parents[1] / "docs" / "server.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Image.fromarray(picture(height=300, width=400)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_of_the_page(tiny_model: RuacModel, photo: Path) -> None:
    start, *commands = blocks("sh")
    assert start.startswith("ruac serve")
    with running(tiny_model, photo / "server") as server:
        text = "set -eu\n" + "\n".join(commands).replace(ADDRESS, server.url)
        done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, cwd=photo)
    assert (done.returncode, done.stderr) == (0, "")
    masks = json.loads((photo / "masks.json").read_text())
    assert [len(entry["masks"][0]["uncertainty"]["bands"]) for entry in masks["predictions"]] == [2, 2]
    uncertainty = cv2.imread(str(photo / "uncertainty.png"), cv2.IMREAD_UNCHANGED)
    assert uncertainty is not None
    assert (uncertainty.shape, uncertainty.dtype) == ((300, 400), np.uint16)
    assert json.loads((photo / "health.json").read_text())["status"] == "ok"
    assert "objects" in json.loads((photo / "objects.json").read_text())
    assert "ruac_requests_total" in (photo / "metrics.txt").read_text()


def test_python_of_the_page(tiny_model: RuacModel, photo: Path) -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {}
    with running(tiny_model, photo / "server") as server:
        exec(compile(code.replace(ADDRESS, server.url), "server.md", "exec"), names)
    assert names["answer"].masks.shape == names["better"].masks.shape == (1, 300, 400)  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(names["objects"], list)


@pytest.mark.slow
def test_openapi_document_describes_every_answer(tiny_model: RuacModel, tmp_path: Path) -> None:
    """Whatever is sent, by a tool that makes good and bad requests of what the document says."""
    kinds = ("status_code", "content_type", "response_headers", "response_schema")
    checks = ",".join(("not_a_server_error", *(f"{kind}_conformance" for kind in kinds)))
    with running(tiny_model, tmp_path / "server") as server:
        words = ["run", f"{server.url}/openapi.json", "--checks", checks, "--phases", "coverage,fuzzing"]
        limits = ["--max-time", "20", "--max-examples", "10", "--request-timeout", "120", "--generation-deterministic"]
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", *words, *limits], capture_output=True, text=True, cwd=tmp_path
        )
    assert done.returncode == 0, done.stdout
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found
    assert int(found[1]) == int(found[2]) >= 10


def test_page_names_every_status_of_the_server() -> None:
    from ruac.serve.problems import KNOWN

    table = PAGE.split("| status |")[1].split("##")[0]
    assert {int(status) for status in re.findall(r"\b[45]\d\d\b", table)} == set(KNOWN) - {500}
