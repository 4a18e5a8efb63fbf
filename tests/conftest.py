"""Fixtures that several files share: a tiny random model, the real data."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

from ruac.app.samples import samples
from ruac.data.image import read_image
from ruac.families.nano import NanoConfig
from ruac.heads import ExactHead
from ruac.model import RuacConfig, RuacModel
from ruac.predictor import Predictor

# a busy machine is no failure
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

REAL_DATA = Path(os.environ.get("RUAC_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tiny_model() -> RuacModel:
    """A nano of 64 px with random weights and the exact head, whose variance differs from pixel to pixel. Not to be changed."""
    torch.manual_seed(0)
    model = RuacModel(RuacConfig(sam=NanoConfig.of_size(64, width=32).to_dict(), head="exact")).eval()
    assert isinstance(model.head, ExactHead)
    torch.nn.init.normal_(model.head.surroundings[-1].weight)
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_model_folder(tiny_model: RuacModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model`, saved."""
    folder = tmp_path_factory.mktemp("tiny_model")
    tiny_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sample_predictor() -> Predictor:
    """The embedded model, with the first sample of `ruac app`."""
    predictor = Predictor("nano")
    predictor.set_image(samples()[0].path)
    return predictor


@pytest.fixture(scope="session")
def sample_size() -> tuple[int, int]:
    """Of the first sample of `ruac app`: width, height."""
    height, width, _ = read_image(samples()[0].path).shape
    return width, height


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with train/, eval/, calibration/ and video/; the test is skipped where it is not."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no data at {REAL_DATA}; set RUAC_DATA")
    return REAL_DATA
