"""The training loop: it learns, resumes exactly, and says what is wrong."""

import csv
import errno
import json
import math
import os
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
from safetensors import SafetensorError
from safetensors.torch import load_file

import ruac.training.checkpoint
import ruac.training.loop
import ruac.training.objective
from ruac.data.folder import Sample
from ruac.data.scenes import SceneConfig
from ruac.errors import WorkError
from ruac.families.nano import NanoConfig
from ruac.features import Prompts
from ruac.loading import load
from ruac.model import RuacConfig, RuacModel
from ruac.training.annotator import simulate
from ruac.training.checkpoint import load_checkpoint
from ruac.training.config import Attacking, Hedge, Stage, TrainConfig
from ruac.training.loop import train


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


ATTACKED = Attacking(begins=0.3)
RUAC = Stage(
    steps=4, image_size=64, images=2, objects=2, rate=2e-3, warmup=0, alignment_weight=0.1, kl_weight=5e-13, attack=ATTACKED
)
AT_ONCE = replace(ATTACKED, begins=0.0)


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
    assert [(int(r[0]), int(r[1])) for r in rows(tmp_path / "broken" / "log.csv")] == [(0, i) for i in range(5)] + [
        (1, i) for i in range(3)
    ]


def test_an_interrupted_run_goes_on_exactly_with_its_attackers(data, start, tmp_path, monkeypatch):
    """Through the step before the attack begins, the first attacked one, and a second stage that the attackers go on into."""
    stage = replace(RUAC, images=4)
    stages = [replace(stage, accumulation=2), replace(stage, steps=2, attack=AT_ONCE)]
    runs = {name: replace(config(data, start, tmp_path / name), stages=stages) for name in ("whole", "broken")}
    whole = load_file(train(runs["whole"]) / "model.safetensors")
    real_step, steps = ruac.training.loop.training_step, []

    def failing_step(*args):
        steps.append(1)
        if len(steps) in (2, 4, 6, 8):
            raise KeyboardInterrupt
        return real_step(*args)

    monkeypatch.setattr(ruac.training.loop, "training_step", failing_step)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            train(runs["broken"])
    resumed = load_file(train(runs["broken"]) / "model.safetensors")
    assert len(steps) == 6 + 4
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    kept = {name: load_checkpoint(run).attack for name, run in runs.items()}
    assert len(kept["whole"]) > 10
    assert all(torch.equal(kept["broken"][name], value) for name, value in kept["whole"].items())
    assert not any("attack" in name for name in whole)


def test_attackers_have_learnt_and_go_on_into_the_next_stage(data, start, tmp_path):
    stage = replace(RUAC, steps=3, attack=AT_ONCE)
    moved = []
    for stages in ([stage], [stage, replace(stage, steps=1, attack=replace(AT_ONCE, rate=0.0))]):
        settings = replace(config(data, start, tmp_path / str(len(stages))), stages=stages)
        train(settings)
        moved.append(load_checkpoint(settings).attack)
    first, second = moved
    assert first["style.propose.0.weight"].ne(0).any()
    assert all(torch.equal(first[name], second[name]) for name in first)


def rows(path: Path) -> list[list[str]]:
    with path.open() as file:
        return list(csv.reader(file))


def test_the_last_step_of_a_stage_is_validated_once(data, start, tmp_path):
    settings = replace(config(data, start, tmp_path / "run"), validate_minutes=0.0, validation_images=2)
    pictures = [path.stem for path in (data / "images").iterdir()]
    if not any(Sample(name, data, data).held_out for name in pictures):
        pytest.fail("the set has no held-out picture")
    train(settings)
    judged = [(int(row[0]), int(row[1])) for row in rows(tmp_path / "run" / "validation.csv")]
    assert judged == [(0, i) for i in range(1, 6)] + [(1, i) for i in range(1, 4)]


@pytest.mark.parametrize(("train_what", "name"), [("all", "attacked_loss1"), ("head", "attacked_rank1")])
def test_a_diverged_run_stops_in_one_line_that_says_where_and_keeps_the_last_good_checkpoint(
    data, start, tmp_path, monkeypatch, train_what, name
):
    settings = replace(config(data, start, tmp_path / "run"), stages=[replace(RUAC, train=train_what, attack=AT_ONCE)])
    real, calls = ruac.training.objective.Objective._attacked, []

    def poisoned(self, pending):
        calls.append(1)
        outcome = real(self, pending)
        bad = {name: outcome.figures[name] * float("nan")} if len(calls) == 3 else {}
        return replace(outcome, figures=outcome.figures | bad)

    monkeypatch.setattr(ruac.training.objective.Objective, "_attacked", poisoned)
    message = (
        rf"diverged in stage 1 at step 2: the loss {name} is nan; learning rates .*; the checkpoint of stage 1, step 2 is kept"
    )
    with pytest.raises(WorkError, match=message) as raised:
        train(settings)
    assert "\n" not in str(raised.value)
    assert load_checkpoint(settings).at.step == 2


