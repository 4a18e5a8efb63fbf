"""How long a person waits for the mask after a click, in a real browser: `python benchmarks/app_latency.py [--quick]`.

A picture of 512 x 512 pixels is uploaded to `ruac app` on two CPU threads, and clicked on: from the moment the mouse button is let go
until the browser has painted the mask, the uncertainty and the other layers. Prints one JSON object as its last line; exit code 1
when the target is missed.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import FilePayload, Page, sync_playwright

from ruac.app.models import Models
from ruac.app.samples import samples
from ruac.app.serving import running
from ruac.data.image import read_image
from ruac.machine import describe_machine

THREADS, SIDE, WARM_UP, CLICKS, QUICK = 2, 512, 3, 20, 5
TARGETS = {"click_to_mask_ms": 300.0}
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
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} clicks instead of {CLICKS}")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no chromium here: install one")
    torch.set_num_threads(THREADS)
    with running(Models(["nano"]), None, "127.0.0.1", 0) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        times = measure(browser.new_page(), address, QUICK if options.quick else CLICKS)
        browser.close()
    figures = {"click_to_mask_ms": round(statistics.median(times), 1), "slowest_ms": round(max(times), 1), "clicks": len(times)}
    missed = [name for name, limit in TARGETS.items() if figures[name] > limit]
    machine = f"{describe_machine()}, {torch.get_num_threads()} threads"
    print(json.dumps({"figures": figures, "targets": TARGETS, "missed": missed, "machine": machine}))
    return 1 if missed else 0


def measure(page: Page, address: str, clicks: int) -> list[float]:
    """Milliseconds of each click; every one begins a new object, as a first click does."""
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
    for number in range(WARM_UP + clicks):
        x, y = rng.uniform(0.2, 0.8, 2)
        page.mouse.click(area["x"] + x * area["width"], area["y"] + y * area["height"])
        page.wait_for_function("count => window.times.length === count", arg=number + 1)
        page.get_by_role("button", name="Clear").click()
        page.locator(".suggest").wait_for(state="hidden")
        page.locator('.stage[aria-busy="false"]').wait_for()
    return page.evaluate("window.times")[WARM_UP:]


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
