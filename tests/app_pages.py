"""The page in a browser, for the tests: how to open it, to click in it, and to see what it shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, expect

PATIENCE = 60_000  # milliseconds, on a busy machine
OBJECT = 256, 230  # in the first sample


@contextmanager
def watched(browser: Browser, address: str) -> Iterator[Page]:
    """Fails when anything is asked of another server, or the page has an error."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith((address, "data:", "blob:", "about:")) else problems.append(request.url),
    )
    page.goto(address)
    yield page
    context.close()
    assert problems == []


def two_pictures(folder: Path) -> Path:
    """left.png and right.png, with a square each."""
    for name in ("left", "right"):
        canvas = np.full((60, 90, 3), 40, np.uint8)
        canvas[15:45, 10:40] = 220
        Image.fromarray(canvas if name == "left" else canvas[:, ::-1]).save(folder / f"{name}.png")
    return folder


def settle(page: Page) -> None:
    expect(page.locator(".stage")).to_have_attribute("aria-busy", "false", timeout=PATIENCE)


def open_sample(page: Page, number: int = 0) -> None:
    page.locator(".samples button").nth(number).click()
    expect(page.locator(".photo")).to_be_visible(timeout=PATIENCE)
    settle(page)


def place(page: Page, x: float, y: float, size: tuple[int, int]) -> tuple[float, float]:
    """Of the screen, from pixels of the picture (width, height)."""
    area = page.locator("div.frame").bounding_box()
    assert area is not None
    return area["x"] + (x + 0.5) / size[0] * area["width"], area["y"] + (y + 0.5) / size[1] * area["height"]


def click(page: Page, x: float, y: float, size: tuple[int, int], button: Any = "left") -> None:
    page.mouse.click(*place(page, x, y, size), button=button)
    settle(page)


def shown(page: Page, layer: str = "mask") -> np.ndarray:
    """RGBA of a layer, as the browser has it."""
    url = page.locator(f'.layer[data-layer="{layer}"]').get_attribute("src")
    assert url is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))).convert("RGBA"))


def mask_of(page: Page) -> np.ndarray:
    return shown(page)[..., 3] > 0


def screen(page: Page) -> np.ndarray:
    """What is seen of the picture, RGB."""
    return np.asarray(Image.open(io.BytesIO(page.locator("div.frame").screenshot())).convert("RGB")).astype(int)


def choose(page: Page, name: str, content: bytes) -> None:
    page.locator("input.file").set_input_files(FilePayload(name=name, mimeType="image/png", buffer=content))


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()