def test_a_gradient_that_is_not_finite_is_named_by_branch_and_parameter(data, start, tmp_path, monkeypatch):
    stage = replace(RUAC, steps=2, attack=AT_ONCE)
    settings = replace(config(data, start, tmp_path / "run"), stages=[stage])
    real_step = ruac.training.loop.training_step

    def poisoned(objective, *args):
        figures = real_step(objective, *args)
        objective.attack.style.propose[0].weight.grad[0, 0] = float("inf")
        return figures

    monkeypatch.setattr(ruac.training.loop, "training_step", poisoned)
    message = (
        r"step 0: the gradient of the attackers is not finite, first in attack.style.propose.0.weight.*there is no checkpoint yet"
    )
    with pytest.raises(WorkError, match=message):
        train(settings)


def test_a_full_disk_is_told_in_one_line_and_the_last_good_checkpoint_stays(data, start, tmp_path, monkeypatch):
    settings = config(data, start, tmp_path / "run")
    real_write, writes = ruac.training.checkpoint.write_whole, []

    def full_from_the_third_on(path: Path, content: bytes) -> None:
        writes.append(path.name)
        if len(writes) >= 3:
            path.with_name(f".{path.name}.1.tmp").write_bytes(content[:100])  # what fitted
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real_write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(ruac.training.checkpoint, "write_whole", full_from_the_third_on)
        message = "checkpoint.safetensors: No space left on device; make room and run the same command again, the checkpoint of "
        with pytest.raises(WorkError, match=message + "stage 1, step 2 is kept"):
            train(settings)
    assert load_checkpoint(settings).at.step == 2
    resumed, whole = (load_file(train(run) / "model.safetensors") for run in (settings, config(data, start, tmp_path / "whole")))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_a_model_that_cannot_be_written_is_not_half_there(data, start, tmp_path, monkeypatch):
    settings = replace(config(data, start, tmp_path / "run"), stages=[Stage(steps=1, image_size=64, images=2, objects=2)])

    def full(self, folder, **_):
        Path(folder).mkdir()
        (Path(folder) / "config.json").write_text("{")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(RuacModel, "save_pretrained", full)
        with pytest.raises(WorkError, match=r"model: not written \(.*No space left on device.*run the same command again"):
            train(settings)
    assert not (tmp_path / "run" / "model").exists()
    assert load(train(settings)).side == 64


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_kill_minus_nine_loses_at_most_the_last_interval(data, start, tmp_path):
    """Through the real command: killed once a checkpoint is there, run again, equal to the run that was left alone."""
    settings = tmp_path / "settings.yaml"
    stages = [{"steps": 12, "image_size": 64, "images": 4, "objects": 2, "warmup": 1, "alignment_weight": 0.1, "attack": {}}]
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
def test_the_head_stage_changes_the_spread_and_the_gain_but_no_mask(data, start, tmp_path, pictures):
    settings = config(data, start, tmp_path)
    folder = train(replace(settings, stages=[replace(settings.stages[1], pictures=pictures)]))
    before, after = load(start), load(folder)
    old, new = before.half().state_dict(), after.half().state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert all(name.startswith("head.") for name in changed)
    assert {"head.influence.bias", "head.influence.weight"} <= changed
    before, after = before.float(), after.float()
    features = before.encode(torch.rand(1, 3, 64, 64) * 255, ())
    decoded = before.decode(features, Prompts(torch.tensor([[[[20.0, 30.0]]]]), torch.tensor([[[1]]])))
    torch.testing.assert_close(after(decoded).prompt, before(decoded).prompt, rtol=1e-4, atol=1e-5)
    assert (after(decoded).gain - before(decoded).gain).abs().min() > 1e-5


def test_a_hedged_model_is_written_with_a_share_of_its_deviations_and_the_same_masks(data, start, tmp_path):
    settings = config(data, start, tmp_path)
    settings = replace(settings, stages=[replace(settings.stages[1], pictures="photographs")])
    whole = load(train(settings)).float()
    hedged = load(train(replace(settings, hedge=Hedge(deviations=0.5)))).float()
    features = whole.encode(torch.rand(1, 3, 64, 64) * 255, ())
    decoded = whole.decode(features, Prompts(torch.tensor([[[[20.0, 30.0]]]]), torch.tensor([[[1]]])))
    torch.testing.assert_close(hedged(decoded).variance, whole(decoded).variance / 4, rtol=1e-2, atol=0)
    assert torch.equal(hedged(decoded).mean, whole(decoded).mean)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_a_hedge_is_a_share(share):
    with pytest.raises(ValueError, match=r"hedge\.surroundings: .* share above 0"):
        Hedge(surroundings=share)


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
    factors = [Stage(steps=100, warmup=10).factor(i) for i in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0.05, abs=0.01)


def test_the_simulated_annotator_corrects_the_models_own_answer(start):
    model = load(start)
    truth = torch.zeros(1, 2, 32, 32)
    truth[:, 0, 4:12, 4:12] = 1
    truth[:, 1, 18:30, 16:30] = 1
    features = model.encode(torch.zeros(1, 3, 64, 64), ())
    prompts = simulate(model, features, truth, torch.ones(1, 1, 32, 32), clicks=4, rngs=None)
    assert prompts.mask_logits is not None
    x, y = prompts.points[0, 0, 0].tolist()
    assert (x, y) == (2 * 7 + 0.5, 2 * 7 + 0.5)  # the centre of the square, in input pixels
    for label, (px, py) in zip(prompts.labels[0, 1].tolist(), prompts.points[0, 1].tolist(), strict=True):
        inside = bool(truth[0, 1, int(py) // 2, int(px) // 2])
        assert label == -1 or label == inside
