"""The training loop: it learns, resumes exactly, and says what is wrong."""

import csv
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ruac.training.loop
from ruac.data.scenes import SceneConfig
from ruac.families.nano import NanoConfig
from ruac.features import Prompts
from ruac.loading import load
from ruac.model import RuacConfig, RuacModel
from ruac.training.annotator import simulate
from ruac.training.config import Stage, TrainConfig
from ruac.training.loop import rate_factor, train


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("train") / "blocks"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        image, ids = rng.integers(0, 80, (80, 80, 3), np.uint8), np.zeros((80, 80), np.uint8)
        for k in (1, 2):
            x, y = (int(v) for v in rng.integers(0, 50, 2))
            image[y : y + 28, x : x + 28] = rng.integers(150, 255, 3)
            ids[y : y + 28, x : x + 28] = k
        cv2.imwrite(str(root / "images" / f"{i}.png"), image)
        cv2.imwrite(str(root / "masks" / f"{i}.png"), ids)
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("start")
    RuacModel(RuacConfig(sam=NanoConfig.of_size(64, width=32).to_dict(), head="exact")).save_pretrained(folder)
    return str(folder)


def config(data: Path, start: str, out: Path) -> TrainConfig:
    return TrainConfig(
        data=[data],
        out=out,
        start=start,
        image_size=64,
        workers=0,
        checkpoint_minutes=0.0,
        scenes=SceneConfig(smallest=10.0),
        stages=[
            Stage(steps=5, image_size=64, images=4, objects=2, rate=2e-3, encoder_rate=1e-3, warmup=1),
            Stage(steps=3, image_size=64, images=2, objects=2, rate=1e-2, train="head", warmup=1),
        ],
    )


def test_an_interrupted_run_goes_on_exactly_as_if_nothing_had_happened(data, start, tmp_path, monkeypatch):
    whole = load_file(train(config(data, start, tmp_path / "whole")) / "model.safetensors")
    broken = config(data, start, tmp_path / "broken")
    real_step, steps = ruac.training.loop.training_step, []

    def failing_step(*args):
        steps.append(1)
        if len(steps) in (3, 8):  # once in each stage
            raise KeyboardInterrupt
        return real_step(*args)

    monkeypatch.setattr(ruac.training.loop, "training_step", failing_step)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(broken)
    resumed = load_file(train(broken) / "model.safetensors")
    assert len(steps) == 5 + 3 + 2
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    with (tmp_path / "broken" / "log.csv").open() as file:
        assert [(int(r[0]), int(r[1])) for r in csv.reader(file)] == [(0, i) for i in range(5)] + [(1, i) for i in range(3)]


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_kill_minus_nine_loses_at_most_the_last_interval(data, start, tmp_path):
    """Through the real command: killed once a checkpoint is there, run again, equal to the run that was left alone."""
    settings = tmp_path / "settings.yaml"
    stages = [{"steps": 12, "image_size": 64, "images": 4, "objects": 2, "warmup": 1}]
    command = [sys.executable, "-m", "ruac", "train", "--config", str(settings)]

    def write(out: Path) -> None:
        values = {"data": [str(data)], "out": str(out), "start": start, "image_size": 64, "workers": 0, "checkpoint_minutes": 0.0}
        settings.write_text(json.dumps({**values, "stages": stages}))

    write(tmp_path / "whole")
    run(command)
    write(tmp_path / "killed")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "killed" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model").exists()
    run(command)
    whole, killed = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


@pytest.mark.parametrize("pictures", ["scenes", "photographs"])
def test_the_head_stage_changes_the_spread_and_the_sharpness_but_no_mask(data, start, tmp_path, pictures):
    settings = config(data, start, tmp_path)
    folder = train(replace(settings, stages=[replace(settings.stages[1], pictures=pictures)]))
    before, after = load(start), load(folder)
    old, new = before.half().state_dict(), after.half().state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert all(name.startswith("head.") for name in changed)
    assert {
        "head.weight_concentration.bias",
        "head.surroundings.4.bias",
        "head.roughness",
        "head.pixel_residual.weight",
    } <= changed
    residual = new["head.pixel_residual.weight"].float()
    assert torch.equal(residual, residual[0, 0] * torch.eye(len(residual)))
    assert "head.weight_residual.weight" not in changed
    before, after = before.float(), after.float()
    features = before.encode(torch.rand(1, 3, 64, 64) * 255, ())
    decoded = before.decode(features, Prompts(torch.tensor([[[[20.0, 30.0]]]]), torch.tensor([[[1]]])))
    torch.testing.assert_close(after(decoded).mean, (1 + residual[0, 0]) * before(decoded).mean, rtol=1e-4, atol=1e-5)


def test_a_few_steps_on_easy_pictures_lower_the_loss(data, start, tmp_path):
    settings = replace(config(data, start, tmp_path), checkpoint_minutes=9.0)
    easy = SceneConfig(paste=0.0)
    train(replace(settings, scenes=easy, stages=[Stage(40, 64, images=8, objects=2, rate=3e-3, encoder_rate=2e-3, warmup=5)]))
    with (tmp_path / "log.csv").open() as file:
        losses = [json.loads(row[3])["loss1"] for row in csv.reader(file)]
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.2


def test_a_checkpoint_of_another_run_is_refused(data, start, tmp_path):
    settings = config(data, start, tmp_path)
    train(settings)
    with pytest.raises(ValueError, match="other settings"):
        train(replace(settings, seed=1))


def test_rate_warms_up_and_decays_to_a_twentieth():
    stage = Stage(steps=100, warmup=10)
    factors = [rate_factor(i, stage) for i in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0.05, abs=0.01)


def test_the_simulated_annotator_corrects_the_models_own_answer(start):
    model = load(start)
    truth = torch.zeros(1, 2, 32, 32)
    truth[:, 0, 4:12, 4:12] = 1
    truth[:, 1, 18:30, 16:30] = 1
    features = model.encode(torch.zeros(1, 3, 64, 64), ())
    prompts = simulate(model, features, truth, torch.ones(1, 1, 32, 32), clicks=4, rng=None)
    assert prompts.mask_logits is not None
    x, y = prompts.points[0, 0, 0].tolist()
    assert (x, y) == (2 * 7 + 0.5, 2 * 7 + 0.5)  # the centre of the square, in input pixels
    for label, (px, py) in zip(prompts.labels[0, 1].tolist(), prompts.points[0, 1].tolist(), strict=True):
        inside = bool(truth[0, 1, int(py) // 2, int(px) // 2])
        assert label == -1 or label == inside
