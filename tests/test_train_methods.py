"""`ruac train --method` for what heads and recipes are compared with: one recipe changed, or a method fitted to a model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from squares import write_set

import ruac.training.loop
from ruac.cli import WRONG_USE, main
from ruac.loading import load
from ruac.model import decoder_sha256
from ruac.rivals.lora import lora
from ruac.training.config import Attacking, MethodConfig, Stage, TrainConfig
from ruac.training.recipes import member, segmentation_alone, with_alignment, with_attack

STAGE = {
    "steps": 3,
    "image_size": 64,
    "images": 2,
    "objects": 2,
    "warmup": 0,
    "alignment_weight": 0.1,
    "kl_weight": 5e-13,
    "attack": {"kind": "cooperative", "begins": 0.0},
}

# two attacked stages, then the head alone
ATTACKED = Stage(
    70, 256, images=4, rate=2e-4, head_rate=1e-3, focal=0.5, attack=Attacking(begins=0.1), alignment_weight=1.0, kl_weight=5e-13
)
STAGES = [ATTACKED, replace(ATTACKED, image_size=512, kl_begins=0.0), Stage(45, 512, train="head", rate=3e-3)]
ROBUST = TrainConfig([Path("data")], Path("run"), STAGES, start="nano", seed=1)
HEAD = replace(ROBUST, stages=STAGES[2:])
PLAIN = replace(ROBUST, stages=[Stage(70, 256, images=4, rate=2e-4, focal=0.5), Stage(70, 512, images=4, rate=2e-4, focal=0.5)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures, of which a few are held out."""
    return write_set(tmp_path_factory.mktemp("methods") / "squares", images=40)


@pytest.fixture
def run(data: Path, tiny_model_folder: Path, tmp_path: Path) -> Path:
    """A recipe of one attacked stage, and one for the head alone."""
    settings = {"data": [str(data)], "out": str(tmp_path / "run"), "start": str(tiny_model_folder), "image_size": 64}
    settings |= {"workers": 0, "validation_images": 1, "scenes": {"smallest": 10.0}, "checkpoint_minutes": 0.0}
    head = {"steps": 1, "image_size": 64, "images": 2, "objects": 1, "train": "head"}
    (tmp_path / "run.yaml").write_text(json.dumps({**settings, "stages": [STAGE, head]}))
    return tmp_path / "run.yaml"


