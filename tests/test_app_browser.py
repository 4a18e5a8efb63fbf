"""The page in a real browser, as people use it: with a mouse, with the keyboard, on a phone, and two at a time."""

from __future__ import annotations

import base64
import io
import json
import socket
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, expect

from ruac.app.models import Models
from ruac.app.samples import samples
from ruac.app.serving import MAX_FILE, MAX_REQUEST, UPLOAD, running
from ruac.data.image import read_image
from ruac.exchange import coco
from ruac.predictor import Predictor

OBJECT = 256, 230  # in the first sample
PATIENCE = 60_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures on the server."""
    folder = tmp_path_factory.mktemp("allowed")
    for name in ("left", "right"):
        canvas = np.full((60, 90, 3), 40, np.uint8)
        canvas[15:45, 10:40] = 220
        Image.fromarray(canvas if name == "left" else canvas[:, ::-1]).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with running(Models(["nano"]), folder, "127.0.0.1", 0) as address:
        yield address


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """Fails when anything is asked of another server, or the page has an error."""
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith((address, "data:", "blob:", "about:")) else problems.append(request.url),
    )
    page.goto(address)
    yield page
    assert problems == []


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


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    predictor = Predictor("nano")
    predictor.set_image(samples()[0].path)
    return predictor


@pytest.fixture(scope="module")
def size() -> tuple[int, int]:
    """Of the first sample: width, height."""
    height, width, _ = read_image(samples()[0].path).shape
    return width, height


def screen(page: Page) -> np.ndarray:
    """What is seen of the picture, RGB."""
    return np.asarray(Image.open(io.BytesIO(page.locator("div.frame").screenshot())).convert("RGB")).astype(int)


# ---- clicks


def test_a_click_shows_the_mask_where_it_is(page: Page, predictor: Predictor, size: tuple[int, int]) -> None:
    open_sample(page)
    before = screen(page)
    click(page, *OBJECT, size)
    truth = predictor.predict([OBJECT], [1])
    assert np.array_equal(mask_of(page), truth.masks[0])
    # and on the screen: with the mask alone, opaque, all of it is blue and nothing else is
    page.get_by_label("Uncertainty", exact=True).uncheck()
    page.get_by_label("Opacity of Mask").fill("100")
    page.add_style_tag(content=".ruac svg { display: none }")
    after = screen(page)
    inside = np.asarray(Image.fromarray(truth.masks[0]).resize((after.shape[1], after.shape[0]))).astype(bool)
    edge = Image.fromarray(truth.masks[0].astype(np.uint8) * 255).resize(
        (after.shape[1], after.shape[0]), Image.Resampling.BILINEAR
    )
    clear = np.isin(np.asarray(edge), (0, 255))
    blue = np.abs(after - (31, 119, 255)).max(2) < 12
    assert blue[clear & inside].mean() > 0.99
    assert (np.abs(after - before).max(2) < 12)[clear & ~inside].mean() > 0.99


def test_the_suggested_click_is_marked_taken_and_undone(page: Page, predictor: Predictor, size: tuple[int, int]) -> None:
    open_sample(page)
    click(page, *OBJECT, size)
    first = predictor.predict([OBJECT], [1])
    suggested = Predictor.next_click(first)
    marker = page.locator("svg circle.ask")
    assert (float(marker.get_attribute("cx") or 0), float(marker.get_attribute("cy") or 0)) == (
        suggested.x + 0.5,
        suggested.y + 0.5,
    )
    expect(page.locator(".suggest p")).to_contain_text("object" if first.masks[0][suggested.y, suggested.x] else "background")
    page.get_by_role("button", name="Take it").click()
    settle(page)
    words = [OBJECT, (suggested.x, suggested.y)], [1, suggested.label]
    second = predictor.predict(*words, mask_input=first.low_res_logits[0])
    assert np.array_equal(mask_of(page), second.masks[0])
    expect(page.locator(".status")).to_contain_text("2 clicks")
    page.get_by_role("button", name="Undo").click()
    settle(page)
    assert np.array_equal(mask_of(page), first.masks[0])
    page.get_by_role("button", name="Clear").click()
    settle(page)
    expect(page.locator('.layer[data-layer="mask"]')).to_be_hidden()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


def test_background_by_right_click_and_by_the_switch(page: Page, predictor: Predictor, size: tuple[int, int]) -> None:
    open_sample(page)
    click(page, *OBJECT, size)
    first = predictor.predict([OBJECT], [1])
    second = predictor.predict([OBJECT, (40, 300)], [1, 0], mask_input=first.low_res_logits[0])
    click(page, 40, 300, size, "right")
    assert np.array_equal(mask_of(page), second.masks[0])
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("radio", name="Background").click()
    click(page, 40, 300, size)
    assert np.array_equal(mask_of(page), second.masks[0])


def test_a_box_is_dragged(page: Page, predictor: Predictor, size: tuple[int, int]) -> None:
    open_sample(page)
    page.get_by_role("radio", name="Box").click()
    page.mouse.move(*place(page, 120, 60, size))
    page.mouse.down()
    page.mouse.move(*place(page, 200, 200, size))
    page.mouse.move(*place(page, 400, 420, size))
    page.mouse.up()
    settle(page)
    box = [float(page.locator("svg rect.box:not(.under)").get_attribute(name) or "nan") for name in ("x", "y", "width", "height")]
    corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    assert corners == pytest.approx([120.5, 60.5, 400.5, 420.5], abs=1)
    truth = predictor.predict(box=corners)
    assert (mask_of(page) != truth.masks[0]).mean() < 1e-3


def test_clicks_in_quick_succession_all_count(page: Page, size: tuple[int, int]) -> None:
    open_sample(page)
    for x in (230, 250, 270):
        page.mouse.click(*place(page, x, 230, size))
    expect(page.locator(".status")).to_contain_text("3 clicks", timeout=PATIENCE)
    expect(page.locator("svg circle.plus")).to_have_count(3)


def test_candidates_are_listed_and_chosen(page: Page, predictor: Predictor, size: tuple[int, int]) -> None:
    open_sample(page)
    click(page, *OBJECT, size)
    three = predictor.predict([OBJECT], [1], multimask_output=True)
    cells = page.locator(".masks tbody td").all_text_contents()
    assert [cell for i, cell in enumerate(cells) if i % 4 == 1] == [f"{score:.2f}" for score in three.iou]
    assert [cell for i, cell in enumerate(cells) if i % 4 == 2] == [f"{score:.2f}" for score in three.expected_iou]
    page.get_by_label("Other 2").check()
    settle(page)
    assert np.array_equal(mask_of(page), three.masks[2])


def test_words_are_computed_and_layers_are_switched(page: Page, predictor: Predictor, size: tuple[int, int]) -> None:
    open_sample(page)
    click(page, *OBJECT, size)
    expect(page.locator(".legend tbody tr").last).to_contain_text("pixels here is likely wrong")
    expect(page.locator(".summary")).to_contain_text("of the mask, one in or around it is likely wrong")
    probability = page.locator('.layer[data-layer="probability"]')
    expect(probability).to_be_hidden()
    page.get_by_label("Probability", exact=True).check()
    page.get_by_label("Opacity of Probability").fill("25")
    expect(probability).to_be_visible()
    expect(probability).to_have_css("opacity", "0.25")
    band = shown(page, "band")[..., 3] > 0
    error = predictor.predict([OBJECT], [1]).expected_error[0]
    assert error[band].sum() >= 0.9 * error.sum()
    assert error[band].min() > error[~band].max()


# ---- uploads


def choose(page: Page, name: str, content: bytes) -> None:
    page.locator("input.file").set_input_files(FilePayload(name=name, mimeType="image/png", buffer=content))


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def test_a_rotated_upload_is_seen_the_right_way_up(page: Page) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.zeros((120, 60, 3), np.uint8)
    upright[:40] = 255
    lying = Image.fromarray(np.rot90(upright).copy())
    choose(page, "../a <b>.jpg", png(lying, format="JPEG", exif=exif))
    expect(page.locator(".photo")).to_be_visible(timeout=PATIENCE)
    settle(page)
    expect(page.locator(".stage")).to_have_attribute("aria-label", "a <b>.jpg, 60 by 120 pixels")
    seen = screen(page)
    assert seen.shape[0] > 1.9 * seen.shape[1]
    assert seen[: len(seen) // 4].mean() > 200
    assert seen[len(seen) // 2 :].mean() < 50
    click(page, 30, 20, (60, 120))
    expect(page.locator(".suggest")).to_be_visible()


def test_broken_and_huge_uploads_are_told_and_the_page_goes_on(page: Page) -> None:
    open_sample(page)
    broken = png(Image.new("RGB", (300, 200), "red"))
    for name, content, message in (
        ("broken.png", broken[: len(broken) // 2], "broken.png: damaged"),
        ("text.png", b"no picture", "text.png: not an image"),
        ("bomb.png", png(Image.new("1", (12000, 12000))), "bomb.png: 12000 x 12000 pixels is over the limit of 50 megapixels"),
    ):
        choose(page, name, content)
        expect(page.get_by_role("alert")).to_contain_text(message, timeout=PATIENCE)
        expect(page.locator(".photo")).to_be_hidden()
    page.evaluate(
        """([name, size]) => {
            const list = new DataTransfer();
            list.items.add(new File([new Uint8Array(size)], name));
            const input = document.querySelector("input.file");
            input.files = list.files;
            input.dispatchEvent(new Event("change"));
        }""",
        ["fat.png", MAX_FILE + 1],
    )
    expect(page.get_by_role("alert")).to_have_text("fat.png: over the limit of 64 MB; scale the picture down", timeout=PATIENCE)
    open_sample(page)
    expect(page.locator(".error")).to_be_hidden()


# ---- downloads


def test_downloads_open(page: Page, predictor: Predictor, size: tuple[int, int], tmp_path: Path) -> None:
    open_sample(page)
    click(page, *OBJECT, size)
    truth = predictor.predict([OBJECT], [1])
    files = {}
    for button in page.locator(".files button").all():
        with page.expect_download(timeout=PATIENCE) as download:
            button.click()
        files[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert sorted(files) == [
        f"grace_hopper{kind}" for kind in (".coco.json", ".json", ".mask.png", ".overlay.png", ".uncertainty.png")
    ]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(files["grace_hopper.mask.png"]))) > 0, truth.masks[0])
    doubt = np.asarray(Image.open(io.BytesIO(files["grace_hopper.uncertainty.png"])))
    assert np.abs(doubt / 65535 - truth.uncertainty[0]).max() < 1e-4
    assert json.loads(files["grace_hopper.json"])["prompt"]["points"] == [[*OBJECT, 1]]
    assert coco.read(json.loads(files["grace_hopper.coco.json"])).labels.count == 1


# ---- people


def test_two_people_do_not_see_each_others_picture(browser: Browser, page: Page, address: str, size: tuple[int, int]) -> None:
    open_sample(page, 0)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    other = context.new_page()
    other.goto(address)
    choose(other, "mine.png", png(Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))))
    expect(other.locator(".photo")).to_be_visible(timeout=PATIENCE)
    settle(other)
    click(page, *OBJECT, size)
    click(other, 60, 40, (120, 90))
    expect(page.locator(".status")).to_have_text("grace_hopper.jpg: 1 click")
    expect(other.locator(".status")).to_have_text("mine.png: 1 click")
    assert mask_of(page).shape == size[::-1]
    assert mask_of(other).shape == (90, 120)
    mine = page.locator(".photo").get_attribute("src")
    assert mine != other.locator(".photo").get_attribute("src")
    click(page, 40, 300, size, "right")
    expect(other.locator("svg circle.minus")).to_have_count(0)
    context.close()


def test_all_works_with_the_keyboard(page: Page, size: tuple[int, int]) -> None:
    page.locator(".samples button").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".photo")).to_be_visible(timeout=PATIENCE)
    settle(page)
    page.locator(".stage").focus()
    page.keyboard.press("ArrowRight")  # the cross appears in the middle
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator(".status")).to_contain_text("1 click", timeout=PATIENCE)
    step = round(max(size) / 100)
    plus = page.locator("svg circle.plus")
    assert float(plus.get_attribute("cx") or 0) == size[0] // 2 + 0.5
    assert float(plus.get_attribute("cy") or 0) == size[1] // 2 - step + 0.5
    page.keyboard.press("t")
    expect(page.locator(".status")).to_contain_text("2 clicks", timeout=PATIENCE)
    page.keyboard.press("Control+z")
    expect(page.locator(".status")).to_contain_text("1 click", timeout=PATIENCE)
    page.keyboard.press("x")
    expect(page.get_by_role("radio", name="Box")).to_have_attribute("aria-checked", "true")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator(".status")).to_contain_text("1 click and a box", timeout=PATIENCE)
    page.keyboard.press("3")
    expect(page.get_by_label("Probability", exact=True)).to_be_checked()
    page.keyboard.press("c")
    expect(page.locator(".status")).to_contain_text("click on an object", timeout=PATIENCE)
    page.keyboard.press("b")
    expect(page.get_by_role("radio", name="Background")).to_have_attribute("aria-checked", "true")


def test_the_page_fits_a_phone_and_a_tap_clicks(browser: Browser, address: str, size: tuple[int, int]) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)
    page = context.new_page()
    page.goto(address)
    open_sample(page)
    page.touchscreen.tap(*place(page, *OBJECT, size))
    settle(page)
    expect(page.locator(".suggest")).to_be_visible(timeout=PATIENCE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # nor is anything cut off, or wider than what it is in
    right = "parts => Math.max(...parts.map((part) => part.getBoundingClientRect().right))"
    whole = page.locator(".ruac").evaluate("page => page.getBoundingClientRect().right")
    assert page.locator(".ruac button:visible").evaluate_all(right) <= whole + 0.5
    assert page.locator(".ruac td:visible").evaluate_all(right) <= whole - 10
    for name in ("Undo", "Clear", "Take it"):
        area = page.get_by_role("button", name=name).bounding_box()
        assert area is not None
        assert area["height"] >= 44
    context.close()


# ---- many pictures


def test_a_folder_is_labelled_and_reviewed(page: Page) -> None:
    page.get_by_role("tab", name="Label a folder").click()
    expect(page.get_by_label("the folder on the server")).to_be_checked()
    page.get_by_role("button", name="Label", exact=True).click()
    review = page.frame_locator("iframe")
    expect(review.locator("h1")).to_contain_text("Review of", timeout=PATIENCE)
    with page.expect_download(timeout=PATIENCE) as download:
        page.get_by_role("button", name="Download masks").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {"labels.json", "review.html", "review.csv", "masks/left.png", "masks/right.png"} <= set(archive.namelist())
        labels = json.loads(archive.read("labels.json"))
    assert [image["file_name"] for image in labels["images"]] == ["left.png", "right.png"]


def test_uploaded_pictures_are_labelled_as_a_file_says(page: Page, folder: Path) -> None:
    page.get_by_role("tab", name="Label a folder").click()
    page.get_by_label("pictures that I upload").check()
    page.get_by_label("what a file of clicks or boxes says").check()
    inputs = page.locator("input[type=file]:not(.file)")
    expect(inputs).to_have_count(2, timeout=PATIENCE)
    broken = FilePayload(name="broken.png", mimeType="image/png", buffer=(folder / "left.png").read_bytes()[:60])
    left = FilePayload(name="left.png", mimeType="image/png", buffer=(folder / "left.png").read_bytes())
    inputs.first.set_input_files([left, broken])
    told = {name: [{"box": [10, 15, 40, 45], "label": "square"}] for name in ("left.png", "broken.png")}
    inputs.last.set_input_files(FilePayload(name="boxes.json", mimeType="application/json", buffer=json.dumps(told).encode()))
    expect(page.locator(".file-preview")).to_have_count(2, timeout=PATIENCE)
    page.get_by_role("button", name="Label", exact=True).click()
    expect(page.frame_locator("iframe").locator(".card h2")).to_have_text("left.png · square 1", timeout=PATIENCE)
    expect(page.get_by_text("1 of 2 images failed:")).to_be_visible()
    expect(page.locator("li code")).to_contain_text("broken.png: damaged")
    # and once more, with a budget that is none
    page.get_by_label("Masks that a person can look at").fill("many")
    page.get_by_role("button", name="Label", exact=True).click()
    expect(page.get_by_text("--budget many: expected a share of the masks")).to_be_visible(timeout=PATIENCE)


# ---- what the server refuses


def answer_to(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def posted(address: str, path: str, body: bytes, kind: str = "application/json") -> tuple[int, str]:
    return answer_to(urllib.request.Request(address + path, body, {"Content-Type": kind}))


def refused(address: str, path: str, body: bytes, kind: str = "application/json") -> str:
    """The whole answer to a request whose body the server may refuse to read to its end."""
    host, port = address.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head.encode() + body)
        with suppress(ConnectionResetError):
            while piece := connection.recv(2**16):
                answer += piece
    return answer.decode()


def upload_of(name: str, content: bytes) -> tuple[bytes, str]:
    start = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    return start.encode() + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def test_hostile_names_stay_in_the_temporary_folder(address: str, tmp_path: Path) -> None:
    for name in ("../../evil.png", "/etc/evil.png", "..\\..\\evil.png", "a" * 500 + ".png", "%2e%2e%2fevil.png", "-rf"):
        status, text = posted(address, UPLOAD, *upload_of(name, b"x"))
        assert status == 200
        path = Path(json.loads(text)[0])
        assert "ruac-app." in str(path.resolve())
        assert path.is_file()


def test_oversize_requests_are_refused_before_they_are_read(address: str) -> None:
    answer = refused(address, UPLOAD, *upload_of("big.png", bytes(MAX_FILE + 1)))
    assert answer.startswith("HTTP/1.1 413")
    assert "maximum" in answer or "exceeded" in answer
    answer = refused(address, "/gradio_api/component_server/", b"{" + b" " * MAX_REQUEST + b"}")
    assert answer.startswith("HTTP/1.1 413")
    assert answer.endswith("the body is over the limit of 1 MiB")
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"POST {UPLOAD} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 411")


def test_other_sites_cannot_reach_a_page_of_this_machine(address: str) -> None:
    status, text = answer_to(urllib.request.Request(address, headers={"Host": "evil.example"}))
    assert (status, text) == (403, "this page is for this machine alone; start it with --host for others")
    status, _ = answer_to(urllib.request.Request(address, headers={"Host": "[::1"}))
    assert status == 403
    body, kind = upload_of("left.png", b"x")
    there = {"Origin": "http://evil.example", "Content-Type": kind}
    status, text = answer_to(urllib.request.Request(address + UPLOAD, body, there))
    assert (status, text) == (403, "requests from the pages of other sites are refused")


def test_files_of_this_machine_are_not_served(address: str, folder: Path) -> None:
    for path in (folder / "left.png", Path(__file__).resolve(), Path("/etc/passwd")):
        status, _ = answer_to(urllib.request.Request(f"{address}/gradio_api/file={path}"))
        assert status in (403, 404)


def test_the_server_still_serves(page: Page, size: tuple[int, int]) -> None:
    """After all of the above."""
    open_sample(page)
    start = time.monotonic()
    click(page, *OBJECT, size)
    expect(page.locator(".suggest")).to_be_visible()
    assert time.monotonic() - start < 20
