"""The model card says what the files of training and evaluation say."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ruac.card import LogRow, card, hours, read_log
from ruac.data.folder import find_sets
from ruac.evaluate.protocol import Protocol
from ruac.evaluate.run import evaluate_sets
from ruac.families.nano import NanoConfig
from ruac.loading import load
from ruac.model import RuacConfig, RuacModel
from ruac.training.config import Stage, TrainConfig
from ruac.training.loop import train


def test_pauses_do_not_count_as_training_time():
    rows = [LogRow(0, i, time, {}) for i, time in enumerate((0.0, 10.0, 20.0, 5000.0, 5010.0))]
    assert hours(rows) == pytest.approx(30 / 3600)


def test_an_empty_log_is_refused(tmp_path):
    (tmp_path / "log.csv").touch()
    with pytest.raises(ValueError, match="no step"):
        read_log(tmp_path / "log.csv")


def test_card_of_a_run_lists_its_data_licences_and_every_evaluated_set(tmp_path: Path):
    root = tmp_path / "data" / "squares"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(3):
        image, ids = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
        image[10:40, 10:40], ids[10:40, 10:40] = 200, 1
        cv2.imwrite(str(root / "images" / f"{i}.png"), image)
        cv2.imwrite(str(root / "masks" / f"{i}.png"), ids)
    (root / "meta.json").write_text(json.dumps({"name": "squares", "licence": "CC0", "domain": "made up"}))
    torch.manual_seed(0)
    RuacModel(RuacConfig(sam=NanoConfig.of_size(64, width=32).to_dict(), head="exact")).save_pretrained(tmp_path / "start")
    stages = [Stage(steps=2, image_size=64, images=2, objects=1, warmup=1)]
    run = TrainConfig([root], tmp_path / "run", stages, start=str(tmp_path / "start"), image_size=64, workers=0)
    head = Stage(steps=3, image_size=64, images=2, objects=1, warmup=1, train="head", pictures="photographs")
    second = TrainConfig([root], tmp_path / "run-head", [head], start=str(train(run)), image_size=64, workers=0)
    model = train(second)
    summary = evaluate_sets(load(model), find_sets([root]), tmp_path / "eval", Protocol((1, 3, 5), max_objects=2))
    card(model, [tmp_path / "run", tmp_path / "run-head"], tmp_path / "eval" / "summary.json", [root])
    text = (model / "README.md").read_text()
    iou = next(part.measures["iou@3"].mean for part in summary.sets)
    assert "| squares | 3 | made up | CC0 |" in text
    assert f"{100 * iou:.1f} [" in text
    assert "| 1 | all | 2 | 2 × 1 | 64 px |" in text
    assert "| 2 | head | 3 | 2 × 1 | 64 px |" in text
    assert "configs/run.yaml` (seed 0), then `ruac train --config configs/run-head.yaml` (seed 0)" in text