def settings_of(out: Path) -> dict:
    return json.loads((out / "settings.json").read_text())


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said in the one line of a command that is wrong use."""
    capsys.readouterr()
    assert main(words) == WRONG_USE
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    return shown


# recipes, changed


def test_plain_keeps_everything_of_a_recipe_but_its_objective() -> None:
    assert segmentation_alone(ROBUST) == PLAIN
    assert segmentation_alone(PLAIN) == PLAIN
    assert not any(stage.trains_head for stage in PLAIN.stages)


def test_a_recipe_for_heads_alone_has_nothing_to_fine_tune() -> None:
    with pytest.raises(ValueError, match="every stage of this recipe trains the head alone"):
        segmentation_alone(HEAD)


def test_another_attack_keeps_everything_but_its_kind() -> None:
    changed = with_attack(ROBUST, "mixstyle")
    assert [stage.attack and stage.attack.kind for stage in changed.stages] == ["mixstyle", "mixstyle", None]
    assert with_attack(changed, "cooperative") == ROBUST
    assert [stage.attack for stage in with_attack(ROBUST, "none").stages] == [None, None, None]
    with pytest.raises(ValueError, match="--attack pgd: no stage of this recipe attacks"):
        with_attack(PLAIN, "pgd")
    with pytest.raises(ValueError, match="no attack 'pdg'; choose one of none, noise"):
        with_attack(ROBUST, "pdg")


def test_another_alignment_is_set_where_the_uncertainty_learns() -> None:
    for kind in ("paper", "none"):
        changed = with_alignment(ROBUST, kind)
        assert [stage.alignment for stage in changed.stages] == [kind, kind, kind]
        assert with_alignment(changed, "proper") == ROBUST
    with pytest.raises(ValueError, match="--alignment paper: no stage of this recipe trains the uncertainty"):
        with_alignment(PLAIN, "paper")
    unweighted = replace(ROBUST, stages=[replace(ATTACKED, alignment="none", alignment_weight=0.0)])
    with pytest.raises(ValueError, match="this recipe gives it no weight; set alignment_weight"):
        with_alignment(unweighted, "proper")


def test_members_differ_in_seed_and_folder_alone(tmp_path: Path) -> None:
    base = replace(ROBUST, out=tmp_path, seed=5)
    other = member(base, 2)
    assert (other.seed, other.out) == (7, tmp_path / "member-2")
    assert replace(other, seed=5, out=tmp_path) == base


def test_runs_of_different_methods_are_no_continuation_of_each_other() -> None:
    base = PLAIN
    prints = [base.fingerprint(), *(MethodConfig.of(base, lora(rank).name).fingerprint() for rank in (4, 8))]
    assert len(set(prints)) == 3
    again = replace(MethodConfig.of(base, lora(4).name), workers=7)
    assert again.fingerprint() == prints[1]


# through the command line


def test_an_attack_and_an_alignment_of_the_command_line_are_trained_with(run: Path, tmp_path: Path) -> None:
    assert main(["train", "--config", str(run), "--attack", "noise", "--alignment", "paper"]) == 0
    first, head = settings_of(tmp_path / "run")["stages"]
    assert (first["attack"]["kind"], first["attack"]["begins"], first["alignment"]) == ("noise", 0.0, "paper")
    assert (head["attack"], head["alignment"]) == (None, "paper")
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert "attacked_align1" in rows[0]
    assert load(tmp_path / "run" / "model").config.head_trained


def test_plain_trains_masks_alone_and_leaves_the_head(run: Path, tmp_path: Path, tiny_model_folder: Path) -> None:
    assert main(["train", "--method", "plain", "--config", str(run)]) == 0
    (stage,) = settings_of(tmp_path / "run")["stages"]
    assert (stage["attack"], stage["alignment_weight"], stage["kl_weight"], stage["steps"]) == (None, 0, 0, 3)
    old, new = (load(folder).half().state_dict() for folder in (tiny_model_folder, tmp_path / "run" / "model"))
    moved = {name for name in new if not torch.equal(old[name], new[name])}
    assert len(moved) > 20
    assert not any(name.startswith("head.") for name in moved)


def test_a_folder_of_one_method_is_refused_to_another(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--method", "lora", "--rank", "2", "--config", str(run)]) == 0
    assert settings_of(tmp_path / "run")["method"] == "lora of rank 2"
    weights = tmp_path / "run" / "model" / "model.safetensors"
    before = weights.read_bytes()
    for words in (["--method", "lora", "--rank", "3"], ["--method", "plain"], []):
        shown = refused(["train", *words, "--config", str(run)], capsys)
        assert (
            f"{tmp_path / 'run' / 'checkpoint.safetensors'}: belongs to a run with other settings, or of another method" in shown
        )
    assert weights.read_bytes() == before
    assert "the rank of the adapters must be at least 1" in refused(
        ["train", "--method", "lora", "--rank", "0", "--config", str(run)], capsys
    )


def test_an_interrupted_lora_run_ends_as_one_that_was_not(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", "--method", "lora", "--rank", "2", "--config", str(run)]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    real_step, steps = ruac.training.loop.training_step, []

    def failing_step(*arguments):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return real_step(*arguments)

    monkeypatch.setattr(ruac.training.loop, "training_step", failing_step)
    assert main([*words, "--out", str(tmp_path / "broken")]) == 130
    assert main([*words, "--out", str(tmp_path / "broken")]) == 0
    assert len(steps) == 3 + 1
    whole, resumed = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_an_ensemble_is_the_recipe_from_several_seeds(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--method", "ensemble", "--config", str(run), "--members", "2", "--attack", "none", "--seed", "3"]
    assert main(words) == 0
    folders = [tmp_path / "run" / f"member-{number}" for number in range(2)]
    assert sorted((tmp_path / "run").iterdir()) == [*folders, tmp_path / "run" / "model"]
    assert [settings_of(folder)["seed"] for folder in folders] == [3, 4]
    assert [settings_of(folder)["stages"][0]["attack"] for folder in folders] == [None, None]
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in folders)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    both = load_file(tmp_path / "run" / "model" / "model.safetensors")
    for name, value in both.items():
        torch.testing.assert_close(value.float(), (one[name].float() + other[name].float()) / 2, rtol=1e-3, atol=1e-5)
    assert load(tmp_path / "run" / "model").config.head_trained
    assert "--members must be at least 2, not 1" in refused([*words, "--members", "1"], capsys)


@pytest.mark.parametrize("method", ["laplace", "evidential", "dropout"])
def test_a_method_is_fitted_and_judged_beside_the_head(
    method: str, data: Path, tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = str(tiny_model_folder), tmp_path / "fitted"
    words = ["train", "--method", method, "--model", model, "--data", str(data), "--out", str(out)]
    assert main([*words, "--steps", "6", "--images", "2", "--objects", "2", "--weights", '{"squares": 2}']) == 0
    file = out / f"{method}.safetensors"
    assert list(out.iterdir()) == [file]
    assert f"ruac eval --data OTHER_SETS --model {model} --rivals {file}" in capsys.readouterr().out
    with safe_open(file, "pt") as opened:
        facts = opened.metadata()
    assert (facts["method"], facts["decoder"]) == (method, decoder_sha256(load(model)))
    assert np.isfinite(float(facts["loss" if method == "evidential" else "nll"]))


def test_too_few_pictures_to_hold_one_out_is_one_line(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_set(tmp_path / "few", images=3)
    words = [
        "train",
        "--method",
        "dropout",
        "--model",
        str(tiny_model_folder),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
    ]
    assert "none of 3 pictures is held out (one in twenty is, by its name); give more" in refused(words, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["plain", "lora", "ensemble", "laplace", "evidential", "dropout"])
def test_every_method_has_help_with_an_example(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--method", method, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "Example: ruac train --method" in shown
    assert f"usage: ruac train --method {method}" in shown
    assert ("--config" in shown) == (method in ("plain", "lora", "ensemble"))
