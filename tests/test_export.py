"""A model as ONNX graphs answers as it does in torch, and a folder that is not as it was written is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from families import TINY, shaken
from PIL import Image

from ruac.cli import main
from ruac.export import bundle as bundles
from ruac.export.check import compare, deviations
from ruac.export.command import fitting, picture_files
from ruac.export.graphs import to_onnx
from ruac.export.precision import halved, quantised
from ruac.loading import load
from ruac.model import RuacModel, weights_sha256
from ruac.onnx_backend import PROVIDERS, OnnxModel, open_session
from ruac.predictor import Prediction, Predictor, Prompt

pytestmark = pytest.mark.slow  # torch takes seconds to export even the smallest model


def photo(seed: int = 0, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(3):
        Image.fromarray(photo(i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def exported(tiny_model_folder: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, by the command."""
    out = tmp_path_factory.mktemp("exported") / "tiny"
    words = ["export", "--model", tiny_model_folder, "--calibration-images", pictures, "--out", out]
    assert main([str(word) for word in words]) == 0
    return out


def assert_close(a: Prediction, b: Prediction) -> None:
    np.testing.assert_allclose(a.probability, b.probability, atol=1e-4)
    np.testing.assert_allclose(a.uncertainty, b.uncertainty, atol=1e-3)
    np.testing.assert_allclose(a.iou, b.iou, atol=1e-4)
    np.testing.assert_allclose(a.expected_iou, b.expected_iou, atol=1e-3)
    np.testing.assert_allclose(a.low_res_logits, b.low_res_logits, atol=1e-3)
    assert a.object_score == pytest.approx(b.object_score, abs=1e-4)
    np.testing.assert_allclose(a.clicks, b.clicks, atol=1e-3)


def test_predictor_answers_alike_on_torch_and_onnxruntime(exported: Path, tiny_model: RuacModel) -> None:
    ours, theirs = Predictor(tiny_model), Predictor(exported, backend="onnx")
    prompts = [
        Prompt([[20, 20]]),
        Prompt([[20, 20], [50, 5], [3, 30]], [1, 0, 1]),
        Prompt(box=[10, 5, 40, 35]),
        Prompt([[15, 15]], [0], [10, 5, 40, 35]),
    ]
    for seed, size in ((1, (40, 60)), (2, (60, 25))):
        image = photo(seed, size)
        inside = [p for p in prompts if size == (40, 60)] or [Prompt([[20, 20]]), Prompt(box=[3, 5, 20, 35])]
        for predictor in (ours, theirs):
            predictor.set_image(image)
        for multimask in (False, True):
            answers = [predictor.predict_many(inside, multimask_output=multimask) for predictor in (ours, theirs)]
            for a, b in zip(*answers, strict=True):
                assert_close(a, b)
    earlier = ours.predict([[20, 20]]).low_res_logits[0]
    corrected = [predictor.predict([[20, 20], [5, 50]], [1, 0], mask_input=earlier) for predictor in (ours, theirs)]
    assert_close(*corrected)
    assert_close(*[predictor.predict(mask_input=earlier) for predictor in (ours, theirs)])
    again = ours.predict([[20, 20], [5, 50]], [1, 0])
    assert np.abs(again.probability - corrected[0].probability).max() > 1e-3, "the earlier mask must matter"


