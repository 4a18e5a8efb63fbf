"""The page of examples/browser in a real browser: loaded once, then without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from ruac.predictor import Predictor

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BUILD = Path(__file__).parents[1] / "examples" / "browser" / "build.sh"
WAIT = 60_000  # ms: a busy machine is no failure
# of the tiny model's input, so that nothing is resized and the answers are the same to the pixel
WIDTH, HEIGHT = 64, 48
SAME = 0.006  # bits: a picture has steps of 0.004

pytestmark = pytest.mark.slow


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page around the tiny model, by the script."""
    if CHROMIUM is None or shutil.which("npm") is None:
        pytest.skip("no chromium or no npm here")
    out = tmp_path_factory.mktemp("browser") / "site"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", str(BUILD), str(out)],
        env={**os.environ, "PATH": path, "MODEL": str(tiny_model_folder)},
        capture_output=True,
        text=True,
    )
    if "npm error" in done.stderr:
        pytest.skip("the registry of npm cannot be reached")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    small = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = tmp_path / "picture.png"
    Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(file)
    return file


@pytest.fixture
def page(site: Path, picture: Path) -> Iterator[Page]:
    """With the picture open; server and network are gone, and nothing has been asked for since."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(accept_downloads=True)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        expect(page.get_by_role("status")).to_contain_text("Ready", timeout=WAIT)
        server.shutdown()
        server.server_close()
        context.set_offline(True)
        page.on("request", lambda request: None if request.url.startswith(("blob:", "data:")) else problems.append(request.url))
        page.get_by_label("Picture").set_input_files(picture)
        expect(page.get_by_role("status")).to_have_text("Click on an object.", timeout=WAIT)
        yield page
        browser.close()
    assert problems == []


def click(page: Page, x: int, y: int) -> None:
    before = page.get_by_role("status").text_content()
    page.locator("#view").click(position={"x": x + 0.5, "y": y + 0.5})
    expect(page.get_by_role("status")).to_contain_text("Predicted IoU", timeout=WAIT)
    expect(page.get_by_role("status")).not_to_have_text(before or "", timeout=WAIT)


def saved(page: Page, button: str) -> np.ndarray:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return np.array(Image.open(download.value.path()).convert("L"))


def test_a_click_gives_the_mask_and_the_uncertainty_that_python_gives(page: Page, picture: Path, tiny_model_folder: Path) -> None:
    predictor = Predictor(tiny_model_folder)
    predictor.set_image(picture)
    first = predictor.predict([[20, 30]])
    click(page, 20, 30)
    expect(page.get_by_role("status")).to_contain_text(f"Predicted IoU {first.score:.2f}, ")
    # the weights in half precision move a logit near zero
    assert np.mean((saved(page, "Save mask") > 127) == first.masks[0]) > 0.995
    assert np.abs(saved(page, "Save uncertainty") / 255 - first.uncertainty[0]).max() < SAME
    page.get_by_label("A click is").select_option("0")
    click(page, 50, 10)
    second = predictor.predict([[20, 30], [50, 10]], [1, 0], mask_input=first.low_res_logits[0])
    assert np.mean((saved(page, "Save mask") > 127) == second.masks[0]) > 0.995
    assert np.abs(second.uncertainty[0] - first.uncertainty[0]).max() > 2 * SAME, "or the second click proves nothing"
    assert np.abs(saved(page, "Save uncertainty") / 255 - second.uncertainty[0]).max() < SAME
    page.get_by_role("button", name="Undo").click()
    assert np.abs(saved(page, "Save uncertainty") / 255 - first.uncertainty[0]).max() < SAME
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status")).to_have_text("Click on an object.")
    expect(page.get_by_role("button", name="Save mask")).to_be_disabled()


def test_what_is_shown_can_be_chosen(page: Page) -> None:
    click(page, 20, 30)
    shown = {}
    for choice in ("mask", "uncertainty", "both"):
        page.get_by_label("Show").select_option(choice)
        shown[choice] = page.locator("#view").evaluate("view => view.toDataURL()")
    assert len(set(shown.values())) == 3


def test_a_file_that_is_no_picture_is_said(page: Page, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.get_by_label("Picture").set_input_files(tmp_path / "broken.png")
    expect(page.get_by_role("status")).to_contain_text("That did not work", timeout=WAIT)


def test_the_page_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.get_by_role("button", name="Undo").bounding_box()["height"] >= 44  # pyright: ignore[reportOptionalSubscript]
