"""`ruac doctor` finds what is wrong, and says what to do."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from ruac import doctor
from ruac.cli import main
from ruac.model import RuacModel


def states(text: str) -> dict[str, str]:
    """About what, and in which state."""
    return {line.split()[1]: line.split()[0] for line in text.splitlines()}


def test_all_is_well_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUAC_DATA", raising=False)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    found = states(out)
    assert "broken" not in found.values()
    assert {"python", "torch", "transformers", "devices", "model", "click", "[app]", "[serve]"} <= set(found)
    assert f"torch                   {version('torch')}" in out
    assert "checksums right" in out
    assert found["RUAC_DATA"] == "missing"


def test_a_flipped_bit_of_a_model_is_found(tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in tiny_model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert main(["doctor", "--model", str(tmp_path)]) == 0
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    capsys.readouterr()
    assert main(["doctor", "--model", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert states(said.out)["model"] == "broken"
    assert "model.safetensors: changed since it was written" in said.out
    assert said.err == "ruac: broken: model\n"


@pytest.mark.parametrize("option", ["--model=no/such/model", "--device=nonsense"])
def test_what_is_not_there_is_broken(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", option]) == 1
    assert states(capsys.readouterr().out)["model"] == "broken"


def test_a_calibration_of_other_weights_is_broken(tiny_model_folder: Path, tmp_path: Path) -> None:
    for file in tiny_model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "calibration.json").write_text(json.dumps({"model_sha256": "of another"}))
    (*_, last) = doctor.model_and_click(str(tmp_path), "cpu")
    assert last.state == "broken"
    assert "calibration.json" in last.words


def test_a_model_that_computes_nonsense_is_broken(tiny_model: RuacModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.click(tiny_model, 0.0).state == "ok"
    assert doctor.click(tiny_model, 0.99).state == "broken"  # random weights know no square
    entropy = "ruac.distribution.MaskDistribution.entropy"
    monkeypatch.setattr(entropy, lambda self: torch.full_like(self.mean, torch.nan))
    assert doctor.click(tiny_model, 0.0).state == "broken"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("nowhere-to-be-found>=1", "nowhere-to-be-found is not installed: pip install 'nowhere-to-be-found>=1'"),
        ("numpy>=1000", f"numpy {version('numpy')} is not >=1000: pip install 'numpy>=1000'"),
    ],
)
def test_a_package_that_is_missing_or_too_old_is_named_with_its_remedy(wanted: str, words: str) -> None:
    assert doctor.package(Requirement(wanted)) == doctor.Finding(Requirement(wanted).name, "broken", words)


def test_a_package_that_cannot_be_imported_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise OSError('librich.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    found = doctor.package(Requirement("rich>=13"))
    assert found.state == "broken"
    assert "librich.so" in found.words
    assert "--force-reinstall 'rich>=13'" in found.words


def test_an_extra_that_is_missing_comes_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["rich>=13", "absent-one>=2; extra == 'new'", "rich; extra == 'old'"])
    assert doctor.extra("new") == doctor.Finding("[new]", "missing", "absent-one is not installed: pip install 'ruac[new]'")
    assert doctor.extra("old") == doctor.Finding("[old]", "ok", f"rich {version('rich')}")


def test_the_data_folder(tmp_path: Path) -> None:
    assert doctor.data_folder(None).state == "missing"
    assert doctor.data_folder(str(tmp_path / "absent")).state == "broken"
    for name in ("a", "b"):
        (tmp_path / "eval" / name / "images").mkdir(parents=True)
    assert doctor.data_folder(str(tmp_path)) == doctor.Finding("RUAC_DATA", "ok", f"{tmp_path}: eval (2 sets)")
