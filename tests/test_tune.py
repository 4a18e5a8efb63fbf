"""The search for settings: it finds what is better, stops what is hopeless, and goes on after a kill."""

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from squares import write_set

from ruac.cli import main
from ruac.data.folder import find_sets
from ruac.data.scenes import SceneConfig
from ruac.errors import WorkError
from ruac.evaluate.protocol import Protocol
from ruac.families.nano import NanoConfig
from ruac.model import RuacConfig, RuacModel
from ruac.training import loop, tune
from ruac.training.checkpoint import Position
from ruac.training.config import Attacking, Stage, TrainConfig
from ruac.training.space import RATES, Range, default_space, searched, varied
from ruac.training.trial_score import Score, score, shifted_pictures
from ruac.training.tune import TuneConfig


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    root = tmp_path_factory.mktemp("tune")
    torch.manual_seed(0)
    sam = NanoConfig.of_size(64, width=32).to_dict()
    RuacModel(RuacConfig(sam=sam, head="exact", head_trained=False)).save_pretrained(root / "start")
    return TrainConfig(
        data=[write_set(root / "squares", images=40)],
        out=root / "best",
        start=str(root / "start"),
        image_size=64,
        workers=0,
        validation_images=1,
        checkpoint_minutes=0.0,
        scenes=SceneConfig(smallest=10.0),
        stages=[
            Stage(4, 64, images=2, objects=2, warmup=1),
            Stage(4, 64, images=2, objects=2, warmup=1, train="head", rate=1e-2),
        ],
    )


def small(recipe: TrainConfig, out: Path, **changes: object) -> TuneConfig:
    base = TuneConfig(recipe, out, trials=3, images=2, shifts=1, clicks=[1, 2], max_objects=2, validations=2)
    return replace(base, **changes)  # pyright: ignore[reportArgumentType]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open() as file:
        return list(csv.DictReader(file))


# what is searched


def test_only_settings_that_concern_the_stages_are_searched() -> None:
    plain, head = Stage(1), Stage(1, train="head")
    attacked = Stage(1, attack=Attacking(), alignment_weight=0.1)
    assert set(searched(default_space(), [plain])) == {RATES}
    assert set(searched(default_space(), [plain, head])) == {RATES, "ranking", "harmless", "calibration"}
    assert set(searched(default_space(), [attacked])) == set(default_space()) - {"ranking", "harmless", "calibration"}
    with pytest.raises(ValueError, match="no setting 'steps' to search"):
        searched({"steps": Range(1, 2)}, [plain])
    with pytest.raises(ValueError, match="says nothing about these stages"):
        searched({"ranking": Range(1, 2)}, [plain])
    with pytest.raises(ValueError, match="not from 2 to 1"):
        Range(2, 1)


def test_values_reach_the_stages_they_concern_and_no_other_setting_moves() -> None:
    values = {"attack.weight": 0.4, "attack.rate": 5e-3, "alignment_weight": 0.7, "ranking": 0.3, "harmless": 9.0, RATES: 2.0}
    attacked = Stage(7, attack=Attacking(begins=0.1), alignment_weight=0.1, head_rate=1e-2)
    assert varied(attacked, values) == Stage(
        7,
        attack=Attacking(begins=0.1, weight=0.4, rate=5e-3),
        alignment_weight=0.7,
        rate=2e-3,
        encoder_rate=6e-4,
        head_rate=2e-2,
    )
    assert varied(Stage(7, train="head"), values) == Stage(
        7, train="head", ranking=0.3, harmless=9.0, rate=2e-3, encoder_rate=6e-4
    )


# what makes a trial good


def test_trials_are_judged_on_held_out_pictures_and_their_shifts(recipe: TrainConfig) -> None:
    sets = find_sets(recipe.data)
    held_out = {sample.id for sample in sets[0].samples if sample.held_out}
    pictures = shifted_pictures(sets, images=2, shifts=3, seed=0)
    assert len(pictures) == 8
    assert {picture.id for picture in pictures} <= held_out
    assert len(held_out) >= 2
    again = shifted_pictures(sets, images=2, shifts=3, seed=0)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(pictures, again, strict=True))
    assert len({picture.image.tobytes() for picture in pictures}) == 8
    assert np.array_equal(pictures[0].ids, pictures[1].ids)


def test_the_score_is_the_mean_quality_less_the_risk(tiny_model: RuacModel, recipe: TrainConfig) -> None:
    pictures = shifted_pictures(find_sets(recipe.data), images=2, shifts=1, seed=0)
    found = score(tiny_model, pictures, Protocol((1,), 2))
    assert 0 <= found.j_and_f < 0.9
    assert 0.05 < found.aurc < 1
    assert found.total(2.0) == found.j_and_f - 2 * found.aurc
    empty = [replace(picture, ids=np.zeros_like(picture.ids)) for picture in pictures]
    with pytest.raises(ValueError, match="no object to click on"):
        score(tiny_model, empty, Protocol((1,), 2))


# the search, with a training that takes no time


