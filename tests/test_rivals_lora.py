"""Low-rank adapters: nothing changes at first, they alone learn, and what is written is a plain model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import TINY, shaken, tiny_nano
from safetensors.torch import load_file
from squares import write_set
from torch import Tensor
from transformers import PreTrainedModel

from ruac.data.scenes import SceneConfig
from ruac.families.nano import NanoConfig
from ruac.features import DecoderFeatures, Prompts
from ruac.heads import PlainHead
from ruac.loading import read
from ruac.model import RuacConfig, RuacModel
from ruac.rivals.dropout import dropout_training
from ruac.rivals.lora import is_adapter, lora, merge_lora, with_lora
from ruac.training.config import Stage, TrainConfig
from ruac.training.loop import train


def answers(model: RuacModel) -> tuple[DecoderFeatures, Tensor]:
    g = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, model.side, model.side, generator=g) * 255
    points = torch.rand(2, 2, 2, 2, generator=g) * model.side
    decoded = model.decode(model.encode(images, ()), Prompts(points, torch.tensor([1, 0]).expand(2, 2, 2)))
    return decoded, PlainHead()(decoded).mean


@pytest.mark.parametrize("make", [*TINY.values(), tiny_nano], ids=[*TINY, "nano"])
def test_adapters_change_nothing_learn_everywhere_and_merge_into_the_weights(make: Callable[[], PreTrainedModel]) -> None:
    torch.manual_seed(0)
    model = RuacModel.around(shaken(make()))
    names = list(model.state_dict())
    _, before = answers(model)
    with_lora(model, rank=2)
    decoded, started = answers(model)
    torch.testing.assert_close(started, before, rtol=0, atol=1e-6 * float(before.abs().max()))
    adapters = {name: p.requires_grad_(True) for name, p in model.named_parameters() if is_adapter(name)}
    assert {name.split(".")[1] for name in adapters} >= {"vision_encoder", "mask_decoder"}
    assert not any(p.requires_grad for name, p in model.named_parameters() if name.startswith("sam.") and name not in adapters)
    # both of a pair get a gradient once the second is not zero
    for name, p in adapters.items():
        if ".lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    decoded, changed = answers(model)
    (
        changed.square().mean()
        + decoded.iou.square().mean()
        + (0 if decoded.object_logit is None else decoded.object_logit.mean())
    ).backward()
    still = [name for name, p in adapters.items() if p.grad is None or not p.grad.any()]
    assert len(still) < len(adapters) / 10, still
    assert (changed - before).abs().max() > 1e-2
    with torch.no_grad():
        merge_lora(model)
        _, merged = answers(model)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(merged, changed, rtol=1e-3, atol=1e-3 * float(changed.detach().abs().max()))


def test_adapters_are_a_function_of_the_seed() -> None:
    models = [RuacModel(RuacConfig(sam=NanoConfig.of_size(64, width=32).to_dict())) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        with_lora(model, rank=2, seed=seed)
    one, same, other = ([p for name, p in model.named_parameters() if ".lora_A" in name] for model in models)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    with pytest.raises(ValueError, match="at least 1, not 0"):
        lora(0)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    root = tmp_path_factory.mktemp("lora")
    torch.manual_seed(0)
    RuacModel(RuacConfig(sam=NanoConfig.of_size(64, width=32).to_dict(), head="exact", head_trained=False)).save_pretrained(
        root / "start"
    )
    return TrainConfig(
        data=[write_set(root / "squares", images=8)],
        out=root / "out",
        start=str(root / "start"),
        image_size=64,
        workers=0,
        validation_images=1,
        scenes=SceneConfig(smallest=10.0),
        # the second size makes the loop build nano anew
        stages=[Stage(2, 64, images=2, objects=2, warmup=1, rate=1e-2), Stage(2, 96, images=2, objects=2, warmup=1, rate=1e-2)],
    )


def test_a_run_with_adapters_writes_a_plain_model_whose_layers_have_moved(config: TrainConfig) -> None:
    folder = train(config, lora(rank=2))
    old, new = (read(path).half().state_dict() for path in (str(config.start), folder))
    assert load_file(folder / "model.safetensors").keys() == new.keys() == old.keys()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert {"sam.mask_decoder.transformer.layers.0.self_attn.q_proj.weight"} <= moved
    assert any(name.startswith("sam.vision_encoder.backbone") for name in moved)
    assert all(name.endswith(".weight") for name in moved)  # no bias, no norm, no embedding
    assert not any("norm" in name or "embed" in name or name.startswith("head.") for name in moved)
    change = (
        new["sam.mask_decoder.transformer.layers.0.mlp.proj_in.weight"].float()
        - old["sam.mask_decoder.transformer.layers.0.mlp.proj_in.weight"].float()
    )
    values = torch.linalg.svdvals(change)
    assert values[2] < 0.2 * values[0]  # of rank two, but for the rounding to half precision


def test_a_run_with_dropout_ends_as_another_model_than_one_without(config: TrainConfig, tmp_path: Path) -> None:
    whole = replace(config, stages=config.stages[:1])
    with_it, without = (
        load_file(train(replace(whole, out=tmp_path / str(i)), *variant) / "model.safetensors")
        for i, variant in enumerate(([dropout_training(0.5)], []))
    )
    assert with_it.keys() == without.keys()
    assert not all(torch.equal(with_it[name], without[name]) for name in with_it)
