"""The review page in a real browser, from disk, as a person uses it."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from ruac.calibrate.shift import Traits
from ruac.data.labels import encode
from ruac.label.budget import Budget, plan
from ruac.label.part import Label, Part, open_folder
from ruac.label.review import PAGE, Item, queue, review_csv, review_html, with_thumbnails

HOSTILE = "=<script>document.title='owned'</script>\"'&amp;</script>"
PIXEL = "UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAgA0JaQAA3AA/vuUAAA="
IMAGES = 30


def label_of(number: int) -> Label:
    mask = np.zeros((40, 60), bool)
    mask[5 : 10 + number % 20, 5:30] = True
    return Label(
        category=1 + number % 2,
        counts=encode(mask)["counts"].decode(),
        bbox=(5, 5, 25, 5 + number % 20),
        area=int(mask.sum()),
        score=0.9,
        expected_iou=0.4 + number / 100,
        mean_uncertainty=0.1,
        object_score=0.9,
        next_click=(3, 4, 1),
        thumbnail=PIXEL,
    )


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """30 masks, the first of an image with a hostile name, 6 of them for review."""
    folder = open_folder(tmp_path / "out", {})
    parts = []
    for number in range(IMAGES):
        part = Part(f"{number}", "", f"{number or HOSTILE}.jpg", 40, 60, (label_of(number),), Traits((), ()))
        folder.save(part)
        parts.append(part)
    chosen = plan([part.labels[0].expected_iou for part in parts], Budget(20, percent=True))
    queued = queue([part.without_thumbnails() for part in parts], {1: HOSTILE, 2: "dog"}, chosen)
    assert not any(item.thumbnail for item in queued)
    shown = with_thumbnails(queued, parts, folder)
    (tmp_path / "review.html").write_bytes(review_html(shown, chosen, IMAGES, [HOSTILE, "dog"], "run"))
    return shown


@pytest.fixture
def page(browser: Browser, items: list[Item], tmp_path: Path) -> Iterator[Page]:
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else problems.append(request.url)
    )
    page.goto((tmp_path / "review.html").as_uri())
    yield page
    context.close()
    assert problems == []


def states(page: Page) -> list[str]:
    return [
        "accepted" if "accepted" in names else "rejected" if "rejected" in names else ""
        for names in (card.get_attribute("class") or "" for card in page.locator(".card").all())
    ]


def downloaded(page: Page, button: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return Path(download.value.path()).read_text()


def test_names_stay_text_and_the_worst_masks_for_review_come_first(page: Page) -> None:
    assert page.title() == f"Review of {IMAGES} masks"
    expect(page.locator(".card")).to_have_count(6)
    first = page.locator(".card").first
    expect(first.locator("h2")).to_have_text(f"{HOSTILE}.jpg · {HOSTILE} 1")
    assert [float(text) for text in page.locator(".meter strong").all_text_contents()] == [0.4, 0.41, 0.42, 0.43, 0.44, 0.45]
    assert page.locator("img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1


def test_keys_decide_and_move_on_and_decisions_outlive_the_page(page: Page) -> None:
    page.keyboard.press("ArrowRight")
    for key in ("a", "r", "a", "ArrowLeft", "u"):
        page.keyboard.press(key)
    assert states(page) == ["accepted", "rejected", "", "", "", ""]
    expect(page.locator("#count")).to_have_text("2 of 6 for review decided")
    expect(page.locator(".state").first).to_have_text("✓ accepted")
    page.reload()
    assert states(page) == ["accepted", "rejected", "", "", "", ""]
    expect(page.locator("#count")).to_have_text("2 of 6 for review decided")


def test_buttons_decide_and_undo(page: Page) -> None:
    reject = page.locator(".card").nth(1).get_by_role("button", name="Reject")
    reject.click()
    assert states(page)[1] == "rejected"
    expect(reject).to_have_attribute("aria-pressed", "true")
    reject.click()
    assert states(page)[1] == ""


def test_filters_by_state_label_score_and_text(page: Page) -> None:
    page.get_by_label("Show").select_option("all")
    expect(page.locator("#found")).to_have_text(f"{IMAGES} of {IMAGES} masks, the worst first; here 1 to {PAGE}.")
    page.locator("#category").select_option("dog")
    expect(page.locator(".card")).to_have_count(15)
    page.get_by_label("Expected IoU to").fill("0.5")
    expect(page.locator(".card")).to_have_count(5)
    page.get_by_label("Expected IoU from").fill("0.45")
    expect(page.locator(".card")).to_have_count(3)
    page.get_by_label("Search").fill("7.JPG")
    expect(page.locator(".card h2")).to_have_text("7.jpg · dog 1")
    page.get_by_label("Search").fill("no such thing")
    expect(page.locator("#found")).to_contain_text("None of the 30 masks fits")
    page.get_by_label("Search").fill("")
    page.locator(".card").first.get_by_role("button", name="Accept").click()
    page.get_by_label("Show").select_option("accepted")
    expect(page.locator(".card")).to_have_count(1)


def test_pages_turn_by_button_and_key_and_hold_only_what_is_shown(page: Page) -> None:
    page.get_by_label("Show").select_option("all")
    expect(page.locator("img")).to_have_count(PAGE)
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".card")).to_have_count(IMAGES - PAGE)
    expect(page.locator("#where")).to_have_text("Page 2 of 2")
    page.keyboard.press("p")
    expect(page.locator("#where")).to_have_text("Page 1 of 2")
    page.locator(".card").last.focus()
    page.keyboard.press("a")
    expect(page.locator("#where")).to_have_text("Page 2 of 2")


def test_typing_in_the_search_decides_nothing(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("ar")
    expect(page.get_by_label("Search")).to_have_value("ar")
    page.get_by_label("Search").fill("")
    assert set(states(page)) == {""}


def test_decisions_are_exported_as_json_and_csv(page: Page, items: list[Item]) -> None:
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    page.keyboard.press("a")
    rows = json.loads(downloaded(page, "Export JSON"))
    assert [(row["annotation"], row["decision"]) for row in rows] == [(1, "rejected"), (2, "accepted")]
    assert rows[0]["image"] == items[0].image
    assert rows[0]["expected_iou"] == pytest.approx(0.4)
    table = list(csv.DictReader(io.StringIO(downloaded(page, "Export CSV"))))
    assert [(row["annotation"], row["decision"]) for row in table] == [("1", "rejected"), ("2", "accepted")]
    # what a spreadsheet would run is text
    assert table[0]["image"] == f"'{items[0].image}"


def test_the_page_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".card").first.get_by_role("button", name="Accept").bounding_box()["height"] >= 44  # pyright: ignore


def test_the_page_names_nothing_outside_itself(items: list[Item], tmp_path: Path) -> None:
    content = (tmp_path / "review.html").read_text()
    assert not re.findall(r"https?://", content)
    assert content.count("<script") == 2
    assert "<script>document" not in content


def test_the_table_has_every_mask_and_no_formula(items: list[Item]) -> None:
    rows = list(csv.DictReader(io.StringIO(review_csv(items).decode())))
    assert [int(row["rank"]) for row in rows] == list(range(1, IMAGES + 1))
    assert rows[0]["image"] == f"'{HOSTILE}.jpg"
    assert [row["review"] for row in rows].count("yes") == 6


def test_a_warning_and_a_guarantee_stand_on_the_page_as_text(browser: Browser, items: list[Item], tmp_path: Path) -> None:
    chosen = plan([0.5] * IMAGES, Budget(20, percent=True))
    path = tmp_path / "calibrated.html"
    path.write_bytes(review_html(items, chosen, IMAGES, [HOSTILE, "dog"], "run", "A promise <b>.", f"Unlike {HOSTILE}"))
    page = browser.new_page()
    page.goto(path.as_uri())
    expect(page.get_by_role("alert")).to_have_text(f"Warning: Unlike {HOSTILE}.")
    expect(page.locator("header > *").first).to_have_id("warning")
    expect(page.get_by_text("inner mask, ")).to_contain_text("outer mask. A promise <b>.")
    assert page.locator(".line").count() == 2
    assert page.title() == f"Review of {IMAGES} masks"
    page.close()
