"""`ruac train`: a recipe or a head, through the real command; what it writes, what it says, and that a kill costs nothing."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from families import TINY, shaken
from safetensors import safe_open
from safetensors.torch import load_file
from squares import write_set

from ruac.cli import FAILED, WRONG_USE, main
from ruac.features import Prompts
from ruac.heads import PlainHead
from ruac.loading import load
from ruac.model import RuacModel, decoder_sha256

QUICK = ["--steps", "12", "--objects", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "squares", images=6)


@pytest.fixture(scope="module")
def sam2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SAM 2 as transformers saves it, without a head, too sure of its masks."""
    torch.manual_seed(0)
    folder, sam = tmp_path_factory.mktemp("models") / "sam2", shaken(TINY["sam2"]())
    for mlp in sam.mask_decoder.output_hypernetworks_mlps:
        mlp.proj_out.weight *= 30
    sam.save_pretrained(folder)
    return folder


def words(model: Path | str, data: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--method", "head", "--model", str(model), "--data", str(data), "--out", str(out), *more]


def empty_mask() -> bytes:
    return cv2.imencode(".png", np.zeros((40, 56), np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def fitted(data: Path, sam2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fitted")
    assert main(words(sam2, data, out, *QUICK)) == 0
    return out


def test_it_writes_a_head_that_fits_and_a_report(data: Path, sam2: Path, fitted: Path) -> None:
    names = {path.name for path in fitted.iterdir()}
    assert names == {"head.safetensors", "report.md", "report.json", "fit.safetensors", "evaluation"}  # the cache is gone
    assert (fitted / "head.safetensors").stat().st_size < 1_000_000
    model = load(sam2, head=fitted / "head.safetensors")
    assert model.config.head_trained
    with safe_open(fitted / "head.safetensors", "pt") as file:
        assert file.metadata()["decoder"] == decoder_sha256(model)
    features = model.encode(torch.rand(1, 3, 64, 64) * 255, ())
    decoded = model.decode(features, Prompts(torch.tensor([[[[20.0, 30.0]]]]), torch.tensor([[[1]]])))
    found = model(decoded)
    torch.testing.assert_close(found.prompt, PlainHead()(decoded).mean)
    assert found.variance.min() > 0

    report = json.loads((fitted / "report.json").read_text())
    assert report["pictures"] == {"fitted": 3, "watched": 1, "held_out": 2, "without_object": 0, "unreadable": []}
    assert report["fit"]["nll"] < report["fit"]["plain_nll"]
    assert {(change["measure"], change["clicks"]) for change in report["changes"]} == {
        (measure, clicks) for measure in ("auroc", "aupr", "aurc", "ece", "nll") for clicks in (1, 3, 5)
    }
    nll = next(change for change in report["changes"] if (change["measure"], change["clicks"]) == ("nll", 1))
    assert nll["before"] is None
    assert nll["after"]["mean"] - nll["plain"]["mean"] == pytest.approx(nll["difference"]["mean"], abs=1e-9)
    assert nll["difference"]["mean"] < -0.01
    assert nll["verdict"] == "better"
    # a logit of zero but for rounding may change its sign when the gain multiplies it
    assert max(mask["largest"] for mask in report["masks"]) < 1e-3
    assert all(mask["before"] == mask["after"] for mask in report["masks"])
    text = (fitted / "report.md").read_text()
    assert report["verdict"] in text
    assert "No mask changed." in text
    assert "which are too few to prove anything" in text
    assert f"--head {fitted / 'head.safetensors'}" in text


def test_a_finished_run_says_so_and_does_nothing(
    data: Path, sam2: Path, fitted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def untouched(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(RuacModel, "encode", untouched)
    before = (fitted / "report.json").read_bytes()
    assert main(words(sam2, data, fitted, *QUICK)) == 0
    assert "is finished already" in capsys.readouterr().out
    assert (fitted / "report.json").read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused(
    data: Path, sam2: Path, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(sam2, data, fitted, *QUICK, "--rate", "0.01")) == WRONG_USE
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "fit.safetensors: belongs to a fit with other settings, weights or pictures; choose another --out" in shown


def test_it_says_what_it_needs_and_what_it_found(
    data: Path, tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Starts from the model's own head, and keeps the cache."""
    assert main(words(tiny_model_folder, data, tmp_path, *QUICK, "--max-images", "5", "--keep-cache")) == 0
    out = capsys.readouterr().out
    assert "Warning: only 3 pictures to fit on" in out
    size = re.search(r"5 pictures take ([\d.]+) MB more in .*/cache: ([\d.]+) MB each when encoded, ([\d.]+) MB each", out)
    assert size is not None
    assert re.search(r"NLL ↓ @5 +[\d.]+ +[\d.]+ +[\d.]+ ", out)  # plain, before, fitted
    assert f"ruac predict photo.jpg --point 320,240 --model {tiny_model_folder} --head {tmp_path / 'head.safetensors'}" in out
    assert len(list((tmp_path / "cache").glob("answers-*/*.safetensors"))) == 4
    assert len(list((tmp_path / "cache").glob("embeddings-*/*.safetensors"))) == 5 + 1
    assert all(change["before"] is not None for change in json.loads((tmp_path / "report.json").read_text())["changes"])


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_head(data: Path, sam2: Path, tmp_path: Path) -> None:
    """SIGKILL once while the pictures are clicked on, once while the head is fitted; then to the end."""
    more = ["--steps", "400", "--objects", "2"]
    out, state = tmp_path / "killed", tmp_path / "killed" / "fit.safetensors"
    command = [sys.executable, "-m", "ruac", *words(sam2, data, out, *more)]
    for reached in (lambda: len(list(out.glob("cache/answers-*/*.safetensors"))) >= 2, state.exists):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not reached():
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (out / "head.safetensors").exists()
    with safe_open(state, "pt") as file:
        progress = json.loads(file.metadata()["progress"])
    assert 0 < progress["step"] < 400
    assert not progress["finished"]
    made = {path: path.stat().st_mtime_ns for path in out.glob("cache/*/*.safetensors")}
    assert len(made) == 4 + 6 + 1
    assert subprocess.run([*command, "--keep-cache"], capture_output=True).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("cache/*/*.safetensors")} == made

    whole = tmp_path / "whole"
    assert subprocess.run([sys.executable, "-m", "ruac", *words(sam2, data, whole, *more)], capture_output=True).returncode == 0
    killed_head, whole_head = (load_file(folder / "head.safetensors") for folder in (out, whole))
    assert killed_head.keys() == whole_head.keys()
    assert all(torch.equal(killed_head[name], whole_head[name]) for name in whole_head)
    killed_report, whole_report = (json.loads((folder / "report.json").read_text()) for folder in (out, whole))
    assert killed_report == whole_report


def test_unreadable_and_empty_pictures_are_left_out_and_listed(
    sam2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_set(tmp_path / "squares", images=8)  # 0 and 5 are held out, 1 and 7 watched
    (data / "images" / "2.png").write_bytes(b"no picture")
    (data / "images" / "5.png").write_bytes(b"")
    (data / "masks" / "3.png").write_bytes(empty_mask())
    assert main(words(sam2, data, tmp_path / "out", *QUICK)) == FAILED
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "ruac: 2 pictures could not be read:"
    assert {line.split(":")[0] for line in shown[1:]} == {str(data / "images" / "2.png"), str(data / "images" / "5.png")}
    pictures = json.loads((tmp_path / "out" / "report.json").read_text())["pictures"]
    assert (pictures["fitted"], pictures["watched"], pictures["without_object"]) == (2, 2, 1)
    assert len(pictures["unreadable"]) == 2
    assert "2.png" in (tmp_path / "out" / "report.md").read_text()


def test_no_objects_at_all_is_one_line(sam2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_set(tmp_path / "squares", images=5)
    for mask in (data / "masks").iterdir():
        mask.write_bytes(empty_mask())
    assert main(words(sam2, data, tmp_path / "out", *QUICK)) == WRONG_USE
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "--data: of 3 pictures to fit on none can be used: 4 have no object, 0 cannot be read; see `ruac data check`" in shown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "head"], "arguments are required: data, out; see ruac train --help"),
        (["--method", "foot"], "invalid choice: 'foot'"),
        (["--method"], "expected one argument"),
        (["--method", "head", "--config", "a.yaml"], "--config and --method head contradict each other"),
        (["--method", "head", "--config=a.yaml"], "--config and --method head contradict each other"),
        (["--model", "nano"], "say what to train: a recipe with --config FILE, or --method with one of head, laplace"),
        (["--method", "lora", "--out", "y"], "--method lora changes a recipe: name it with --config FILE"),
        (["--method", "laplace", "--config", "a.yaml"], "--config and --method laplace contradict each other"),
        (["--method", "laplace", "--data", "x", "--out", "y", "--steps", "0"], "--steps must be at least 1, not 0"),
        (["--method", "laplace", "--data", "nowhere", "--out", "y"], "nowhere: no data set here"),
        ([], "say what to train"),
        (["--method", "head", "--data", "x", "--out", "y", "--objects", "0"], "--objects must be at least 1, not 0"),
        (["--method", "head", "--data", "x", "--out", "y", "--rate", "0"], "--rate must be more than 0, not 0"),
        (["--method", "head", "--data", "nowhere", "--out", "y"], "nowhere: no data set here"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_use_is_one_line(more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *more]) == WRONG_USE
    shown = capsys.readouterr().err
    assert shown.startswith("ruac: ")
    assert shown.count("\n") == 1
    assert message in shown


def test_wrong_models_are_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path / "nothing", data, tmp_path / "out")) == WRONG_USE
    assert f"no model at {tmp_path / 'nothing'}" in capsys.readouterr().err
    RuacModel.around(shaken(TINY["sam2"]()), head="paper").save_pretrained(tmp_path / "paper")
    assert main(words(tmp_path / "paper", data, tmp_path / "out")) == WRONG_USE
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert f"--model {tmp_path / 'paper'}: its head is of the kind 'paper'" in shown
    assert not (tmp_path / "out").exists()


def test_a_recipe_still_runs(data: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    """With settings on the command line over those of the file."""
    stage = {"steps": 1, "image_size": 64, "images": 2, "objects": 1, "train": "head", "pictures": "photographs"}
    settings = {"data": [str(data)], "out": "nowhere", "start": str(tiny_model_folder), "image_size": 64, "workers": 0}
    (tmp_path / "run.yaml").write_text(json.dumps({**settings, "stages": [stage]}))
    assert main(["train", "--config", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]) == 0
    assert load(tmp_path / "out" / "model").config.head_trained


def test_help_of_both_ways_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--method", "head"]):
        with pytest.raises(SystemExit) as stop:
            main(["train", *more, "--help"])
        assert stop.value.code == 0
        shown = capsys.readouterr().out
        assert "Example: ruac train --method head --model facebook/sam2.1-hiera-small --data my_set" in shown
    assert "--keep-cache" in shown


@pytest.mark.real_data
@pytest.mark.slow
def test_nano_gets_a_head_for_another_domain(real_data: Path, tmp_path: Path) -> None:
    """40 pictures; time of the processor, since others may be using it as well. The head starts from nothing."""
    model = load("nano")
    model.config.head_trained = False
    model.save_pretrained(tmp_path / "untrained")
    data, out = real_data / "calibration" / "clothing", tmp_path / "out"
    assert main(words(tmp_path / "untrained", data, out, "--max-images", "40", "--objects", "2", "--steps", "120")) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["better"]
    by_name = {(change["measure"], change["clicks"]): change for change in report["changes"]}
    assert by_name["aupr", 1]["difference"]["low"] > 0
    assert by_name["auroc", 1]["difference"]["low"] > 0
    # a logit of zero but for rounding may change its sign when the gain multiplies it
    assert max(mask["largest"] for mask in report["masks"]) < 1e-3


def test_help_of_a_part_of_a_recipe_needs_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--stages.help"])
    assert "--stages.kl_weight" in capsys.readouterr().out
