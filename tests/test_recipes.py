"""The recipes in configs/: each is read as `ruac train` reads it, and runs, cut down to two steps of a tiny random model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from families import TINY, shaken, tiny_nano
from jsonargparse import ArgumentParser
from PIL import Image

from ruac.data.folder import IGNORE
from ruac.loading import load, read
from ruac.model import RuacModel
from ruac.training.config import TrainConfig
from ruac.training.loop import train
from ruac.training.sources import TrainingPool, open_sources

CONFIGS = Path(__file__).parents[1] / "configs"
FAMILIES = {"nano": tiny_nano, "sam2": TINY["sam2"], "sam3_tracker": TINY["sam3_tracker"], "sam": TINY["sam"]}
# recipe: family of the tiny model
RECIPES = {
    "nano-plain": "nano",
    "nano-ruac": "nano",
    "sam2.1-bplus-mose": "sam2",
    "sam2.1-tiny": "sam2",
    "sam3-tracker": "sam3_tracker",
}


def recipe(name: str) -> TrainConfig:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(TrainConfig)
    values = parser.instantiate(parser.parse_args(["--config", str(CONFIGS / f"{name}.yaml")])).as_dict()
    return TrainConfig(**{key: value for key, value in values.items() if key != "config"})


def save_start(family: str, folder: Path) -> Path:
    torch.manual_seed(0)
    model = FAMILIES[family]()
    RuacModel.around(model if family == "nano" else shaken(model)).save_pretrained(folder)
    return folder


def write_videos(root: Path, clips: int = 3, frames: int = 2) -> Path:
    """As DAVIS and MOSE lie: indexed pictures whose colours are not their numbers."""
    rng = np.random.default_rng(0)
    for clip in range(clips):
        for folder in ("JPEGImages", "Annotations"):
            (root / folder / f"clip{clip}").mkdir(parents=True)
        for frame in range(frames):
            ids = np.zeros((60, 90), np.uint8)
            ids[5 + frame : 30, 10:40], ids[25:55, 50:85] = 1, 2
            ids[:, -4:] = IGNORE
            image = rng.integers(0, 100, (60, 90, 3)) + 60 * (ids[..., None] % 3)
            Image.fromarray(image.astype(np.uint8)).save(root / "JPEGImages" / f"clip{clip}" / f"{frame:05d}.jpg")
            mask = Image.fromarray(ids)
            mask.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
            mask.save(root / "Annotations" / f"clip{clip}" / f"{frame:05d}.png")
    return root


def cut_down(config: TrainConfig, start: Path, data: Path, out: Path) -> TrainConfig:
    side = read(start).side
    stages = [
        replace(stage, steps=2, image_size=side, images=2 * stage.accumulation, objects=2, warmup=0) for stage in config.stages
    ]
    weights = replace(config.scenes, weights={}, smallest=10.0)
    return replace(
        config,
        data=[data],
        out=out,
        start=str(start),
        image_size=side,
        stages=stages,
        scenes=weights,
        workers=0,
        validation_images=1,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_runs(name, tmp_path):
    config = recipe(name)
    small = cut_down(config, save_start(RECIPES[name], tmp_path / "start"), write_videos(tmp_path / "videos"), tmp_path / "run")
    before, after = load(tmp_path / "start").half(), load(train(small)).half()
    rows = [row.split(",", 3) for row in (tmp_path / "run" / "log.csv").read_text().splitlines()]
    assert [(int(stage), int(step)) for stage, step, *_ in rows] == [(i, j) for i in range(len(small.stages)) for j in range(2)]
    for number, stage in enumerate(config.stages):
        figures = json.loads(rows[2 * number + 1][3].strip('"').replace('""', '"'))
        assert any(name.startswith("attacked_") for name in figures) == (stage.attack is not None)
    old, new = before.state_dict(), after.state_dict()
    moved = {name for name in new if name not in old or not torch.equal(old[name], new[name])}
    only_head = all(stage.train == "head" for stage in config.stages)
    assert all(name.startswith("head.") for name in moved) == only_head
    assert any(name.startswith("head.") for name in moved) == any(stage.trains_head for stage in config.stages)
    frozen = all(stage.train != "all" for stage in config.stages)
    assert not (frozen and any(name.startswith("sam.vision_encoder.") for name in moved))
    assert after.config.head == (config.head or "exact")


def test_every_recipe_is_tested_or_starts_from_nothing():
    assert {file.stem for file in CONFIGS.glob("*.yaml")} - set(RECIPES) <= {"nano"}
    assert recipe("nano").start is None


def test_the_robust_recipe_goes_on_from_the_plain_one_and_leaves_its_masks():
    plain, robust = recipe("nano-plain"), recipe("nano-ruac")
    kept = ("data", "seed", "image_size", "scenes", "weight_decay", "clip", "ema")
    assert all(getattr(plain, name) == getattr(robust, name) for name in kept)
    assert robust.start == str(plain.out / "model")
    assert not any(stage.trains_head for stage in plain.stages)
    assert all(stage.train == "head" for stage in robust.stages)
    assert robust.stages[0].attack is not None
    assert robust.stages[0].attack.kind == "cooperative"


def test_the_papers_recipe_has_its_released_settings():
    config = recipe("sam2.1-bplus-mose")
    (stage,) = config.stages
    assert (stage.images, stage.accumulation, stage.objects, stage.image_size) == (2 * 8 * 2, 2, 3, 1024)
    assert (stage.train, config.precision, config.weight_decay, config.clip, config.head) == (
        "decoder",
        "bf16",
        0.1,
        0.1,
        "paper",
    )
    assert (stage.rate, stage.head_rate, stage.last) == (1e-6, 1e-4, 0.1)
    assert stage.attack is not None
    assert (stage.attack.rate, stage.attack.weight, stage.attack.style_epsilon, stage.attack.deformation_epsilon) == (
        1e-3,
        0.2,
        0.3,
        0.15,
    )
    assert (stage.kl_begins, stage.attack.begins) == (5 / 20, 7 / 20)
    assert stage.kl_weight == pytest.approx(0.05 * 1e-11)
    assert (stage.alignment, stage.alignment_weight, stage.alignment_of) == ("paper", 0.1, "attacked")
    assert stage.steps == 20 * (1507 // stage.images)


def test_single_frames_of_videos_are_drawn_clip_by_clip_and_whole_clips_are_held_out(tmp_path):
    (part,) = open_sources([write_videos(tmp_path / "videos", clips=12, frames=3)])
    assert len(part.samples) == 36
    held = {sample.id for sample in part.samples if sample.held_out}
    assert not held & {sample.id for sample in part.samples if not sample.held_out}
    pool = TrainingPool([part], {})
    assert sorted(len(clip) for clip in pool.clips[0]) == [3] * (12 - len(held))
    image, ids = pool.draw(np.random.default_rng(0))
    assert image.shape == (60, 90, 3)
    assert set(np.unique(ids)) == {0, 1, 2, IGNORE}  # numbers, not colours


def test_videos_without_labels_are_refused_by_name(tmp_path):
    root = write_videos(tmp_path / "videos", clips=1)
    (root / "Annotations").rename(root / "Elsewhere")
    with pytest.raises(FileNotFoundError, match=r"videos: videos without labels, it has no folder 'Annotations'"):
        open_sources([root])
    (root / "Annotations").mkdir()
    with pytest.raises(ValueError, match="no labelled frame"):
        open_sources([root])


def test_pictures_of_another_size_than_the_model_takes_are_refused(tmp_path):
    small = cut_down(
        recipe("sam2.1-tiny"), save_start("sam", tmp_path / "start"), write_videos(tmp_path / "videos"), tmp_path / "run"
    )
    wrong = replace(small, stages=[replace(small.stages[0], image_size=128)])
    with pytest.raises(ValueError, match=r"stages\[0\].image_size: 128, but .* takes pictures of 64 pixels only"):
        train(wrong)
