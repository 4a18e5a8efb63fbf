"""Models and heads from disk: whoever wrote them, bit by bit, or a reason in one line."""

from __future__ import annotations

import copy
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from families import TINY, shaken
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_official import shapes_of

import ruac
from ruac.adapter import load_head, save_head
from ruac.checksums import FILE
from ruac.cli import main
from ruac.features import Prompts
from ruac.heads import PlainHead, make_head
from ruac.loading import load, read
from ruac.model import RuacModel, weights_sha256
from ruac.predictor import Predictor

CLICK = Prompts(torch.tensor([[[[20.0, 30.0]]]]), torch.tensor([[[1]]]))
PICTURE = torch.randint(0, 256, (40, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()


def answer(model: RuacModel) -> Any:
    with torch.inference_mode():
        pixels = torch.full((1, 3, model.side, model.side), 100.0)
        pixels[..., : model.side // 2] = 200
        features = model.decode(model.encode(pixels, ()), CLICK)
        return model(features), PlainHead()(features)


def trained(model: RuacModel, head: str = "exact") -> RuacModel:
    """The model with a head that has learnt something."""
    torch.manual_seed(3)
    model.head = make_head(head, model.family.channels, model.family.token_width)
    for parameter in model.head.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.config.head, model.config.head_trained = head, True
    return model.eval().requires_grad_(False)


def same_tensors(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module", params=list(TINY))
def sam(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return shaken(TINY[request.param]())


def test_a_sam_of_transformers_gets_a_head_a_warning_and_the_plain_entropy(sam, tmp_path):
    sam.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="not trained: until a head is loaded"):
        model = load(tmp_path)
    assert same_tensors(model.sam, sam)
    ours, plain = answer(model)
    assert torch.equal(ours.mean, plain.mean)
    assert not ours.variance.any()
    with pytest.warns(UserWarning, match="not trained"):
        predictor = Predictor(tmp_path)
    predictor.set_image(PICTURE)
    prediction = predictor.predict(point_coords=[[20, 30]], multimask_output=True)
    assert prediction.masks.shape == prediction.uncertainty.shape == (3, 40, 60)
    assert (prediction.object_score is None) == (sam.config.model_type in ("sam", "sam_hq"))


@pytest.mark.filterwarnings("ignore:the uncertainty of")
def test_a_sam_of_transformers_has_the_same_hash_at_every_loading(tmp_path):
    TINY["sam2"]().save_pretrained(tmp_path)
    first, second = load(tmp_path), load(tmp_path)
    assert weights_sha256(first) == weights_sha256(second)
    first.config.head_trained = second.config.head_trained = True  # then their heads count
    assert weights_sha256(first) != weights_sha256(second)


def test_saved_and_loaded_again_it_is_the_same_to_the_bit(sam, tmp_path):
    for head in ("exact", "paper"):
        model = trained(RuacModel.around(sam), head)
        model.save_pretrained(tmp_path / head)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = load(tmp_path / head)
        assert same_tensors(again, model)
        assert again.config.head == head
        for a, b in zip(vars(answer(again)[0]).values(), vars(answer(model)[0]).values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_head_travels_alone(sam, tmp_path):
    sam.save_pretrained(tmp_path / "sam")
    file = tmp_path / "heads" / "mine.safetensors"
    model = trained(RuacModel.around(sam))
    save_head(model, file)
    assert file.stat().st_size < 1e6
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load(tmp_path / "sam", head=file)
    assert same_tensors(again.head, model.head)
    assert answer(again)[0].variance.min() > 0


def test_a_new_head_takes_away_what_was_fitted_to_the_one_before(sam, tmp_path):
    model = trained(RuacModel.around(sam))
    save_head(model, tmp_path / "head.safetensors")
    model.config.quality = {"intercept": 0.5, "slope": 1.0}
    load_head(model, tmp_path / "head.safetensors")
    assert model.config.quality is None


def test_a_head_of_a_standard_sam_is_under_a_megabyte(tmp_path):
    for kind in ("exact", "paper"):
        tensors = make_head(kind, 32, 256).state_dict()
        save_file(tensors, tmp_path / "head.safetensors")
        assert (tmp_path / "head.safetensors").stat().st_size < 2**20


def test_a_head_for_another_family_is_refused(tmp_path):
    first, second = (RuacModel.around(shaken(TINY[name]())) for name in ("sam", "sam2"))
    save_head(trained(first), tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match=r"made for family sam, channels 4.*this one is family sam2"):
        load_head(second, tmp_path / "head.safetensors")


def test_a_head_of_another_width_is_refused(tmp_path):
    first, second = (RuacModel.around(shaken(TINY["sam2"]())) for _ in range(2))
    save_head(trained(first), tmp_path / "head.safetensors")
    second.family.token_width = 64
    with pytest.raises(ValueError, match="token_width 32; this one is family sam2, channels 4, token_width 64"):
        load_head(second, tmp_path / "head.safetensors")


def test_a_head_for_other_weights_of_the_same_family_warns(tmp_path):
    first, second = (RuacModel.around(shaken(TINY["sam2"](), seed)) for seed in (0, 1))
    save_head(trained(first), tmp_path / "head.safetensors")
    with pytest.warns(UserWarning, match="trained on other decoder weights"):
        load_head(second, tmp_path / "head.safetensors")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_head_fits_its_decoder_in_every_precision(tmp_path, dtype):
    sam = shaken(TINY["sam2"]())
    save_head(trained(RuacModel.around(copy.deepcopy(sam).to(dtype))), tmp_path / "head.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_head(RuacModel.around(sam), tmp_path / "head.safetensors")


def test_a_head_that_is_not_trained_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"head\.safetensors: not written: this model's head is not trained"):
        save_head(RuacModel.around(shaken(TINY["sam2"]())), tmp_path / "head.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_head_with_nan_is_refused(tiny_model, tiny_model_folder, tmp_path):
    broken = copy.deepcopy(tiny_model)
    broken.head.roughness.data.fill_(math.nan)
    save_head(broken, tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match=r"head\.safetensors: damaged \(NaN or infinity among its numbers\)"):
        load(tiny_model_folder, head=tmp_path / "head.safetensors")


def edited_head(file: Path, change: dict[str, torch.Tensor], metadata: dict[str, str | None]) -> None:
    """The head with other tensors and metadata (None: left out), saved again as whoever tampers would."""
    with safe_open(file, "pt") as opened:
        described = {**opened.metadata(), **metadata}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    save_file({**tensors, **change}, file, metadata={k: v for k, v in described.items() if v is not None})


@pytest.mark.parametrize(
    ("change", "metadata"),
    [
        ({"roughness": torch.tensor(2.0)}, {}),
        ({"roughness": torch.tensor(float("nan"))}, {}),
        ({"roughness": torch.tensor(1)}, {}),
        ({"roughness": torch.zeros(3)}, {}),
        ({}, {"head": None}),
        ({}, {"head": "eyact"}),
        ({}, {"head": "plain"}),
        ({}, {"sha256": None}),
        ({}, {"family": "sam\n3"}),
    ],
)
def test_a_tampered_head_is_refused_in_one_line(tiny_model, tiny_model_folder, tmp_path, change, metadata):
    file = tmp_path / "head.safetensors"
    save_head(tiny_model, file)
    edited_head(file, change, metadata)
    with pytest.raises(ValueError, match=r"head\.safetensors: ") as caught:
        load(tiny_model_folder, head=file)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_of_a_head_is_noticed(tiny_model, tiny_model_folder, tmp_path):
    file = tmp_path / "head.safetensors"
    save_head(tiny_model, file)
    data = bytearray(file.read_bytes())
    data[-100] ^= 128
    file.write_bytes(data)
    with pytest.raises(ValueError, match="not those that were saved"):
        load(tiny_model_folder, head=file)


@pytest.mark.parametrize("damage", ["cut", "pickle", "other", "model", "missing"])
def test_a_file_that_is_no_head_is_refused_in_one_line(tiny_model, tiny_model_folder, tmp_path, damage):
    file = tmp_path / "head.safetensors"
    save_head(tiny_model, file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-50])
    elif damage == "pickle":
        torch.save({"a": torch.zeros(1)}, file)
    elif damage == "other":
        save_file({"a": torch.zeros(1)}, file)
    elif damage == "model":
        file = tiny_model_folder / "model.safetensors"
    else:
        file = tmp_path / "none.safetensors"
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(tiny_model_folder, head=file)
    assert file.name in str(caught.value)
    assert "\n" not in str(caught.value)


def refusal(path: Path) -> str:
    """The message, which must be one line naming the culprit."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.fixture
def folder(tiny_model: RuacModel, tmp_path: Path) -> Path:
    tiny_model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_flipped_bit_is_noticed(folder):
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-7] ^= 1
    weights.write_bytes(data)
    assert "changed since it was written" in refusal(folder)


@pytest.mark.parametrize("length", [0, 7, 5000, -100])
def test_truncated_weights_are_refused(folder, length):
    (folder / FILE).unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    refusal(folder)


def test_weights_of_another_model_are_refused_not_filled_up(folder):
    (folder / FILE).unlink()
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0]
    save_file({k: v for k, v in tensors.items() if k != name}, folder / "model.safetensors", metadata={"format": "pt"})
    assert name in refusal(folder)
    save_file({**tensors, "extra": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert "extra" in refusal(folder)
    save_file({**tensors, name: torch.zeros(1, 2, 3)}, folder / "model.safetensors", metadata={"format": "pt"})
    refusal(folder)


def test_a_pickle_is_never_loaded(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle, which is never loaded" in refusal(folder)
    torch.save({"a": torch.zeros(1)}, tmp_path / "sam2.1_hiera_tiny.pt")
    assert "a pickle, which is never loaded" in refusal(tmp_path / "sam2.1_hiera_tiny.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "disguised.safetensors")
    assert "not a safetensors file" in refusal(tmp_path / "disguised.safetensors")


def test_a_model_of_another_kind_is_refused(folder, tmp_path):
    (folder / FILE).unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    assert "type 'bert' is no Segment Anything" in refusal(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not a model's configuration"):
        load(folder)
    save_file({"a": torch.zeros(1)}, tmp_path / "any.safetensors")
    assert "neither beside a config.json nor with the tensor names of the original SAM 2" in refusal(tmp_path / "any.safetensors")
    assert "no model at" in refusal(tmp_path / "nothing")


@pytest.mark.parametrize("change", ["missing", "unexpected", "mismatched"])
def test_another_models_weights_are_refused_in_one_line_alone(change, folder, tmp_path, capfd):
    """transformers has a report of its own, of many lines."""
    (folder / FILE).unlink()
    tensors = load_file(folder / "model.safetensors")
    name = "head.influence.bias"
    if change == "missing":
        del tensors[name]
    elif change == "unexpected":
        tensors["more"] = torch.zeros(1)
    else:
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert main(["predict", "a.jpg", "--point", "1,1", "--model", str(folder), "--out", str(tmp_path / "out")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"ruac: {folder}: 1 tensors with {change} keys, such as ")


def test_weights_that_are_not_numbers_are_refused(folder):
    (folder / FILE).unlink()
    tensors = load_file(folder / "model.safetensors")
    name = "head.influence.bias"
    save_file({**tensors, name: tensors[name] * torch.nan}, folder / "model.safetensors", metadata={"format": "pt"})
    assert f"1 tensors hold NaN or infinity, such as {name}" in refusal(folder)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("mask_decoder_config", "hidden_size", "x"),
        ("mask_decoder_config", "num_attention_heads", 0),
        ("mask_decoder_config", "num_hidden_layers", None),
        ("prompt_encoder_config", "patch_size", 0),
        ("vision_config", "model_type", "bert"),
        (None, "vision_config", 3),
    ],
)
def test_a_tampered_configuration_is_refused_in_one_line(tmp_path, part, key, value):
    shaken(TINY["sam2"]()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (config[part] if part else config)[key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    refusal(tmp_path)


def test_a_changed_configuration_and_damaged_checksums_are_noticed(folder):
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"exact"', '"plain"'))
    assert "config.json: changed since it was written" in refusal(folder)
    (folder / FILE).write_bytes(b"\xff\xfe")
    refusal(folder)
    (folder / FILE).write_text("0  something else\n")
    assert "changed since it was written" in refusal(folder)


@pytest.mark.parametrize("quality", [5, "x", [[]], True, {}, {"intercept": "0", "slope": 1}])
def test_a_quality_that_is_none_is_refused_by_name(quality, folder):
    (folder / FILE).unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quality": quality}))
    message = refusal(folder)
    assert str(folder) in message
    assert "quality" in message


def test_a_device_without_numbers_is_refused(folder):
    with pytest.raises(ValueError, match="--device meta: computes nothing"):
        ruac.load(folder, "meta")


def test_the_list_of_what_is_wrong_with_original_weights_reaches_the_terminal(tmp_path, capsys):
    tensors = {f"image_encoder.trunk.blocks.{i}.norm1.weight": torch.zeros(96) for i in range(12)}
    tensors["image_encoder.trunk.patch_embed.proj.weight"] = torch.zeros(96, 3, 7, 7)
    save_file({**tensors, "surprise.weight": torch.zeros(1)}, tmp_path / "sam2.safetensors")
    message = refusal(tmp_path / "sam2.safetensors")
    assert "surprise.weight" in message
    code = main(["predict", "photo.png", "--point", "1,1", "--model", str(tmp_path / "sam2.safetensors")])
    error = capsys.readouterr().err
    assert code == 2
    assert "surprise.weight" in error
    assert error.count("\n") == 1


def test_original_weights_are_saved_as_a_model_of_ours(tmp_path):
    torch.manual_seed(0)
    original = {name: 0.1 * torch.randn(value.shape) for name, value in shapes_of("tiny").items()}
    save_file(original, tmp_path / "sam2.safetensors")
    model = read(tmp_path / "sam2.safetensors")
    model.save_pretrained(tmp_path / "model")
    assert same_tensors(read(tmp_path / "model"), model)


def test_a_video_checkpoint_holds_the_image_model(tmp_path):
    """The hub's SAM 2.1 folders call themselves sam2_video and hold the memory as well."""
    import transformers

    sam = shaken(TINY["sam2"]())
    sam.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.update(model_type="sam2_video", architectures=["Sam2VideoModel"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = load_file(tmp_path / "model.safetensors")
    more = {"memory_attention.layer_norm.weight": torch.ones(4), "no_object_pointer": torch.ones(1, 4)}
    save_file({**tensors, **more}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(UserWarning, match="not trained"):
        model = load(tmp_path)
    assert isinstance(model.sam, transformers.Sam2Model)
    assert same_tensors(model.sam, sam)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_sams_not_the_heads(folder, dtype):
    model = load(folder, dtype=dtype)
    assert {p.dtype for p in model.sam.parameters()} == {dtype}
    assert {p.dtype for p in model.head.parameters()} == {torch.float32}
    predictor = Predictor(model)
    predictor.set_image(PICTURE)
    prediction = predictor.predict(point_coords=[[20, 30]], box=[10, 10, 50, 35])
    assert prediction.uncertainty.dtype == "float32"
    reference = Predictor(load(folder))
    reference.set_image(PICTURE)
    agree = (reference.predict(point_coords=[[20, 30]], box=[10, 10, 50, 35]).masks == prediction.masks).mean()
    assert agree > 0.9


@pytest.mark.parametrize(
    "halved",
    [
        lambda folder: RuacModel.from_pretrained(str(folder), dtype=torch.bfloat16),
        lambda folder: load(folder).half(),
        lambda folder: load(folder).bfloat16(),
    ],
)
def test_the_head_stays_in_full_precision_however_the_model_is_halved(folder, halved):
    model = halved(folder).eval()
    assert model.sam.dtype in (torch.float16, torch.bfloat16)
    assert same_tensors(model.head, load(folder).head)
    found = answer(model)[0]
    assert found.mean.dtype == found.variance.dtype == torch.float32


def test_the_head_stays_in_full_precision_under_autocast(folder):
    model = load(folder)
    with torch.inference_mode():
        features = model.decode(model.encode(torch.full((1, 3, model.side, model.side), 100.0), ()), CLICK)
        expected = model(features)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(features)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.variance, expected.variance)


def test_load_is_in_the_package(tiny_model_folder):
    assert isinstance(ruac.load(tiny_model_folder), RuacModel)