class FakeTraining:
    """Calls `watch` as the loop does, with a model that is as good as the settings are near to ranking = 0.1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], Exception | KeyboardInterrupt | None]):
        self.configs: list[TrainConfig] = []
        self.steps: list[int] = []
        self.fails = fails
        self.scored: list[float] = []
        monkeypatch.setattr(loop, "train", self.train)
        monkeypatch.setattr(tune, "score", self.score)

    def train(self, config: TrainConfig, variant: object, watch: Callable[..., None]) -> Path:
        self.configs.append(config)
        self.steps.append(0)
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "checkpoint.safetensors").touch()
        for number, stage in enumerate(config.stages):
            for step in range(stage.steps):
                self.steps[-1] += 1
                if error := self.fails(len(self.configs)):
                    raise error
                watch(Position(number, step + 1), lambda: config)
        return config.out / "model"

    def score(self, model: TrainConfig, *_: object) -> object:
        self.scored.append(model.stages[1].ranking)
        miss = abs(np.log10(model.stages[1].ranking) + 1)
        return Score(j_and_f=1 - miss / 10, aurc=miss / 10)


def test_the_search_finds_better_settings_and_stops_hopeless_trials(
    recipe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeTraining(monkeypatch, lambda trial: None)
    config = small(recipe, tmp_path, trials=12, startup=3, space={"ranking": Range(1e-4, 1e2)})
    tune.tune(config)
    found = rows(tmp_path)
    states = [row["state"] for row in found]
    assert len(found) == len(fake.configs) == 12
    assert states[:3] == ["complete"] * 3
    assert states.count("pruned") >= 3
    assert [steps for steps, state in zip(fake.steps, states, strict=True) if state == "pruned"] == [4] * states.count("pruned")
    best = min(abs(np.log10(config.stages[1].ranking) + 1) for config in fake.configs)
    written = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert abs(np.log10(written["stages"][1]["ranking"]) + 1) == pytest.approx(best)
    assert best < 0.4
    assert not list(tmp_path.glob("trials/*/checkpoint.safetensors"))
    assert float(found[0]["value"]) == pytest.approx(float(found[0]["j_and_f"]) - float(found[0]["aurc"]))


def test_an_interrupted_trial_is_taken_up_again_in_its_folder_with_its_settings(
    recipe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeTraining(monkeypatch, lambda trial: KeyboardInterrupt() if trial == 2 else None)
    config = small(recipe, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tune.tune(config)
    assert [row["state"] for row in rows(tmp_path)] == ["complete"]
    tune.tune(config)
    assert len(fake.configs) == 4
    assert fake.configs[2] == fake.configs[1]
    assert len({config.out for config in fake.configs}) == 3
    assert [row["state"] for row in rows(tmp_path)] == ["complete"] * 3
    tune.tune(config)
    assert len(fake.configs) == 4  # all has been done


def test_a_trial_that_diverges_is_a_bad_trial_and_a_search_of_such_is_an_error(
    recipe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTraining(monkeypatch, lambda trial: WorkError("training has diverged") if trial == 1 else None)
    tune.tune(small(recipe, tmp_path / "one"))
    assert [row["state"] for row in rows(tmp_path / "one")] == ["fail", "complete", "complete"]
    FakeTraining(monkeypatch, lambda trial: WorkError("training has diverged"))
    with pytest.raises(WorkError, match="no trial came to its end; the last: training has diverged"):
        tune.tune(small(recipe, tmp_path / "all", trials=1))


def test_wrong_settings_are_named(recipe: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trials: 0; it must be at least 1"):
        small(recipe, tmp_path, trials=0)
    with pytest.raises(ValueError, match="--storage nonsense: cannot be opened"):
        tune.tune(small(recipe, tmp_path, storage="nonsense"))
    assert small(recipe, tmp_path, validations=3).judged_at() == [3, 6, 8]


# with the real training


def test_the_command_trains_trials_and_its_best_recipe_can_be_trained(
    recipe: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "train": {
            "data": [str(folder) for folder in recipe.data],
            "out": str(tmp_path / "best"),
            "start": recipe.start,
            "image_size": 64,
            "workers": 0,
            "scenes": {"smallest": 10.0},
            "stages": [
                {"steps": 2, "image_size": 64, "images": 2, "objects": 2, "warmup": 1, "train": "head", "rate": 1e-2},
            ],
        },
        "out": str(tmp_path / "search"),
        "trials": 2,
        "space": {"ranking": {"low": 0.01, "high": 1.0}},
        "images": 1,
        "shifts": 1,
        "validations": 2,
        "clicks": [1],
        "max_objects": 1,
    }
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(settings))
    assert main(["tune", "--config", str(tmp_path / "tune.yaml")]) == 0
    assert "Best of 2 trials" in capsys.readouterr().out
    assert [row["state"] for row in rows(tmp_path / "search")] == ["complete"] * 2
    best = yaml.safe_load((tmp_path / "search" / "best.yaml").read_text())
    number = max(rows(tmp_path / "search"), key=lambda row: float(row["value"]))
    assert best["stages"][0]["ranking"] == pytest.approx(float(number["ranking"]))
    assert main(["train", "--config", str(tmp_path / "search" / "best.yaml")]) == 0
    assert (tmp_path / "best" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_when_it_is_started_again(recipe: TrainConfig, tmp_path: Path) -> None:
    """Through a process of its own, with short signs of life."""
    code = (
        "import sys; from pathlib import Path; from ruac.training import tune; from ruac.training.config import *;"
        "from ruac.data.scenes import SceneConfig; tune.HEARTBEAT, tune.GRACE = 1, 3;"
        f"recipe = TrainConfig([Path({str(recipe.data[0])!r})], Path('x'), [Stage(12, 64, images=2, objects=2, warmup=1)],"
        f" start={recipe.start!r}, image_size=64, workers=0, checkpoint_minutes=0.0, scenes=SceneConfig(smallest=10.0));"
        f"tune.tune(tune.TuneConfig(recipe, Path({str(tmp_path / 'out')!r}), trials=2, images=1, shifts=0, clicks=[1], validations=1))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "out" / "trials" / "0" / "checkpoint.safetensors"
    while not checkpoint.exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(4)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [row["state"] for row in rows(tmp_path / "out")] == ["complete"] * 2
    assert {path.name for path in (tmp_path / "out" / "trials").iterdir()} == {"0", "2"}
