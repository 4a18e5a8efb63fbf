"""Files that once ended in something else than a refusal in words, each as small as it can be."""

from __future__ import annotations

import json
import math
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save
from squares import write_set

from ruac import bench, checksums
from ruac.calibrate.file import Calibration
from ruac.card import card
from ruac.cli import main
from ruac.data.convert import Manifest
from ruac.data.folder import find_sets, read_mask
from ruac.data.image import ImageError, read_image
from ruac.data.layout import inside
from ruac.data.readers import CocoJson
from ruac.data.runlengths import polygons_of
from ruac.evaluate import calibration
from ruac.evaluate.clickfile import ClickFile
from ruac.evaluate.protocol import Protocol
from ruac.evaluate.results import Row, read_results
from ruac.evaluate.run import evaluate_sets
from ruac.exchange.brush import decode_brush
from ruac.exchange.command import read_labels
from ruac.exchange.pictures import size_of_picture
from ruac.export import bundle
from ruac.label.images import find_images
from ruac.label.part import Folder, open_folder
from ruac.label.prompts import read_prompts
from ruac.loading import read as read_model
from ruac.model import RuacModel, decoder_sha256
from ruac.quality.command import refuse_out
from ruac.report.numbers import numbers
from ruac.report.read import compare, open_runs
from ruac.report.scores import Scores
from ruac.rivals import store
from ruac.training.checkpoint import Position, load_checkpoint
from ruac.training.config import Stage, TrainConfig
from ruac.training.records import StepLog, write_validation
from ruac.training.sources import read_ids

DEEP = "[" * 5000 + "]" * 5000
HUGE = 10**400  # more than a float holds
TOO_LONG = "é" * 300  # 600 bytes: more than a file system takes