def test_graphs_take_any_number_of_objects_and_points_and_say_all_that_is_known(exported: Path) -> None:
    decoder = open_session((exported / "decoder.onnx").read_bytes())
    grid = 16
    levels = {"fine": (4, grid), "middle": (8, grid // 2), "coarse": (32, grid // 4)}
    image = {name: np.zeros((1, channels, side, side), np.float32) for name, (channels, side) in levels.items()}
    for objects, points in ((1, 1), (1, 7), (5, 1), (4, 3)):
        found = decoder.run(
            None,
            image
            | {
                "points": np.full((objects, points, 2), 20, np.float32),
                "labels": np.ones((objects, points), np.int32),
                "mask_input": np.zeros((objects, grid, grid), np.float32),
            },
        )
        outputs = {output.name: value for output, value in zip(decoder.get_outputs(), found, strict=True)}
        for name in ("mean", "variance", "probability", "uncertainty"):
            assert outputs[name].shape == (objects, 4, grid, grid)
        assert outputs["iou"].shape == outputs["gain"].shape == (objects, 4)
        assert outputs["object_score"].shape == outputs["chosen"].shape == (objects,)
        assert (outputs["variance"] >= 0).all()
        assert (outputs["uncertainty"] <= 1 + 1e-6).all()
    encoder = open_session((exported / "encoder.onnx").read_bytes())
    assert encoder.run(["coarse"], {"pixels": np.zeros((3, 3, 64, 64), np.uint8)})[0].shape == (3, 32, 4, 4)


def test_sam2_is_exported_too_and_the_first_sam_is_refused() -> None:
    model = RuacModel.around(shaken(TINY["sam2"]()))
    assert fitting(model) == ("stretch", 0)
    graphs = to_onnx(model)
    bundle = bundles.Bundle("tiny", "", "fp32", model.side, model.grid, "stretch", 0, None, False, 20, {}, {}, "")
    figures = compare(model, OnnxModel(bundle, *map(open_session, graphs.values())), [photo(3)])
    assert deviations(figures, "fp32") == []
    with pytest.raises(ValueError, match="a model of type sam cannot be exported"):
        to_onnx(RuacModel.around(shaken(TINY["sam"]())))


def test_export_leaves_the_model_as_it_was(tiny_model: RuacModel) -> None:
    before = weights_sha256(tiny_model)
    names = [name for name, _ in tiny_model.named_modules()]
    with pytest.raises(ValueError, match="float32"):
        to_onnx(load_copy(tiny_model).bfloat16())
    assert (weights_sha256(tiny_model), [name for name, _ in tiny_model.named_modules()]) == (before, names)


def load_copy(model: RuacModel) -> RuacModel:
    copied = RuacModel(model.config)
    copied.load_state_dict(model.state_dict())
    return copied.eval()


def test_halved_weights_take_half_the_space_and_compute_alike(exported: Path, tiny_model: RuacModel) -> None:
    bundle, graphs = bundles.read(exported)
    half = {name: halved(content) for name, content in graphs.items()}
    assert sum(map(len, half.values())) < 0.65 * sum(map(len, graphs.values()))
    figures = compare(tiny_model, OnnxModel(bundle, *map(open_session, half.values())), [photo(4)])
    assert deviations(figures, "fp16") == []
    assert figures["largest_probability"] > 0


def test_int8_encoder_computes_in_8_bits(exported: Path, tiny_model: RuacModel) -> None:
    bundle, graphs = bundles.read(exported)
    pixels = [tiny_model.prepare(torch.from_numpy(photo(i)).permute(2, 0, 1))[0][None].numpy() for i in range(4)]
    encoder = quantised(graphs["encoder.onnx"], pixels)
    model = onnx.load_from_string(encoder)
    stored = {weight.name: weight.data_type for weight in model.graph.initializer}
    kernels = [
        next(node.input[0] for node in model.graph.node if conv.input[1] in node.output)
        for conv in model.graph.node
        if conv.op_type == "Conv"
    ]
    assert kernels
    assert {stored[name] for name in kernels} == {onnx.TensorProto.INT8}
    sessions = open_session(encoder), open_session(graphs["decoder.onnx"])
    figures = compare(tiny_model, OnnxModel(bundle, *sessions), [photo(5)])
    assert 0 < figures["mean_probability"] < 0.05


def test_a_graph_that_deviates_is_not_written(
    tiny_model_folder: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    exported: Path,
) -> None:
    _, graphs = bundles.read(exported)
    broken = onnx.load_from_string(graphs["decoder.onnx"])
    largest = max(broken.graph.initializer, key=lambda weight: np.prod(weight.dims) if weight.data_type == 1 else 0)
    values = onnx.numpy_helper.to_array(largest) * 1.2
    largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
    wrong = {**graphs, "decoder.onnx": broken.SerializeToString()}
    monkeypatch.setattr("ruac.export.graphs.to_onnx", lambda model: wrong)
    words = ["export", "--model", tiny_model_folder, "--calibration-images", pictures, "--out", tmp_path / "out"]
    assert main([str(word) for word in words]) == 1
    assert "not written, since in fp32 it does not answer as torch does: largest_probability is" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_folder_says_what_it_is_and_how_near_to_torch(exported: Path, tiny_model: RuacModel) -> None:
    described = json.loads((exported / "ruac-onnx.json").read_text())
    assert described["model_sha256"] == weights_sha256(tiny_model) == weights_sha256(Predictor(exported).model)
    assert described["check"]["pictures"] == 3
    assert 0 < described["check"]["largest_probability"] < 1e-3
    assert sorted(path.name for path in exported.iterdir()) == ["decoder.onnx", "encoder.onnx", "ruac-onnx.json"]
    assert sorted(path.name for path in exported.parent.iterdir()) == ["tiny"]
    bundle, _ = bundles.read(exported)
    assert replace(bundle, precision="int8").sha256 != bundle.sha256


def test_ruac_predict_takes_an_exported_folder(exported: Path, pictures: Path, tmp_path: Path, tiny_model_folder: Path) -> None:
    for model, out in ((exported, "a"), (tiny_model_folder, "b")):
        words = ["predict", pictures / "0.png", "--point", "30,20", "--model", model, "--out", tmp_path / out]
        assert main([str(word) for word in words]) == 0
    a, b = (json.loads((tmp_path / out / "0.json").read_text()) for out in "ab")
    assert a["model_sha256"] == b["model_sha256"]
    assert a["score"] == pytest.approx(b["score"], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "encoder.onnx").write_bytes(b"x"), "encoder.onnx: changed since it was written"),
        (lambda folder: (folder / "decoder.onnx").unlink(), "decoder.onnx is missing"),
        (lambda folder: (folder / "ruac-onnx.json").write_text("{"), "export the model again"),
        (lambda folder: edit(folder, side=-1), "side is -1"),
        (lambda folder: edit(folder, grid=7), "a grid of 7 does not fit"),
        (lambda folder: edit(folder, format="other"), "not of the format"),
        (lambda folder: edit(folder, precision="fp4"), "precision 'fp4'"),
        (lambda folder: edit(folder, check=[1]), "export the model again"),
        (lambda folder: edit(folder, more=1), "unexpected keyword argument 'more'"),
    ],
)
def test_a_damaged_folder_is_refused_in_a_line(exported: Path, tmp_path: Path, change, message: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(exported, folder)
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        Predictor(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def edit(folder: Path, **changes: object) -> None:
    file = folder / "ruac-onnx.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_backends_that_do_not_fit_are_refused(exported: Path, tiny_model: RuacModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no backend 'tensorrt': torch, onnx, openvino"):
        Predictor(exported, backend="tensorrt")
    with pytest.raises(ValueError, match="a loaded model runs on torch"):
        Predictor(tiny_model, backend="onnx")
    with pytest.raises(ValueError, match="leave head and device out"):
        Predictor(exported, device="cuda")
    with pytest.raises(FileNotFoundError, match="expected a folder that `ruac export` wrote"):
        Predictor("nano", backend="onnx")
    with pytest.raises(FileNotFoundError, match="no model at"):
        Predictor(exported, backend="torch")


def test_a_folder_called_nano_is_not_taken_for_the_embedded_model(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(exported, tmp_path / "nano")
    monkeypatch.chdir(tmp_path)
    assert isinstance(Predictor("nano").model, RuacModel)
    assert isinstance(Predictor("./nano").model, OnnxModel)


def test_an_untrained_head_is_warned_of(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "untrained"
    shutil.copytree(exported, folder)
    edit(folder, head_trained=False)
    with pytest.warns(UserWarning, match=f"the uncertainty of '{folder}' is not trained"):
        Predictor(folder)


def test_openvino_runs_or_is_named_with_its_package(exported: Path) -> None:
    if PROVIDERS["openvino"][0] in onnxruntime.get_available_providers():
        predictor = Predictor(exported, backend="openvino")
        predictor.set_image(photo())
        assert predictor.predict([[20, 20]]).masks.shape == (1, 40, 60)
    else:
        with pytest.raises(ValueError, match="no OpenVINOExecutionProvider: pip install onnxruntime-openvino"):
            Predictor(exported, backend="openvino")


def test_without_onnxruntime_the_error_names_the_extra(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'ruac\[onnx\]'"):
        Predictor(exported)


def test_pictures_for_the_ranges_are_real_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUAC_DATA", str(tmp_path / "none"))
    assert picture_files(None, "fp32")[0].name == "grace_hopper.jpg"
    assert main(["export", "--precision", "int8", "--out", str(tmp_path / "out")]) == 2
    assert "int8 needs real pictures" in capsys.readouterr().err
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(100):
            (tmp_path / "set" / kind / f"{i}.png").touch()
    chosen = picture_files(tmp_path / "set", "int8")
    assert len(chosen) == len(set(chosen)) == 32
    assert {path.parent.name for path in chosen} == {"images"}


def test_a_folder_of_something_else_is_not_replaced(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("x")
    assert main(["export", "--out", str(tmp_path)]) == 2
    assert "is there, and no exported model" in capsys.readouterr().err
    bundle, graphs = bundles.read(exported)
    bundles.write(tmp_path / "new", bundle, graphs)
    bundles.write(tmp_path / "new", replace(bundle, model="other"), graphs)
    assert bundles.read(tmp_path / "new")[0].model == "other"
    assert (tmp_path / "mine.txt").read_text() == "x"


@pytest.mark.real_data
def test_the_embedded_model_in_8_bits_finds_the_same_masks(real_data: Path, tmp_path: Path) -> None:
    words = ["export", "--precision", "int8", "--calibration-images", real_data / "train", "--out", tmp_path / "int8"]
    assert main([str(word) for word in words]) == 0
    described = json.loads((tmp_path / "int8" / "ruac-onnx.json").read_text())
    assert described["check"]["mask_iou"] > 0.9
    assert sum((tmp_path / "int8" / f"{part}.onnx").stat().st_size for part in ("encoder", "decoder")) < 9e6
    assert load("nano").side == described["side"]
