import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from squares import write_set

import ruac.evaluate.calibration as calibration_module
import ruac.evaluate.run as run_module
from ruac.data.folder import FolderSet, find_sets
from ruac.errors import WorkError
from ruac.evaluate.command import evaluate, parse_clicks, parse_methods
from ruac.evaluate.pool import Pool
from ruac.evaluate.protocol import ImageResult, Protocol
from ruac.evaluate.results import Origin, ResultsFile, Row
from ruac.evaluate.run import evaluate_sets
from ruac.families.nano import NanoConfig
from ruac.loading import load
from ruac.model import RuacConfig, RuacModel, weights_sha256

ORIGIN = Origin(weights="0" * 64, ruac="0.1.0", clicks=(1, 3), max_objects=10, seed=0, prompt="point")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "squares")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def row(name: str, iou: float = 0.5, auroc: float | None = 0.9) -> Row:
    return Row(name, (1, 2), {"iou@1": (iou, None)}, {"head.auroc.image@1": auroc}, (((3, 4, 1),), ((5, 6.5, 0),)))


def pool(name: str) -> Pool:
    return Pool(frozenset({name}), {"pixels.head.image@1.counts": np.ones((2, 3), np.int64)})


def test_command_writes_rows_and_summaries(data: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate([data], model=str(tiny_model_folder), clicks="1,2", out=out)
    names = sorted(path.name for path in out.iterdir())
    assert names == ["squares.jsonl", "squares.pool.safetensors", "summary.json", "summary.md"]
    header, *rows = (json.loads(line) for line in lines(out / "squares.jsonl"))
    assert header["origin"]["clicks"] == [1, 2]
    assert [entry["id"] for entry in rows] == ["0", "1", "2"]
    for entry in rows:
        assert entry["objects"] == [1, 9]
        measures = ("iou", "dice", "boundary_f", "j_and_f", "predicted_iou", "head.expected_iou", "plain.expected_iou")
        assert sorted(entry["masks"]) == sorted(f"{measure}@{n}" for measure in measures for n in (1, 2))
        assert all(len(values) == 2 for values in entry["masks"].values())
        # methods, regions, numbers of clicks, measures
        assert len(entry["pixels"]) == 2 * 2 * 2 * 12
        assert [len(points) for points in entry["prompts"]] == [2, 2]
    summary = json.loads((out / "summary.json").read_text())
    (part,) = summary["sets"]
    assert (part["name"], part["group"], part["images"], part["objects"], part["failed"]) == ("squares", "zero-shot", 3, 6, [])
    iou = part["measures"]["iou@2"]
    assert iou["mean"] == pytest.approx(np.mean([entry["masks"]["iou@2"] for entry in rows]), abs=1e-12)
    assert iou["low"] <= iou["mean"] <= iou["high"]
    gain = part["measures"]["difference.head.auroc.image@1"]["mean"]
    head, plain = (part["measures"][f"{name}.auroc.image@1"]["mean"] for name in ("head", "plain"))
    assert gain == pytest.approx(head - plain, abs=1e-12)
    assert gain != 0
    assert [group["name"] for group in summary["groups"]] == ["all", "zero-shot"]
    assert summary["groups"][0]["better"]["head.auroc.image@1"] == float(gain > 0)
    whole = Pool.load(out / "squares.pool.safetensors").histogram("head", "image", 1).read()
    assert whole.pixels == 3 * 2 * 40 * 52
    assert part["micro"]["head.auroc.image@1"] == whole.auroc
    assert part["micro"]["head.auroc.image@1"] != part["measures"]["head.auroc.image@1"]["mean"]
    assert summary["cost"]["factors"].keys() == {"head", "plain"}
    assert summary["head_trained"] == load(tiny_model_folder).config.head_trained
    assert "| squares | 3 | 6 |" in (out / "summary.md").read_text()


def test_a_stopped_run_goes_on_and_ends_with_the_same_summary(
    data: Path, tiny_model: RuacModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "cost", lambda *arguments: {"head": 1.1, "plain": 1.0})
    sets, protocol = find_sets([data]), Protocol(clicks=(1, 2))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    evaluate_sets(tiny_model, sets, whole, protocol)
    evaluate_image, seen = run_module.evaluate_image, []

    def interrupted(*arguments: object) -> ImageResult:
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(arguments)
        return evaluate_image(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "evaluate_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_sets(tiny_model, sets, stopped, protocol)
    assert len(lines(stopped / "squares.jsonl")) == 2
    assert not (stopped / "summary.json").exists()
    counted = []
    monkeypatch.setattr(run_module, "evaluate_image", lambda *arguments: counted.append(1) or evaluate_image(*arguments))
    evaluate_sets(tiny_model, sets, stopped, protocol)
    assert len(counted) == 2
    for name in ("squares.jsonl", "squares.pool.safetensors", "summary.json", "summary.md"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_a_half_written_line_and_a_missing_row_are_made_up_for(data: Path, tiny_model: RuacModel, tmp_path: Path) -> None:
    sets, protocol, out = find_sets([data]), Protocol(clicks=(1,)), tmp_path / "out"
    evaluate_sets(tiny_model, sets, out, protocol)
    expected = (out / "summary.json").read_bytes()
    header, first, _, third = lines(out / "squares.jsonl")
    (out / "squares.jsonl").write_text(header + third + first[: len(first) // 2])
    evaluate_sets(tiny_model, sets, out, protocol)
    assert (out / "summary.json").read_bytes() == expected
    assert [json.loads(line)["id"] for line in lines(out / "squares.jsonl")[1:]] == ["0", "1", "2"]


def test_rows_that_the_pool_does_not_hold_yet_are_made_again(data: Path, tiny_model: RuacModel, tmp_path: Path) -> None:
    """As after a kill between two writes of the pool."""
    sets, protocol, out = find_sets([data]), Protocol(clicks=(1,)), tmp_path / "out"
    evaluate_sets(tiny_model, sets, out, protocol)
    paths = [out / name for name in ("squares.jsonl", "squares.pool.safetensors", "summary.json")]
    expected = [path.read_bytes() for path in paths]
    before = tmp_path / "before"
    evaluate_sets(tiny_model, sets, before, protocol, max_images=1)
    (out / "squares.pool.safetensors").write_bytes((before / "squares.pool.safetensors").read_bytes())
    file = ResultsFile(out / "squares.jsonl", "squares", Origin.of(tiny_model, protocol))
    assert file.ids == {"0"}
    evaluate_sets(tiny_model, sets, out, protocol)
    assert [path.read_bytes() for path in paths] == expected


def test_an_error_while_the_cost_is_measured_is_not_taken_for_an_unreadable_image(
    data: Path, tiny_model: RuacModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> dict[str, float]:
        raise ValueError("no clock")

    monkeypatch.setattr(run_module, "cost", fails)
    with pytest.raises(ValueError, match="no clock"):
        evaluate_sets(tiny_model, find_sets([data]), tmp_path / "out", Protocol(clicks=(1,)))
    # an image that cannot be read is passed over
    (data / "images" / "0.png").write_bytes(b"")
    monkeypatch.setattr(run_module, "cost", lambda *arguments: {"head": 1.1, "plain": 1.0})
    summary = evaluate_sets(tiny_model, find_sets([data]), tmp_path / "less", Protocol(clicks=(1,)))
    assert summary.cost is not None
    assert len(summary.failed) == 1


def test_results_can_be_deleted_and_made_anew(data: Path, tiny_model: RuacModel, tmp_path: Path) -> None:
    sets, out = find_sets([data]), tmp_path / "out"
    evaluate_sets(tiny_model, sets, out, Protocol(clicks=(1,)))
    (out / "squares.jsonl").unlink()
    evaluate_sets(tiny_model, sets, out, Protocol(clicks=(2,)))
    assert Pool.load(out / "squares.pool.safetensors").clicks == (2,)


def test_a_file_killed_before_its_first_line_was_whole_is_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"set": "a"')
    assert ResultsFile(path, "a", ORIGIN).ids == set()
    assert json.loads(path.read_text())["origin"]["seed"] == 0


def test_results_of_another_model_or_other_settings_are_refused_before_any_work(
    data: Path, tiny_model: RuacModel, tmp_path: Path
) -> None:
    sets, out = find_sets([data]), tmp_path / "out"
    evaluate_sets(tiny_model, sets, out, Protocol(clicks=(1,)))
    before = (out / "squares.jsonl").read_bytes()
    with pytest.raises(
        ValueError, match=r"squares\.jsonl: results of another run \(clicks: \[1\] there, \[1, 2\] now\); choose another"
    ):
        evaluate_sets(tiny_model, sets, out, Protocol(clicks=(1, 2)))
    other = RuacModel(RuacConfig(sam=NanoConfig.of_size(64, width=32).to_dict(), head="exact")).eval()
    with pytest.raises(ValueError, match=r"another run \(weights: [0-9a-f]{64} there, [0-9a-f]{64} now\)"):
        evaluate_sets(other, sets, out, Protocol(clicks=(1,)))
    assert (out / "squares.jsonl").read_bytes() == before


@pytest.mark.parametrize("content", ["not json\n", '{"set": "a"}\n', '["a"]\n', "{HEADER}\n{}\n", "{HEADER}\n[1, 2]\n"])
def test_a_damaged_results_file_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    ResultsFile(path, "a", ORIGIN)
    content = content.replace("{HEADER}", path.read_text().strip())
    path.write_text(content)
    with pytest.raises(ValueError, match=r"a\.jsonl: damaged results \(.*delete the file"):
        ResultsFile(path, "a", ORIGIN)
    assert path.read_text() == content


def test_results_of_another_set_are_refused(tmp_path: Path) -> None:
    ResultsFile(tmp_path / "a.jsonl", "a", ORIGIN)
    with pytest.raises(ValueError, match="results of the set 'a', not of 'b'"):
        ResultsFile(tmp_path / "a.jsonl", "b", ORIGIN)


def test_rows_and_pool_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    rows = [row("a", 1 / 3), row("b", auroc=None)]
    file = ResultsFile(tmp_path / "x.jsonl", "x", ORIGIN)
    for entry in rows:
        file.add(entry, pool(entry.id))
    file.save_pool()
    again = ResultsFile(tmp_path / "x.jsonl", "x", ORIGIN)
    assert list(again.pick(["b", "missing", "a"])) == rows[::-1]
    assert again.pool.images == {"a", "b"}
    assert again.pool.tensors["pixels.head.image@1.counts"].tolist() == [[2, 2, 2], [2, 2, 2]]


def test_a_pool_of_another_run_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "x.jsonl", "x", ORIGIN)
    file.add(row("a"), pool("a"))
    pool("a").save(tmp_path / "x.pool.safetensors", {"seed": 1})
    with pytest.raises(ValueError, match=r"x\.pool\.safetensors: belongs to another run; delete it"):
        ResultsFile(tmp_path / "x.jsonl", "x", ORIGIN)
    (tmp_path / "x.pool.safetensors").write_bytes(b"no pool")
    with pytest.raises(ValueError, match=r"x\.pool\.safetensors: damaged \(SafetensorError\); delete it"):
        ResultsFile(tmp_path / "x.jsonl", "x", ORIGIN)


def test_weights_have_the_same_hash_in_memory_and_after_loading(tiny_model: RuacModel, tiny_model_folder: Path) -> None:

    assert weights_sha256(load(tiny_model_folder)) == weights_sha256(tiny_model)


def test_an_unreadable_image_is_left_out_listed_and_tried_again(data: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    good = (data / "images" / "1.png").read_bytes()
    (data / "images" / "1.png").write_bytes(good[:200])
    out = tmp_path / "out"

    def run() -> dict:
        evaluate([data], model=str(tiny_model_folder), clicks="1", out=out)
        return json.loads((out / "summary.json").read_text())

    with pytest.raises(WorkError, match=r"1 images could not be read:\n.*1\.png"):
        run()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["sets"][0]["images"] == 2
    assert "1.png" in summary["sets"][0]["failed"][0]
    assert "1.png" in (out / "summary.md").read_text()
    (data / "images" / "1.png").write_bytes(good)
    assert run()["sets"][0]["images"] == 3


def test_max_images_takes_the_first_and_can_be_raised_later(data: Path, tiny_model: RuacModel, tmp_path: Path) -> None:
    sets, out = find_sets([data]), tmp_path / "out"
    assert evaluate_sets(tiny_model, sets, out, Protocol(clicks=(1,)), max_images=1).sets[0].images == 1
    assert evaluate_sets(tiny_model, sets, out, Protocol(clicks=(1,))).sets[0].images == 3
    assert evaluate_sets(tiny_model, sets, out, Protocol(clicks=(1,)), max_images=2).sets[0].images == 2
    with pytest.raises(ValueError, match="max_images must be at least 1, not 0"):
        evaluate_sets(tiny_model, sets, out, Protocol(clicks=(1,)), max_images=0)


def test_how_many_images_and_what_was_typed_are_recorded_and_right_in_the_end(
    data: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    for number in (1, 2, None):
        evaluate([Path("squares")], model=str(tiny_model_folder), clicks="1", out=out, max_images=number)
        summary = json.loads((out / "summary.json").read_text())
        assert (summary["max_images"], summary["sets"][0]["images"]) == (number, number or 3)
        assert ("Only the first" in (out / "summary.md").read_text()) == (number is not None)
        assert summary["paths"] == {"data": ["squares"]}
        assert "max_images" not in summary["origin"]


def test_a_folder_of_sets_is_all_of_its_sets(tmp_path: Path) -> None:
    write_set(tmp_path / "b", 1)
    write_set(tmp_path / "a", 2)
    (tmp_path / "notes").mkdir()
    assert [(part.name, len(part.samples)) for part in find_sets([tmp_path])] == [("a", 2), ("b", 1)]
    with pytest.raises(ValueError, match="a second set named 'a'"):
        find_sets([tmp_path, tmp_path / "a"])
    with pytest.raises(FileNotFoundError, match="notes: no data set here"):
        find_sets([tmp_path / "notes"])


def test_a_set_whose_name_would_leave_the_folder_is_refused(data: Path) -> None:
    (data / "meta.json").write_text('{"name": "../escape"}')
    with pytest.raises(ValueError, match=r"meta\.json: the name '\.\./escape' cannot be a file name"):
        find_sets([data])


def test_clicks_are_numbers_with_commas() -> None:
    assert parse_clicks("1,3, 5") == (1, 3, 5)
    with pytest.raises(ValueError, match="such as 1,3,5, not '1;3'"):
        parse_clicks("1;3")


def test_methods_are_names_with_commas_or_all() -> None:
    assert parse_methods("head, plain,head") == ("head", "plain")
    assert {"head", "plain", "temperature", "tta"} < set(parse_methods("all"))


@pytest.mark.real_data
def test_the_groups_of_the_real_sets(real_data: Path, tiny_model: RuacModel, tmp_path: Path) -> None:
    sets = find_sets([real_data / "eval" / name for name in ("crackforest", "ecssd", "eye_nir_pupil")])
    summary = evaluate_sets(tiny_model, sets, tmp_path, Protocol(clicks=(1,), max_objects=2), max_images=2)
    assert {part.name: (part.group, part.images) for part in summary.sets} == {
        "crackforest": ("stress", 2),
        "ecssd": ("near-source", 2),
        "eye_nir_pupil": ("zero-shot", 2),
    }
    assert [group.name for group in summary.groups] == ["all", "near-source", "stress", "zero-shot"]


def test_the_command_takes_several_sets_and_writes_its_tables(data: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    """Through the real command line; the same set twice is wrong use, said in one line."""
    command = [sys.executable, "-m", "ruac", "eval", "--model", str(tiny_model_folder), "--out", str(tmp_path), "--clicks", "1,2"]
    done = subprocess.run([*command, "--data", str(data)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.iterdir()} >= {"summary.json", "summary.md"}
    twice = subprocess.run([*command, "--data", str(data), str(data)], capture_output=True, text=True)
    assert twice.returncode == 2
    assert len(twice.stderr.strip().splitlines()) == 1


def test_every_method_and_option_through_the_real_command_line(data: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    fit, out, told = write_set(tmp_path / "fit", 1), tmp_path / "out", tmp_path / "told.jsonl"
    words = ["--model", str(tiny_model_folder), "--data", str(data), "--out", str(out), "--clicks", "1,2", "--max-images", "1"]
    words += ["--methods", "all", "--calibration", str(fit), "--noc", "3", "--save-prompts", str(told)]
    done = subprocess.run([sys.executable, "-m", "ruac", "eval", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    methods = ["head", "monte_carlo", "plain", "predicted_iou", "prompts", "temperature", "tta"]
    assert sorted(summary["origin"]["methods"]) == methods
    assert sorted(summary["origin"]["temperatures"]) == ["1", "2"]
    (part,) = summary["sets"]
    for method in methods:
        assert 0 <= part["measures"][f"{method}.ece.band@2"]["mean"] <= 1
        assert 0 <= part["micro"][f"{method}.pavpu.image@1"] <= 1
        assert 1 <= summary["groups"][0]["ranks"][f"{method}.image@2"] <= len(methods)
    # all are judged on the same masks
    assert len({part["measures"][f"{method}.error_rate.image@2"]["mean"] for method in methods}) == 1
    assert len({part["measures"][f"{method}.auroc.image@2"]["mean"] for method in methods}) > 3
    assert part["measures"]["difference.tta.aurc.image@1"]["mean"] != 0
    costs = summary["cost"]["factors"]
    assert costs["plain"] < costs["prompts"]
    row = json.loads(lines(out / "squares.jsonl")[1])
    assert [f"iou@{n}" in row["masks"] for n in (1, 2, 3, 4)] == [True, True, True, False]
    assert part["measures"]["noc.85"]["mean"] == np.mean(row["masks"]["noc.85"])
    assert json.loads(lines(told)[0]) == {"format": "ruac-prompts-1", "prompt": "point", "clicks": 3}
    text = (out / "summary.md").read_text()
    assert all(f"| {method} |" in text for method in methods)
    assert "NoC@85" in text


def test_temperatures_are_fitted_once_and_again_for_other_sets(
    data: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = []

    def fit_temperature(model: RuacModel, sets: list[FolderSet], protocol: Protocol) -> dict[int, float]:
        fits.append([part.name for part in sets])
        return {1: 1.5 + len(fits)}

    monkeypatch.setattr(calibration_module, "fit_temperature", fit_temperature)
    fit, other = write_set(tmp_path / "fit", 1), write_set(tmp_path / "other", 1)
    options = {"model": str(tiny_model_folder), "clicks": "1", "methods": "plain,temperature", "max_images": 1}
    for folder, out in ((fit, "a"), (fit, "a"), (fit, "b"), (other, "b")):
        if folder is other:
            with pytest.raises(ValueError, match=r"another run \(temperatures: \{'1': 3.5\} there, \{'1': 4.5\} now\)"):
                evaluate([data], out=tmp_path / out, calibration=[folder], **options)
        else:
            evaluate([data], out=tmp_path / out, calibration=[folder], **options)
    assert fits == [["fit"], ["fit"], ["other"]]


def test_calibration_on_what_is_evaluated_or_for_nothing_is_refused(data: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    options = {"model": str(tiny_model_folder), "out": tmp_path / "out"}
    with pytest.raises(ValueError, match="--calibration: the set 'squares' is evaluated, too"):
        evaluate([data], calibration=[data.parent], methods="plain,temperature", **options)
    with pytest.raises(ValueError, match="for the method temperature: add it to --methods, or leave --calibration out"):
        evaluate([data], calibration=[data], **options)
    with pytest.raises(ValueError, match="give --calibration DIR"):
        evaluate([data], methods="plain,temperature", **options)
    with pytest.raises(ValueError, match="no uncertainty method 'tempreature': choose from head, plain"):
        evaluate([data], methods="tempreature", **options)
    assert not (tmp_path / "out").exists()