def bomb(path: Path, width: int, height: int) -> Path:
    """A PNG of a hundred bytes that says it is so large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("read", [read_mask, read_ids])
@pytest.mark.parametrize("size", [(65535, 65535), (30000, 30000), (2**31 - 1, 2**31 - 1), (20000, 10000)])
def test_a_mask_that_says_it_is_huge_is_refused(read: Callable[[Path], Any], size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mask\.png: not a readable image"):
        read(bomb(tmp_path / "mask.png", *size))


@pytest.mark.parametrize("read", [read_mask, read_ids])
def test_a_mask_of_a_kind_that_is_not_read_is_named(read: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"P6\n999999999999 2\n255\n")
    with pytest.raises(ValueError, match=r"mask\.png"):
        read(tmp_path / "mask.png")


@pytest.mark.parametrize("read", [read_image, size_of_picture, read_mask, read_ids])
def test_a_picture_that_asks_for_more_memory_than_there_is(
    read: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", starved)
    with pytest.raises(ValueError, match=r"a\.png"):
        read(tmp_path / "a.png")


def test_names_that_no_file_system_takes(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / TOO_LONG)
    with pytest.raises(ValueError, match="is no file name"):
        inside(tmp_path, "\ud800")
    (tmp_path / "list.txt").write_text(TOO_LONG)
    with pytest.raises(ValueError, match="no name of a file"):
        find_images([str(tmp_path / "list.txt")], tmp_path / "out")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"data: [data]\nout: \xe9\n"])
def test_a_recipe_that_is_no_text(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_bytes(content)
    assert main(["train", "--config", str(tmp_path / "recipe.yaml")]) == 2
    assert capsys.readouterr().err.startswith(f"ruac: {tmp_path / 'recipe.yaml'}: no YAML file with the settings (")


def test_lists_in_lists_are_no_polygons() -> None:
    deep: list[Any] = [1, 2]
    for _ in range(900):
        deep = [deep]
    with pytest.raises(ValueError, match="lists, one in the other"):
        polygons_of(deep)


def test_a_refusal_does_not_repeat_all_that_it_refuses(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "a.jpg", "height": list(range(5000)), "width": 3}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": []}))
    (item,) = CocoJson((("a.json", "images"),)).items(tmp_path)
    with pytest.raises(ValueError, match="the image has 30 x 20") as caught:
        item.labels((20, 30))
    assert len(str(caught.value)) < 500


def test_a_click_beyond_all_numbers(tmp_path: Path) -> None:
    click = {"set": "a", "image": "b", "objects": {"1": {"points": [[10**400, 1, 1]]}}}
    header = {"format": "ruac-prompts-1", "prompt": "point", "clicks": 1}
    (tmp_path / "clicks.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(click)}\n")
    with pytest.raises(ValueError, match=r"clicks\.jsonl: entry 2: not the prompts of an image"):
        ClickFile.read(tmp_path / "clicks.jsonl")


def test_a_point_of_a_thousand_numbers_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps({"a.png": [{"points": [[0] * 1000]}]}))
    with pytest.raises(ValueError, match="a point is x, y") as caught:
        read_prompts(tmp_path / "boxes.json")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("number", ["1e400", '"cat"', "0.5", "[1]"])
@pytest.mark.parametrize("key", ["id", "width"])
def test_numbers_of_coco_that_are_none(key: str, number: str, tmp_path: Path) -> None:
    text = """{"images": [{"id": 1, "file_name": "a.png", "height": 20, "width": WIDTH}], "categories": [{"id": ID, "name": "cat"}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}]}"""
    values = {"id": "1", "width": "30"} | {key: number}
    (tmp_path / "boxes.json").write_text(text.replace("WIDTH", values["width"]).replace("ID", values["id"]))
    with pytest.raises(ValueError, match=r"boxes\.json"):
        read_prompts(tmp_path / "boxes.json")


def test_a_header_that_does_not_end(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text('"image,x,y\na.png,1,2\n')
    with pytest.raises(ValueError, match=r"points\.csv: line 1: "):
        read_prompts(tmp_path / "points.csv")


@pytest.mark.parametrize("content", ["[]", "3", DEEP, "{", '{"name": 3}', '{"name": null}', "\xff"])
def test_what_is_said_of_a_set_must_be_an_object(content: str, tmp_path: Path) -> None:
    write_set(tmp_path / "set", 1)
    (tmp_path / "set" / "meta.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"meta\.json: "):
        find_sets([tmp_path / "set"])


def test_checksums_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / checksums.FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=f"{checksums.FILE}: damaged"):
        checksums.verify(tmp_path)


def test_a_fitted_method_without_a_name(tiny_model: RuacModel, tmp_path: Path) -> None:
    facts = {"format": store.FORMAT, "decoder": decoder_sha256(tiny_model)}
    (tmp_path / "rival.safetensors").write_bytes(save({"covariance": torch.eye(2)}, facts))
    with pytest.raises(ValueError, match=r"rival\.safetensors: not a fitted method"):
        store.read(tmp_path / "rival.safetensors", tiny_model)


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({}, "model.a"),
        ({"stage": "0"}, "model.a"),
        ({"stage": "x", "step": "1"}, "model.a"),
        ({"stage": "0", "step": "1"}, "other.a"),
    ],
)
def test_a_checkpoint_that_does_not_say_where_it_stands(facts: dict[str, str], name: str, tmp_path: Path) -> None:
    config = TrainConfig([Path("data")], tmp_path, [Stage(1, 64)])
    content = save({name: torch.zeros(2)}, {"run": config.fingerprint(), **facts})
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors: damaged \(.*remove it to start again"):
        load_checkpoint(config)


def test_a_checkpoint_without_metadata(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(save({"model.a": torch.zeros(2)}))
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors: belongs to a run with other settings"):
        load_checkpoint(TrainConfig([Path("data")], tmp_path, [Stage(1, 64)]))


@pytest.mark.parametrize("content", [DEEP, "[3]", "3"])
def test_files_of_our_own_that_are_lists(content: str, tmp_path: Path) -> None:
    for name in (
        "calibration.json",
        bundle.DESCRIPTION,
        "settings.json",
        "config.json",
        "a.jsonl",
        "summary.json",
        "parts/a.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    reads: dict[str, Callable[[], object]] = {
        "calibration.json": lambda: Calibration.read(tmp_path / "calibration.json"),
        bundle.DESCRIPTION: lambda: bundle.read(tmp_path),
        "settings.json": lambda: open_folder(tmp_path, {}),
        "no RUAC model": lambda: refuse_out(tmp_path, in_place=True, head=None),
        "a.jsonl": lambda: read_results(tmp_path / "a.jsonl"),
        "summary.json": lambda: open_runs([tmp_path]),
        "a.json": lambda: Folder(tmp_path).load("a"),
    }
    for words, read in reads.items():
        with pytest.raises(ValueError, match=words):
            read()


@pytest.mark.parametrize("annotations", [3, True, {"a": 1}, "text"])
def test_a_task_whose_annotations_are_no_list(annotations: Any, tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text(json.dumps([{"data": {"image": "/a.png"}, "annotations": annotations}]))
    assert read_labels(tmp_path / "tasks.json").labels.count == 0


ROW = {"id": "0", "objects": [1, 9], "masks": {"iou@1": [0.5, 0.6]}, "pixels": {"head.auroc.image@1": 0.7}, "prompts": [[], []]}


@pytest.mark.parametrize(
    "change",
    [
        {"masks": {"iou@1": ["a", 0.6]}},
        {"masks": {"iou@1": [0.5]}},
        {"pixels": {"head.auroc.image@1": [0.7]}},
        {"id": 3},
        {"objects": ["a", "b"]},
        {"prompts": [[[1]], []]},
        {"pixels": {"head.auroc.image@1": HUGE}},
        {"masks": {"iou@1": [1.5e308, 1.5e308]}},
        {"masks": {"iou@1": [math.nan, 0.6]}},
    ],
)
def test_rows_with_measures_that_are_none(change: dict[str, Any]) -> None:
    assert Row.from_json(json.dumps(ROW)).objects == (1, 9)
    with pytest.raises(ValueError, match="not a row of results"):
        Row.from_json(json.dumps(ROW | change))


@pytest.mark.parametrize("content", [b"a,b,c,d\n", b"\xff\xfe", b'"0,1', b"0\n"])
def test_logs_that_are_no_tables(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"log\.csv: damaged"):
        StepLog(tmp_path / "log.csv", Position(0, 1))
    with pytest.raises(ValueError, match=r"log\.csv: damaged"):
        write_validation(tmp_path / "log.csv", Position(0, 1), [])


@pytest.mark.parametrize("content", [b"[3]\n", b"\xff\n", b'{}\n{"name": 3}\n', b'{}\n{"name": 3, "image": "a", "crc": 0}\n'])
def test_a_manifest_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "convert.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=r"convert\.jsonl: damaged"):
        Manifest(tmp_path, {"seed": 0})


@pytest.fixture(scope="module")
def evaluated(tiny_model: RuacModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluated")
    sets = find_sets([write_set(root / "squares", 2)])
    evaluate_sets(tiny_model, sets, root / "eval", Protocol((1,), max_objects=2))
    return root / "eval"


@pytest.mark.parametrize(
    "origin",
    [
        {"clicks": 3},
        {"clicks": ["1"]},
        {"clicks": []},
        {"methods": [3]},
        {"prompts": 7},
        {"methods": "head"},
        {"weights": [3]},
        {"noc": {}},
    ],
)
def test_results_that_do_not_say_how_they_were_made(origin: dict[str, Any], evaluated: Path, tmp_path: Path) -> None:
    for path in evaluated.iterdir():
        header, *rows = path.read_bytes().split(b"\n") if path.suffix == ".jsonl" else (b"", path.read_bytes())
        if path.suffix == ".jsonl":
            described = json.loads(header)
            described["origin"] |= origin
            rows = [json.dumps(described).encode(), *rows]
        (tmp_path / path.name).write_bytes(b"\n".join(rows))
    with pytest.raises(ValueError, match="damaged results, "):
        numbers(Scores(compare(open_runs([tmp_path]))))


@pytest.mark.parametrize("micro", [3, [1], {"iou@1": {}}, {"iou@1": [0.5]}, {"iou@1": "0.5"}, {"iou@1": HUGE}])
def test_a_summary_with_measures_that_are_none(micro: Any, evaluated: Path, tmp_path: Path) -> None:
    summary = json.loads((evaluated / "summary.json").read_text())
    summary["sets"][0]["micro"] = micro
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match=r"summary\.json: not the summary of an evaluation \(a measure that is no number\)"):
        open_runs([tmp_path])


def test_a_summary_of_a_number_of_images_that_is_none(evaluated: Path, tmp_path: Path) -> None:
    summary = json.loads((evaluated / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"max_images": [1]}))
    with pytest.raises(ValueError, match=r"summary\.json: .*max_images is no number"):
        open_runs([tmp_path])


def test_a_temperature_beyond_all_numbers(tmp_path: Path) -> None:
    (tmp_path / "temperatures.json").write_text(json.dumps({"temperatures": {"1": HUGE}}))
    with pytest.raises(ValueError, match=r"temperatures\.json: damaged; delete it"):
        calibration._stored(tmp_path / "temperatures.json", {})


@pytest.mark.parametrize("figure", [{"median": HUGE, "low": 1, "high": 1}, {"median": 1}, 3])
def test_figures_that_are_none(figure: Any, tmp_path: Path) -> None:
    result = {"format": bench.FORMAT, "model": "nano", "machine": "m", "figures": dict.fromkeys(bench.NAMES, figure)}
    (tmp_path / "bench.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match=r"bench\.json: no result of ruac bench"):
        bench.read(tmp_path / "bench.json")


EXPORTED = {"model": "nano", "model_sha256": "0", "precision": "fp32", "side": 64, "grid": 16, "fit": "pad", "grey": 0}
EXPORTED |= {"quality": None, "head_trained": True, "opset": 17, "files": {}, "check": {}, "ruac": "1"}


@pytest.mark.parametrize("change", [{"check": {"logits": HUGE}}, {"fit": [0] * 5000}, {"side": "9" * 5000}, {"a" * 5000: 1}])
def test_an_exported_model_that_is_described_at_length(change: dict[str, Any], tmp_path: Path) -> None:
    described = {"format": bundle.FORMAT, **EXPORTED}
    (tmp_path / bundle.DESCRIPTION).write_text(json.dumps(described))
    with pytest.raises(FileNotFoundError, match=bundle.ENCODER):  # the description is as it should be
        bundle.read(tmp_path)
    (tmp_path / bundle.DESCRIPTION).write_text(json.dumps(described | change))
    with pytest.raises(ValueError, match=rf"{bundle.DESCRIPTION}: .*; export the model again") as caught:
        bundle.read(tmp_path)
    assert len(str(caught.value)) < 1500


def test_a_calibration_of_a_format_that_is_a_book(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text(json.dumps({"format": [0] * 5000}))
    with pytest.raises(ValueError, match=r"calibration\.json: not a calibration") as caught:
        Calibration.read(tmp_path / "calibration.json")
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("name", ["summary.json", "run/settings.json", "run/log.csv", "run/validation.csv"])
@pytest.mark.parametrize("content", [b"{}", b"[3]", b"\xff", b"a,b,c,d", b"x,0,1.0,{"])
def test_a_card_of_files_that_are_none(name: str, content: bytes, evaluated: Path, tmp_path: Path) -> None:
    for folder in ("model", "run"):
        (tmp_path / folder).mkdir()
    write_set(tmp_path / "data", 1)
    run = TrainConfig([Path("data")], Path("run"), [Stage(2, 64)])
    (tmp_path / "model" / "model.safetensors").touch()
    (tmp_path / "summary.json").write_bytes((evaluated / "summary.json").read_bytes())
    settings = {"stages": [{"train": "all", "images": 1, "objects": 1, "image_size": 64, "rate": 1, "encoder_rate": 1}]}
    settings |= {"machine": "m", "seed": 0, "scenes": {"weights": {}}, "data": list(map(str, run.data))}
    (tmp_path / "run" / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "run" / "log.csv").write_text('0,0,1.0,"{""iou1"": 0.5}"\n')
    (tmp_path / "run" / "validation.csv").write_text("0,1,squares,2,0.5,0.6,0.7\n")
    make = lambda: card(tmp_path / "model", [tmp_path / "run"], tmp_path / "summary.json", [tmp_path / "data"])  # noqa: E731
    make()
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=str(tmp_path)):
        make()
    if name == "run/settings.json":
        (tmp_path / name).write_bytes(whole.replace(b'"rate": 1', f'"rate": {HUGE}'.encode()))
        with pytest.raises(ValueError, match=r"not as it was written \(OverflowError\)"):
            make()
    halved = {"run/settings.json": (b'"machine": "m"', b'"machine": "\\ud800"'), "summary.json": (b'"squares"', b'"\\ud800"')}
    if name in halved:
        (tmp_path / name).write_bytes(whole.replace(*halved[name]))
        with pytest.raises(ValueError, match=r"not as it was written \(UnicodeEncodeError\)"):
            make()


@pytest.mark.parametrize("rle", [10**18, 2**40, "text", {"a": 1}, [256], [None]])
def test_a_brush_that_is_no_list_of_bytes(rle: Any) -> None:
    with pytest.raises(ValueError, match=r"a brush (whose rle is no list of bytes|that ends too early)"):
        decode_brush(rle, (20, 30))


@pytest.mark.parametrize("content", [{"é" * 5000: {}}, {"a" * 5000: [3]}, {"a.jpg": [{"label": [0] * 5000}]}])
def test_prompts_whose_names_are_books(content: Any, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"boxes\.json: '[éa.jpg]+'") as caught:
        read_prompts(tmp_path / "boxes.json")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [(None, "mixing_depths", [2**64, 2, 3]), ("mask_decoder_config", "num_hidden_layers", 10**6), (None, "num_labels", 10**9)],
)
def test_a_model_of_more_parts_than_any_has(
    part: str | None, key: str, value: Any, tiny_model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    (tmp_path / "model" / checksums.FILE).unlink()
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (config["sam"][part] if part else config["sam"])[key] = value
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"config\.json: {key} is over the limit of 1000"):
        read_model(tmp_path / "model")


def test_results_without_the_true_iou_have_no_agreement(evaluated: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated, tmp_path / "eval")
    path = tmp_path / "eval" / "squares.jsonl"
    path.write_text(path.read_text().replace('"iou@1"', '"you@1"'))
    numbers(Scores(compare(open_runs([tmp_path / "eval"]))))
