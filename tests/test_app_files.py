"""What goes into the page and comes out of it, in a real browser: uploads, downloads, other models, many pictures at once."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from app_pages import OBJECT, PATIENCE, choose, click, mask_of, open_sample, png, screen, settle, shown, two_pictures, watched
from families import tiny_sam2
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, expect
from pycocotools.coco import COCO

from ruac.app.models import Models
from ruac.app.samples import samples
from ruac.app.serving import MAX_FILE, running
from ruac.predictor import Predictor

HUB = "nobody/no-such-model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures on the server."""
    return two_pictures(tmp_path_factory.mktemp("allowed"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SAM 2 as transformers saves it."""
    path = tmp_path_factory.mktemp("sam2")
    tiny_sam2().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def address(folder: Path, checkpoint: str) -> Iterator[str]:
    # what the hub says to those who cannot reach it, at once
    with pytest.MonkeyPatch.context() as patch, running(Models(["nano", HUB, checkpoint]), folder, "127.0.0.1", 0) as address:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with watched(browser, address) as page:
        yield page


# ---- uploads


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


def test_broken_and_huge_uploads_are_told_and_what_was_open_stays(page: Page, sample_size: tuple[int, int]) -> None:
    open_sample(page)
    click(page, *OBJECT, sample_size)
    before = mask_of(page)
    broken = png(Image.new("RGB", (300, 200), "red"))
    for name, content, message in (
        ("broken.png", broken[: len(broken) // 2], "broken.png: damaged"),
        ("text.png", b"no picture", "text.png: not an image"),
        ("bomb.png", png(Image.new("1", (12000, 12000))), "bomb.png: 12000 x 12000 pixels is over the limit of 50 megapixels"),
    ):
        choose(page, name, content)
        expect(page.get_by_role("alert")).to_contain_text(message, timeout=PATIENCE)
        settle(page)
        expect(page.locator(".status")).to_have_text("grace_hopper.jpg: 1 click")
        assert np.array_equal(mask_of(page), before)
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
    click(page, 40, 300, sample_size, "right")
    expect(page.locator(".status")).to_have_text("grace_hopper.jpg: 2 clicks")
    expect(page.locator(".error")).to_be_hidden()
    open_sample(page, 1)
    expect(page.locator("svg circle.plus")).to_have_count(0)


def test_an_upload_for_which_there_is_no_room_is_told(page: Page) -> None:
    full = "there is no room left: the page keeps 4 GiB of uploads and results; try again in half an hour"
    page.route("**/gradio_api/upload*", lambda route: route.fulfill(status=507, body=full))
    choose(page, "left.png", png(Image.new("RGB", (60, 40))))
    expect(page.get_by_role("alert")).to_contain_text(full, timeout=PATIENCE)
    expect(page.locator(".stage")).to_have_attribute("aria-busy", "false")


# ---- downloads


def test_downloads_open(page: Page, sample_predictor: Predictor, sample_size: tuple[int, int], tmp_path: Path) -> None:
    open_sample(page)
    click(page, *OBJECT, sample_size)
    truth = sample_predictor.predict([OBJECT], [1])
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
    overlay = Image.open(io.BytesIO(files["grace_hopper.overlay.png"]))
    assert min(overlay.size) > 100
    assert json.loads(files["grace_hopper.json"])["prompt"]["points"] == [[*OBJECT, 1]]
    (tmp_path / "coco.json").write_bytes(files["grace_hopper.coco.json"])
    labels = COCO(tmp_path / "coco.json")
    (annotation,) = labels.loadAnns(labels.getAnnIds())
    assert np.array_equal(labels.annToMask(annotation).astype(bool), truth.masks[0])
    assert json.loads(files["grace_hopper.coco.json"])["annotations"][0]["expected_iou"] == pytest.approx(
        truth.expected_iou[0], abs=1e-4
    )


# ---- models


def test_a_hub_out_of_reach_is_told_and_a_model_of_this_disk_answers(
    page: Page, sample_size: tuple[int, int], checkpoint: str
) -> None:
    open_sample(page)
    click(page, *OBJECT, sample_size)
    chooser = page.locator(".model select")
    before = shown(page)
    chooser.select_option(HUB)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(f"no model '{HUB}'", timeout=PATIENCE)
    expect(alert).to_contain_text("start the page with --models and the folder of a model on this disk")
    assert "\n" not in alert.inner_text()
    expect(chooser).to_have_value("nano")
    assert np.array_equal(shown(page), before)

    predictor = Predictor(checkpoint)
    predictor.set_image(samples()[0].path)
    chooser.select_option(checkpoint)
    settle(page)
    expect(alert).to_be_hidden()
    expect(chooser).to_have_value(checkpoint)
    assert np.array_equal(shown(page)[..., 3] > 0, predictor.predict([OBJECT], [1]).masks[0])


# ---- many pictures


def test_a_folder_is_labelled_and_reviewed(page: Page, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Label a folder").click()
    expect(page.get_by_label("the folder on the server")).to_be_checked()
    page.get_by_role("button", name="Label", exact=True).click()
    review = page.frame_locator("iframe")
    expect(review.locator("h1")).to_contain_text("Review of", timeout=PATIENCE)
    with page.expect_download(timeout=PATIENCE) as download:
        page.get_by_role("button", name="Download masks").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {"labels.json", "review.html", "review.csv", "masks/left.png", "masks/right.png"} <= set(archive.namelist())
        archive.extractall(tmp_path)
    labels = COCO(tmp_path / "labels.json")
    pictures = labels.loadImgs(labels.getImgIds())
    assert [image["file_name"] for image in pictures] == ["left.png", "right.png"]
    for image in pictures:
        objects = labels.loadAnns(labels.getAnnIds(image["id"]))
        index = np.asarray(Image.open(tmp_path / "masks" / image["file_name"]))
        assert index.max() == len(objects) > 0
        covered = np.any([labels.annToMask(annotation) for annotation in objects], axis=0)
        assert np.array_equal(index > 0, covered)


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
    expect(page.get_by_text("many: expected a share of the masks")).to_be_visible(timeout=PATIENCE)
