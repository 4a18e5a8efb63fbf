"""The page in a real browser, as people use it: with a mouse, with the keyboard, on a phone, and two at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from app_pages import OBJECT, PATIENCE, choose, click, mask_of, open_sample, place, png, screen, settle, shown, watched
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from ruac.app.models import Models
from ruac.app.serving import running
from ruac.predictor import Predictor


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(Models(["nano"]), None, "127.0.0.1", 0) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with watched(browser, address) as page:
        yield page


def scaled(layer: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(layer).resize((width, height)))


# ---- clicks


def test_a_click_shows_the_mask_where_it_is(page: Page, sample_predictor: Predictor, sample_size: tuple[int, int]) -> None:
    open_sample(page)
    before = screen(page)
    click(page, *OBJECT, sample_size)
    truth = sample_predictor.predict([OBJECT], [1])
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


def test_the_suggested_click_is_marked_taken_and_undone(
    page: Page, sample_predictor: Predictor, sample_size: tuple[int, int]
) -> None:
    open_sample(page)
    click(page, *OBJECT, sample_size)
    first = sample_predictor.predict([OBJECT], [1])
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
    second = sample_predictor.predict(*words, mask_input=first.low_res_logits[0])
    assert np.array_equal(mask_of(page), second.masks[0])
    expect(page.locator(".status")).to_contain_text("2 clicks")
    page.get_by_role("button", name="Undo").click()
    settle(page)
    assert np.array_equal(mask_of(page), first.masks[0])
    page.get_by_role("button", name="Clear").click()
    settle(page)
    expect(page.locator('.layer[data-layer="mask"]')).to_be_hidden()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


def test_background_by_right_click_and_by_the_switch(
    page: Page, sample_predictor: Predictor, sample_size: tuple[int, int]
) -> None:
    open_sample(page)
    click(page, *OBJECT, sample_size)
    first = sample_predictor.predict([OBJECT], [1])
    second = sample_predictor.predict([OBJECT, (40, 300)], [1, 0], mask_input=first.low_res_logits[0])
    click(page, 40, 300, sample_size, "right")
    assert np.array_equal(mask_of(page), second.masks[0])
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("radio", name="Background").click()
    click(page, 40, 300, sample_size)
    assert np.array_equal(mask_of(page), second.masks[0])


def test_a_box_is_dragged(page: Page, sample_predictor: Predictor, sample_size: tuple[int, int]) -> None:
    open_sample(page)
    page.get_by_role("radio", name="Box").click()
    page.mouse.move(*place(page, 120, 60, sample_size))
    page.mouse.down()
    page.mouse.move(*place(page, 200, 200, sample_size))
    page.mouse.move(*place(page, 400, 420, sample_size))
    page.mouse.up()
    settle(page)
    box = [float(page.locator("svg rect.box:not(.under)").get_attribute(name) or "nan") for name in ("x", "y", "width", "height")]
    corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    assert corners == pytest.approx([120.5, 60.5, 400.5, 420.5], abs=1)
    truth = sample_predictor.predict(box=corners)
    assert (mask_of(page) != truth.masks[0]).mean() < 1e-3


def test_clicks_in_quick_succession_all_count(page: Page, sample_size: tuple[int, int]) -> None:
    open_sample(page)
    for x in (230, 250, 270):
        page.mouse.click(*place(page, x, 230, sample_size))
    expect(page.locator(".status")).to_contain_text("3 clicks", timeout=PATIENCE)
    expect(page.locator("svg circle.plus")).to_have_count(3)


def test_candidates_are_listed_and_chosen(page: Page, sample_predictor: Predictor, sample_size: tuple[int, int]) -> None:
    open_sample(page)
    click(page, *OBJECT, sample_size)
    three = sample_predictor.predict([OBJECT], [1], multimask_output=True)
    cells = page.locator(".masks tbody td").all_text_contents()
    assert [cell for i, cell in enumerate(cells) if i % 4 == 1] == [f"{score:.2f}" for score in three.iou]
    assert [cell for i, cell in enumerate(cells) if i % 4 == 2] == [f"{score:.2f}" for score in three.expected_iou]
    page.get_by_label("Other 2").check()
    settle(page)
    assert np.array_equal(mask_of(page), three.masks[2])


def test_words_are_computed_and_layers_are_switched(
    page: Page, sample_predictor: Predictor, sample_size: tuple[int, int]
) -> None:
    open_sample(page)
    click(page, *OBJECT, sample_size)
    expect(page.locator(".legend tbody tr").last).to_contain_text("pixels here is likely wrong")
    expect(page.locator(".summary")).to_contain_text("of the mask, one in or around it is likely wrong")
    probability = page.locator('.layer[data-layer="probability"]')
    expect(probability).to_be_hidden()
    page.get_by_label("Probability", exact=True).check()
    page.get_by_label("Opacity of Probability").fill("25")
    expect(probability).to_be_visible()
    expect(probability).to_have_css("opacity", "0.25")
    band = shown(page, "band")[..., 3] > 0
    error = sample_predictor.predict([OBJECT], [1]).expected_error[0]
    assert error[band].sum() >= 0.9 * error.sum()
    assert error[band].min() > error[~band].max()


def test_every_layer_is_seen_beside_the_others(page: Page, sample_size: tuple[int, int]) -> None:
    open_sample(page)
    click(page, *OBJECT, sample_size)
    names = "Probability", "Mask", "Uncertainty", "Error band"
    for name in names:
        page.get_by_label(name, exact=True).check()
    for name in names[2:]:
        page.get_by_label(f"Opacity of {name}").fill("100")
    page.add_style_tag(content=".ruac svg { display: none }")
    together = screen(page)
    height, width, _ = together.shape
    # where one layer says something, leaving it out must be seen, whatever lies around it
    says = {
        "Probability": np.ones((height, width), bool),
        "Mask": scaled(mask_of(page), width, height) & (scaled(shown(page, "uncertainty")[..., 3], width, height) < 128),
        "Uncertainty": scaled(shown(page, "uncertainty")[..., 3], width, height) > 128,
        "Error band": scaled(shown(page, "band")[..., 3], width, height) > 128,
    }
    changed = {}
    for name in names:
        page.get_by_label(name, exact=True).uncheck()
        changed[name] = np.abs(screen(page) - together).max(2) > 40
        page.get_by_label(name, exact=True).check()
        assert changed[name][says[name]].mean() > 0.35, name
    doubtful = scaled(shown(page, "uncertainty")[..., 3], width, height) > 200
    assert changed["Error band"][doubtful].mean() > 0.3
    assert changed["Uncertainty"][doubtful].mean() > 0.3


# ---- what goes wrong


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, "a file in this request is forgotten by now: upload it again", "a file in this request is forgotten by now"),
        (413, "the body is over the limit of 1 MiB", "the body is over the limit of 1 MiB"),
        (429, '{"detail": "busy: too many connections; try again"}', "busy: too many connections; try again"),
        (500, "Internal Server Error", "The server could not do that (500); try again"),
        (502, "<html>Bad gateway</html>", "The server could not do that (502); try again"),
        (None, "", "The server did not answer: it may have been stopped, or the network is gone. Try again in a moment"),
    ],
)
def test_a_request_that_fails_is_told_and_the_page_goes_on(
    page: Page, sample_size: tuple[int, int], status: int | None, body: str, words: str
) -> None:
    open_sample(page)
    asked = "**/component_server/**"
    page.route(asked, lambda route: route.fulfill(status=status, body=body) if status else route.abort())
    page.mouse.click(*place(page, *OBJECT, sample_size))
    expect(page.get_by_role("alert")).to_contain_text(words, timeout=PATIENCE)
    page.unroute(asked)
    click(page, *OBJECT, sample_size)
    expect(page.locator(".status")).to_have_text("grace_hopper.jpg: 1 click")
    expect(page.locator(".error")).to_be_hidden()


def test_the_page_says_what_it_is_and_shows_itself_in_no_other(page: Page, address: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("ruac")
    expect(page.get_by_text("Click on an object to get its mask")).to_be_visible()
    headers = page.request.get(address).headers
    assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("SAMEORIGIN", "nosniff")


# ---- people


def test_two_people_do_not_see_each_others_picture(
    browser: Browser, page: Page, address: str, sample_size: tuple[int, int]
) -> None:
    open_sample(page, 0)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    other = context.new_page()
    other.goto(address)
    choose(other, "mine.png", png(Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))))
    expect(other.locator(".photo")).to_be_visible(timeout=PATIENCE)
    settle(other)
    click(page, *OBJECT, sample_size)
    click(other, 60, 40, (120, 90))
    expect(page.locator(".status")).to_have_text("grace_hopper.jpg: 1 click")
    expect(other.locator(".status")).to_have_text("mine.png: 1 click")
    assert mask_of(page).shape == sample_size[::-1]
    assert mask_of(other).shape == (90, 120)
    mine = page.locator(".photo").get_attribute("src")
    assert mine != other.locator(".photo").get_attribute("src")
    click(page, 40, 300, sample_size, "right")
    expect(other.locator("svg circle.minus")).to_have_count(0)
    context.close()


def test_all_works_with_the_keyboard(page: Page, sample_size: tuple[int, int]) -> None:
    page.locator(".samples button").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".photo")).to_be_visible(timeout=PATIENCE)
    settle(page)
    page.locator(".stage").focus()
    page.keyboard.press("ArrowRight")  # the cross appears in the middle
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator(".status")).to_contain_text("1 click", timeout=PATIENCE)
    step = round(max(sample_size) / 100)
    plus = page.locator("svg circle.plus")
    assert float(plus.get_attribute("cx") or 0) == sample_size[0] // 2 + 0.5
    assert float(plus.get_attribute("cy") or 0) == sample_size[1] // 2 - step + 0.5
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


def test_the_page_fits_a_phone_and_a_tap_clicks(browser: Browser, address: str, sample_size: tuple[int, int]) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)
    page = context.new_page()
    page.goto(address)
    open_sample(page)
    page.touchscreen.tap(*place(page, *OBJECT, sample_size))
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
