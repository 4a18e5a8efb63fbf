"""What a training run starts from."""

import copy
from pathlib import Path

from ruac.loading import read
from ruac.model import RuacModel
from ruac.training.config import Stage, TrainConfig
from ruac.training.start import start_model


def test_training_starts_without_what_was_fitted_to_the_weights_before(tiny_model: RuacModel, tmp_path: Path) -> None:
    model = copy.deepcopy(tiny_model)
    model.config.quality = {"intercept": 0.5, "slope": 1.0}
    model.save_pretrained(tmp_path / "model")
    assert read(tmp_path / "model").config.quality == {"intercept": 0.5, "slope": 1.0}
    started = start_model(TrainConfig([tmp_path], tmp_path, [Stage(1, 64)], start=str(tmp_path / "model"), image_size=64))
    assert started.config.quality is None
