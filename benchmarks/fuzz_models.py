"""The targets of benchmarks/fuzz.py that hold numbers: models, heads, fitted methods, checkpoints, and what describes them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fuzz_mutations as mutate
import models
import torch
from fuzz_targets import Target, described, json_files
from safetensors.torch import save

from ruac import checksums
from ruac.adapter import load_head, save_head
from ruac.calibrate.file import Calibration
from ruac.calibrate.policy import Policy
from ruac.calibrate.risk import Level, Limit
from ruac.calibrate.shift import Traits
from ruac.export import bundle
from ruac.heads import ExactHead
from ruac.loading import read
from ruac.model import RuacModel, weights_sha256
from ruac.quality.command import refuse_out
from ruac.rivals import store
from ruac.rivals.registry import open_rivals
from ruac.training.checkpoint import Position, Saved, copied, load_checkpoint, save_checkpoint
from ruac.training.config import Stage, TrainConfig
from ruac.training.fit import Progress, StateFile
from ruac.training.tensorfile import read_tensors, write_tensors

SAFETENSORS: list[mutate.Mutation] = [mutate.safetensors_changed]


def model_targets(folder: Path) -> list[Target]:
    """folder: an empty one, for files on the way."""
    model = models.tiny()
    return [*_whole_models(model, folder), *_heads(model, folder), *_states(model, folder), *_descriptions(model, folder)]


def _whole_models(model: RuacModel, folder: Path) -> list[Target]:
    model.save_pretrained(folder / "model")
    config, weights, sums = (
        (folder / "model" / name).read_bytes() for name in ("config.json", "model.safetensors", checksums.FILE)
    )
    official = {f"sam_mask_decoder.{name}": value for name, value in model.head.state_dict().items()}
    official |= {"sam_prompt_encoder.point_embeddings.0.weight": torch.ones(1, 8)}
    few = save(official)

    def refused(path: Path) -> None:
        """A few tensors of a model of hundreds of megabytes: told to be incomplete, if nothing else is wrong."""
        file = path / "sam2.safetensors"
        try:
            read(file)
        except ValueError:
            if file.read_bytes() != few:
                raise

    return [
        # a model takes a tenth of a second to be made
        json_files("config", [config], read, 0.3, others={"model.safetensors": weights}, culprit=False),
        Target("weights", "model.safetensors", [weights], read, SAFETENSORS, 0.2, {"config.json": config}, culprit=False),
        Target("original weights", "sam2.safetensors", [few], refused, SAFETENSORS),
        Target(
            "checksums",
            checksums.FILE,
            [sums],
            checksums.verify,
            [mutate.text_changed],
            1,
            {"config.json": config},
            culprit=False,
        ),
    ]


def _heads(model: RuacModel, folder: Path) -> list[Target]:
    save_head(model, folder / "head.safetensors")
    head = (folder / "head.safetensors").read_bytes()
    channels = model.family.channels
    fitted = store.Stored("laplace", {"covariance": torch.eye(channels**2)}, {"nll": "0.5"})
    rival = store.write(folder / "rival.safetensors", fitted, model).read_bytes()

    def attach(path: Path) -> None:
        before, config = model.head, (model.config.head, model.config.head_trained)
        try:
            load_head(model, path / "head.safetensors")
        finally:
            model.head = before
            model.config.head, model.config.head_trained = config

    def open_rival(path: Path) -> object:
        return open_rivals(model, [path / "rival.safetensors"])

    return [
        Target("head", "head.safetensors", [head], attach, SAFETENSORS, 4),
        Target("fitted method", "rival.safetensors", [rival], open_rival, SAFETENSORS, 3, culprit=False),
    ]


def _states(model: RuacModel, folder: Path) -> list[Target]:
    run = TrainConfig([Path("data")], folder / "run", [Stage(2, 64, images=2, objects=1)], start="model", image_size=64)
    run.out.mkdir()
    few = {name: value for name, value in model.state_dict().items() if value.numel() < 100}
    moments = {f"exp_avg/model.{name}": value for name, value in copied(few).items()}
    save_checkpoint(run, Saved(Position(0, 1), few, copied(few), {}, moments))
    checkpoint = (run.out / "checkpoint.safetensors").read_bytes()
    assert isinstance(model.head, ExactHead)
    optimizer = torch.optim.AdamW(model.head.parameters())
    state = StateFile(folder / "fit.safetensors", "f")
    state.write(Progress(3, 0.5, 0.6, 2), model.head, copied(model.head.state_dict()), optimizer)
    write_tensors(folder / "kept.safetensors", few, "key")

    def resume_fit(path: Path) -> None:
        file = replace(state, path=path / "fit.safetensors")
        if file.progress().step:
            head = models.tiny().head
            assert isinstance(head, ExactHead)
            file.load(head, torch.optim.AdamW(head.parameters()))

    return [
        Target(
            "checkpoint",
            "checkpoint.safetensors",
            [checkpoint],
            lambda path: load_checkpoint(replace(run, out=path)),
            SAFETENSORS,
            4,
        ),
        Target("state of a fit", "fit.safetensors", [state.path.read_bytes()], resume_fit, SAFETENSORS, 1.5),
        Target(
            "kept tensors",
            "kept.safetensors",
            [(folder / "kept.safetensors").read_bytes()],
            lambda path: read_tensors(path / "kept.safetensors", "key"),
            SAFETENSORS,
        ),
    ]


def _descriptions(model: RuacModel, folder: Path) -> list[Target]:
    sha256 = weights_sha256(model)
    limit = Limit(-1.5, 0.2, 1.1)
    traits = Traits(tuple(float(n) for n in range(11)), (0.1, 0.2, 0.3, 0.4))
    found = Calibration(
        "nano", sha256, {"a": 2}, "f", 2, 3, Policy(), 1.2, (Level(0.3, limit, Limit(1.5, 0.2, 0.9)),), (traits,) * 2
    )
    found.write(folder / "calibration.json")
    graphs = {bundle.ENCODER: b"encoder", bundle.DECODER: b"decoder"}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in graphs.items()}
    numbers: dict[str, Any] = {
        "side": 64,
        "grid": 16,
        "fit": "pad",
        "grey": 124,
        "quality": None,
        "head_trained": True,
        "opset": 17,
    }
    facts = {"model": "nano", "model_sha256": sha256, "precision": "fp32", "check": {"logit": 1e-5}, "ruac": "1"}
    onnx = described({"format": bundle.FORMAT, **facts, **numbers, "files": hashes})
    config = described({"model_type": "ruac", "sam": {"model_type": "ruac_nano"}, "quality": None})
    return [
        json_files(
            "calibration",
            [(folder / "calibration.json").read_bytes()],
            lambda path: Calibration.read(path / "calibration.json"),
            4,
        ),
        json_files("exported model", [onnx], bundle.read, 3, file=bundle.DESCRIPTION, others=graphs, culprit=False),
        json_files("own model", [config], partial(refuse_out, in_place=True, head=None), 1, file="config.json", culprit=False),
    ]
