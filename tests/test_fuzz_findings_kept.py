"""Files that runs keep to go on with, and fitted methods: changed ones that once ended in something else than a refusal in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_fuzz_findings import DEEP

from ruac.heads import ExactHead
from ruac.model import RuacModel
from ruac.rivals import store
from ruac.rivals.registry import open_rivals
from ruac.training.checkpoint import copied
from ruac.training.fit import Progress, StateFile
from ruac.video.results import PROGRESS, STATE, Results, line_of


@pytest.mark.parametrize(
    ("method", "tensors", "message"),
    [
        ("laplace", {"covarianc": torch.eye(16)}, "without 'covariance'; fit it again"),
        ("laplace", {"covariance": torch.zeros(16)}, r"a posterior of \(16,\) numbers, but this model's has 16 x 16"),
        ("dropout", {"rat": torch.zeros(())}, "without 'rate'; fit it again"),
        ("dropout", {"rate": torch.zeros(2)}, "a rate between 0 and 1 is wanted"),
        ("dropout", {"rate": torch.tensor(torch.nan)}, "a rate between 0 and 1 is wanted"),
        ("evidential", {"other": torch.zeros(2)}, "a head for a decoder of another width"),
    ],
)
def test_a_fitted_method_without_what_it_needs(
    method: str, tensors: dict[str, torch.Tensor], message: str, tiny_model: RuacModel, tmp_path: Path
) -> None:
    file = store.write(tmp_path / "rival.safetensors", store.Stored(method, tensors, {}), tiny_model)
    with pytest.raises(ValueError, match=rf"rival\.safetensors: .*{message}"):
        open_rivals(tiny_model, [file])


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("head.roughness"),
        lambda tensors: tensors.pop("best.roughness"),
        lambda tensors: tensors.update({"head.more": torch.zeros(1)}),
        lambda tensors: tensors.update({"elsewhere": torch.zeros(1)}),
        lambda tensors: tensors.update({"optimizer.exp_avg/nobody": torch.zeros(1)}),
        lambda tensors: tensors.update({"optimizer.exp_avg/roughness": torch.zeros(3)}),
    ],
)
def test_a_state_of_a_fit_that_is_not_of_this_head(change: Callable[[Any], object], tmp_path: Path) -> None:
    head = ExactHead(4, 32)
    optimizer = torch.optim.AdamW(head.parameters())
    state = StateFile(tmp_path / "fit.safetensors", "f")
    state.write(Progress(3, 0.5, 0.6, 2), head, copied(head.state_dict()), optimizer)
    assert state.load(head, optimizer).keys() == head.state_dict().keys()
    tensors = load_file(state.path)
    change(tensors)
    save_file(tensors, state.path)
    with pytest.raises(ValueError, match=r"fit\.safetensors: .*; choose another --out, or remove this file to start again"):
        state.load(head, optimizer)


def test_progress_of_a_fit_that_never_ends(tmp_path: Path) -> None:
    save_file({}, tmp_path / "fit.safetensors", metadata={"fingerprint": "f", "progress": DEEP})
    with pytest.raises(ValueError, match=r"fit\.safetensors: .*; choose another --out"):
        StateFile(tmp_path / "fit.safetensors", "f").progress()


@pytest.mark.parametrize("name", [STATE, PROGRESS])
def test_a_state_of_a_video_that_was_changed(name: str, tmp_path: Path) -> None:
    results = Results.open(tmp_path, {"frames": 2})
    (tmp_path / PROGRESS).write_text(line_of({"frame": 0}) + line_of({"frame": 1}))
    results.save_state(1, {"memory": torch.zeros(2, 3)}, {"told": [[0, 1]]})
    content = (tmp_path / name).read_bytes()
    for change in (content.replace(b"0", b"1", 1), content[:-1] + b"\1" if name == STATE else b"[3]" + content):
        (tmp_path / name).write_bytes(change)
        with pytest.raises(ValueError, match=rf"{STATE}: damaged; remove it, and the video is begun anew"):
            results.load_state()
    (tmp_path / name).write_bytes(content)
    records, tensors, values = results.load_state() or ([], {}, {})
    assert (records, values, tensors["memory"].shape) == ([{"frame": 0}], {"told": [[0, 1]]}, (2, 3))


def test_settings_of_a_video_that_never_end(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(DEEP)
    with pytest.raises(ValueError, match=r"settings\.json: damaged"):
        Results.open(tmp_path, {"frames": 2})
