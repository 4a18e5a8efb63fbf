"""Models by the hub's names: from the hub, from what was fetched before, or a line that says why not."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from families import TINY, shaken
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from test_loading import same_tensors

from ruac import loading
from ruac.loading import load


@pytest.fixture(scope="module")
def sam() -> Any:
    torch.manual_seed(0)
    return shaken(TINY["sam2"]())


def test_hub_ids_go_through_the_hub(sam, tmp_path, monkeypatch):
    """Without a network: the hub's own client, replaced by a folder."""
    sam.save_pretrained(tmp_path)
    monkeypatch.setattr(loading, "_hub_answers", lambda: True)
    monkeypatch.setattr(loading, "hf_hub_download", lambda name, file, local_files_only: str(tmp_path / file))
    asked = []
    whole = type(sam).from_pretrained

    def from_hub(name, **arguments):
        asked.append(name)
        return whole(tmp_path, **arguments)

    monkeypatch.setattr(type(sam), "from_pretrained", from_hub)
    with pytest.warns(UserWarning, match="'facebook/some-sam' is not trained"):
        model = load("facebook/some-sam")
    assert asked == ["facebook/some-sam"]
    assert same_tensors(model.sam, sam)


def test_a_hub_id_without_a_network_is_a_line(monkeypatch):
    def offline(name, file, local_files_only):
        raise LocalEntryNotFoundError("cannot reach the hub\nand more")

    monkeypatch.setattr(loading, "hf_hub_download", offline)
    monkeypatch.setattr(loading, "_hub_answers", lambda: True)
    with pytest.raises(FileNotFoundError, match="no model 'facebook/sam2': no such folder, and the hub has none for us"):
        load("facebook/sam2")


def test_without_a_way_to_the_hub_what_was_fetched_before_is_taken(sam, tmp_path, monkeypatch):
    """In the layout of the hub's own cache; the address is one where nobody listens."""
    snapshot = tmp_path / "models--facebook--some-sam" / "snapshots" / ("0" * 40)
    sam.save_pretrained(snapshot)
    (tmp_path / "models--facebook--some-sam" / "refs").mkdir()
    (tmp_path / "models--facebook--some-sam" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    with pytest.warns(UserWarning, match="'facebook/some-sam' is not trained"):
        model = load("facebook/some-sam")
    assert same_tensors(model.sam, sam)
    begin = time.monotonic()
    with pytest.raises(
        FileNotFoundError, match=r"no model 'runs/mine': .* \(it cannot be reached, nor was this model fetched before\)"
    ):
        load("runs/mine")
    assert time.monotonic() - begin < 15  # the hub's client alone would go on for longer


def test_original_weights_on_the_hub_need_no_configuration(tmp_path, monkeypatch):
    converted = object()

    def download(name, file, local_files_only):
        if file == "config.json":
            raise EntryNotFoundError("no such file")
        return str(tmp_path / file)

    monkeypatch.setattr(loading, "_hub_answers", lambda: True)
    monkeypatch.setattr(loading, "hf_hub_download", download)
    monkeypatch.setattr(loading, "_from_official", lambda file: (converted, file))
    assert loading._read("HongyouZhou/ruac-sam2.1-hiera-bplus") == (converted, tmp_path / "model.safetensors")
