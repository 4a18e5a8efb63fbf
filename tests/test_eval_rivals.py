"""`ruac eval --rivals` and `--ensemble`: methods of other weights beside the others, on the same masks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import shaken
from squares import write_set

from ruac.adapter import save_head
from ruac.checksums import sha256_of
from ruac.cli import WRONG_USE, main
from ruac.evaluate.command import evaluate
from ruac.evaluate.pool import Pool
from ruac.evaluate.results import Origin, read_results
from ruac.evaluate.shards import main_path
from ruac.loading import load
from ruac.model import RuacModel, weights_sha256
from ruac.report.command import report
from ruac.rivals import store


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "squares", 2)


@pytest.fixture(scope="module")
def other(tiny_model: RuacModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of other weights."""
    folder = tmp_path_factory.mktemp("other")
    model = RuacModel(tiny_model.config)
    shaken(model.sam, seed=3)
    model.save_pretrained(folder)
    return folder


def fitted(folder: Path, model: RuacModel, rate: float) -> Path:
    """Dropout at that rate."""
    return store.write(folder / f"{rate}.safetensors", store.Stored("dropout", {"rate": torch.tensor(rate)}, {}), model)


def summary_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def test_rivals_and_an_ensemble_are_judged_on_the_masks_of_the_model_and_reported(
    data: Path, tiny_model: RuacModel, tiny_model_folder: Path, other: Path, tmp_path: Path
) -> None:
    """Through the real command line; the report tells what they were made of."""
    file, out = fitted(tmp_path, tiny_model, 0.3), tmp_path / "out"
    words = ["eval", "--data", str(data), "--model", str(tiny_model_folder), "--clicks", "1,2"]
    assert main([*words, "--out", str(tmp_path / "without")]) == 0
    assert main([*words, "--out", str(out), "--rivals", str(file), "--ensemble", str(other)]) == 0
    origin = read_results(main_path(out, "squares")).origin
    assert origin["methods"] == ["head", "plain", "dropout", "ensemble"]
    assert origin["rivals"] == {"dropout": sha256_of(file)}
    assert origin["ensemble"] == [weights_sha256(load(other))]
    assert origin["weights"] == weights_sha256(tiny_model)
    measures, before = (summary_of(folder)["sets"][0]["measures"] for folder in (out, tmp_path / "without"))
    assert all(measures[name] == value for name, value in before.items())
    assert len({measures[f"{method}.error_rate.image@2"]["mean"] for method in origin["methods"]}) == 1
    assert len({measures[f"{method}.nll.image@2"]["mean"] for method in origin["methods"]}) == 4
    assert Pool.load(out / "squares.pool.safetensors").methods == ("dropout", "ensemble", "head", "plain")
    costs = summary_of(out)["cost"]["factors"]
    assert costs["ensemble"] > costs["plain"]
    text = (out / "summary.md").read_text()
    assert "| dropout |" in text
    assert "| ensemble |" in text

    report([out], tmp_path / "report")
    page = (tmp_path / "report" / "report.md").read_text()
    assert sha256_of(file) in page
    assert weights_sha256(load(other)) in page
    assert f"--methods head,plain --rivals {file} --ensemble {other} --out" in page


def test_results_of_other_files_are_refused(
    data: Path, tiny_model: RuacModel, tiny_model_folder: Path, other: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def run(rivals: list[Path], ensemble: list[Path]) -> None:
        evaluate([data], str(tiny_model_folder), "1", out=out, max_images=1, rivals=rivals, ensemble=ensemble)

    one, two = (fitted(tmp_path, tiny_model, rate) for rate in (0.3, 0.2))
    head = tmp_path / "head.safetensors"
    save_head(tiny_model, head)
    run([one], [other])
    rows = (out / "squares.jsonl").read_bytes()
    cost = summary_of(out)["cost"]
    run([one], [other])
    assert summary_of(out)["cost"] == cost  # nothing was measured again
    with pytest.raises(ValueError, match=r"another run \(rivals: \{'dropout': '[0-9a-f]{64}'\} there"):
        run([two], [other])
    with pytest.raises(ValueError, match=r"another run \(ensemble: \['[0-9a-f]{64}'\] there, \['[0-9a-f]{64}'\] now\)"):
        run([one], [head])
    with pytest.raises(ValueError, match=r"rivals: .* there, None now"):
        run([], [other])
    assert (out / "squares.jsonl").read_bytes() == rows


def test_results_without_rivals_are_as_they_were_before_there_were_any(tiny_model: RuacModel) -> None:
    plain = Origin("0" * 64, "0.1.0", (1, 3), 10, 0, "point")
    assert not {"rivals", "ensemble"} & plain.as_json().keys()
    assert plain.differences(plain.as_json()) == []
    other = Origin("0" * 64, "0.1.0", (1, 3), 10, 0, "point", rivals={"laplace": "1" * 64})
    assert plain.differences(other.as_json()) == [f"rivals: {{'laplace': '{'1' * 64}'}} there, None now"]
    assert other.differences(plain.as_json()) == [f"rivals: None there, {{'laplace': '{'1' * 64}'}} now"]


def test_what_does_not_fit_the_model_is_one_line(
    data: Path, tiny_model: RuacModel, tiny_model_folder: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, nothing = fitted(tmp_path, tiny_model, 0.3), tmp_path / "nothing.safetensors"
    for model, options, message in (
        (other, ["--rivals", file], f"{file}: fitted to another mask decoder than this model's"),
        (tiny_model_folder, ["--rivals", file, file], "a second file with the method 'dropout'; give one"),
        (tiny_model_folder, ["--rivals", nothing], f"no fitted method at {nothing}"),
        (tiny_model_folder, ["--ensemble", tmp_path / "nowhere"], f"no model at {tmp_path / 'nowhere'}"),
    ):
        words = ["eval", "--data", str(data), "--model", str(model), "--out", str(tmp_path / "out"), *map(str, options)]
        assert main(words) == WRONG_USE
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert message in shown
    assert not (tmp_path / "out").exists()
