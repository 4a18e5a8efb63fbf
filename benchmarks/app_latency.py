"""How long a person waits for the mask after a click, in a real browser: `python benchmarks/app_latency.py [--quick]`.

A picture of 512 x 512 pixels is uploaded to `ruac app` on two CPU threads, and objects are clicked on twice: from the moment the mouse
button is let go until the browser has painted the mask, the uncertainty and the other layers. Once more with a calibration, which adds
the inner and the outer mask. Prints one JSON object as its last line; exit code 1 when a median misses its target.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import FilePayload, Page, sync_playwright

from ruac.app.models import Models
from ruac.app.samples import samples
from ruac.app.serving import running
from ruac.calibrate.file import Calibration
from ruac.calibrate.policy import Policy
from ruac.calibrate.risk import Level, Limit
from ruac.calibrate.shift import Traits
from ruac.data.image import read_image
from ruac.machine import describe_machine

THREADS, SIDE, WARM_UP, OBJECTS, QUICK = 2, 512, 2, 20, 5
WHICH = ("first_click", "second_click")
TARGETS = {f"{calibrated}{click}_ms": 300.0 for calibrated in ("", "calibrated_") for click in WHICH}
# the layers have new pictures when the click is answered; two frames later they are on the screen
WATCH = """() => {
    window.times = [];
    let start = null;
    document.querySelector("div.frame").addEventListener("pointerup", () => (start = performance.now()), true);
    const mask = document.querySelector('.layer[data-layer="mask"]');
    new MutationObserver((changes) => {
        if (start === null || !changes.some((change) => change.attributeName === "aria-busy")) return;
        if (document.querySelector(".stage").getAttribute("aria-busy") !== "false") return;
        mask.decode().then(() => requestAnimationFrame(() => requestAnimationFrame(() => {
            window.times.push(performance.now() - start);
            start = null;
        })));
    }).observe(document.querySelector(".stage"), { attributes: true });
}"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} objects instead of {OBJECTS}")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no chromium here: install one")
    torch.set_num_threads(THREADS)
    objects = QUICK if options.quick else OBJECTS
    figures: dict[str, float] = {"objects": objects}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, calibration in ("", None), ("calibrated_", calibrated(Path(folder))):
            with running(Models(["nano"], calibration=calibration), None, "127.0.0.1", 0) as address:
                page = browser.new_page()
                times = measure(page, address, objects)
                page.close()
            for click, of_click in zip(WHICH, (times[::2], times[1::2]), strict=True):
                figures[f"{name}{click}_ms"] = round(statistics.median(of_click), 1)
                figures[f"{name}{click}_slowest_ms"] = round(max(of_click), 1)
        browser.close()
    missed = [name for name, limit in TARGETS.items() if figures[name] > limit]
    machine = f"{describe_machine()}, {torch.get_num_threads()} threads"
    print(json.dumps({"figures": figures, "targets": TARGETS, "missed": missed, "machine": machine}))
    return 1 if missed else 0


def calibrated(folder: Path) -> Path:
    """A calibration of the embedded model for one click; what its limits promise plays no part here."""
    level = Level(0.1, Limit(-0.5, 0.08, 1.4), Limit(0.5, 0.07, 0.6))
    traits = Traits(tuple(map(float, range(11))), (0.1, 0.2, 0.3, 0.4))
    sha256 = Models(["nano"]).get("nano").sha256
    Calibration("x", sha256, {"x": 60}, "f", 60, 90, Policy("point"), 1.7, (level,), (traits,)).write(folder / "calibration.json")
    return folder / "calibration.json"


def measure(page: Page, address: str, objects: int) -> list[float]:
    """Milliseconds of the clicks, two an object."""
    page.goto(address)
    page.locator("input.file").set_input_files(
        FilePayload(name="square.png", mimeType="image/png", buffer=square(samples()[0].path))
    )
    page.locator(".photo").wait_for()
    page.locator('.stage[aria-busy="false"]').wait_for()
    page.evaluate(WATCH)
    area = page.locator("div.frame").bounding_box()
    assert area is not None
    rng = np.random.default_rng(0)
    for number in range(WARM_UP + objects):
        for click in range(len(WHICH)):
            x, y = rng.uniform(0.2, 0.8, 2)
            page.mouse.click(area["x"] + x * area["width"], area["y"] + y * area["height"])
            page.wait_for_function("count => window.times.length === count", arg=len(WHICH) * number + click + 1)
        page.get_by_role("button", name="Clear").click()
        page.locator(".suggest").wait_for(state="hidden")
        page.locator('.stage[aria-busy="false"]').wait_for()
    return page.evaluate("window.times")[len(WHICH) * WARM_UP :]


def square(path: Path) -> bytes:
    """The middle of a photograph as a PNG of SIDE x SIDE pixels."""
    image = Image.fromarray(read_image(path))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    buffer = io.BytesIO()
    image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE)).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
