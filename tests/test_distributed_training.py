"""Training on two processes is training on one: the same pictures, the same gradient, the same model."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_recipes import write_videos

from ruac.data.scenes import SceneConfig
from ruac.families.nano import NanoConfig
from ruac.model import RuacConfig, RuacModel
from ruac.training.checkpoint import load_checkpoint
from ruac.training.config import Attacking, Stage, TrainConfig
from ruac.training.loop import train

# deformations draw nothing at random, so that the attackers of two processes propose what those of one do
STAGE = Stage(
    steps=4,
    image_size=64,
    images=4,
    objects=2,
    rate=1e-3,
    warmup=1,
    alignment_weight=0.1,
    kl_weight=5e-13,
    attack=Attacking(kind="deformation", begins=0.4, rate=1e-3),
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> TrainConfig:
    root = tmp_path_factory.mktemp("distributed")
    torch.manual_seed(0)
    RuacModel(RuacConfig(sam=NanoConfig.of_size(64, width=32).to_dict(), head="exact")).save_pretrained(root / "start")
    return TrainConfig(
        data=[write_videos(root / "videos")],
        out=root / "one",
        stages=[STAGE],
        start=str(root / "start"),
        image_size=64,
        scenes=SceneConfig(smallest=10.0),
        workers=0,
        ema=0.0,
    )


def launch(config: TrainConfig, launcher: list[str]) -> None:
    """The command as it is documented, on the CPU, whose back end is gloo."""
    file = config.out.with_suffix(".yaml")
    stages = [
        {
            **{k: v for k, v in vars(stage).items() if k != "attack"},
            "attack": None if stage.attack is None else vars(stage.attack),
        }
        for stage in config.stages
    ]
    values = {
        **vars(config),
        "stages": stages,
        "scenes": vars(config.scenes),
        "hedge": vars(config.hedge),
        "data": [str(path) for path in config.data],
    }
    file.write_text(json.dumps({**values, "out": str(config.out)}))
    command = [sys.executable, "-m", *launcher, "-m", "ruac", "train", "--config", str(file)]
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HOME": str(config.out.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def difference(a: TrainConfig, b: TrainConfig) -> float:
    """The largest one between the weights of two runs, model and attackers, in full precision."""
    first, second = load_checkpoint(a), load_checkpoint(b)
    assert first is not None
    assert second is not None
    pairs = [
        (one[name], other[name]) for one, other in ((first.model, second.model), (first.attack, second.attack)) for name in one
    ]
    assert len(first.attack) > 3
    return max(float((x - y).abs().max()) for x, y in pairs if x.is_floating_point())


ACCELERATE = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
TORCHRUN = ["torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [ACCELERATE, TORCHRUN], ids=["accelerate", "torchrun"])
def test_two_processes_train_the_model_that_one_does(settings, tmp_path, launcher):
    train(settings)
    two = replace(settings, out=tmp_path / "two")
    launch(two, launcher)
    start = load_file(Path(str(settings.start)) / "model.safetensors")
    trained = load_checkpoint(settings)
    assert trained is not None
    assert max(float((trained.model[name] - value).abs().max()) for name, value in start.items()) > 1e-3
    assert difference(settings, two) < 1e-4
    assert len((two.out / "log.csv").read_text().splitlines()) == STAGE.steps


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_with_two(settings, tmp_path, monkeypatch):
    """Stopped in the middle of the attacked part, with the moments of both optimiser groups."""
    import ruac.training.loop

    train(settings)
    other = replace(settings, out=tmp_path / "other", checkpoint_minutes=0.0)
    real_step, steps = ruac.training.loop.training_step, []

    def failing_step(*args):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return real_step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(ruac.training.loop, "training_step", failing_step)
        with pytest.raises(KeyboardInterrupt):
            train(other)
    launch(replace(other, stages=[replace(STAGE, accumulation=2)]), TORCHRUN)
    assert difference(settings, other) < 1e-4


def test_passes_of_fewer_pictures_train_the_same_model(settings, tmp_path):
    train(settings)
    others = replace(settings, out=tmp_path / "passes", stages=[replace(STAGE, accumulation=2)])
    train(others)
    assert difference(settings, others) < 1e-4
