import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ruac.evaluate.command as command
from ruac.data.folder import find_sets
from ruac.errors import WorkError
from ruac.evaluate.command import evaluate, evaluate_sets, parse_clicks
from ruac.evaluate.protocol import ImageResult, Protocol
from ruac.evaluate.results import Origin, ResultsFile, Row
from ruac.evaluate.summary import SetResults, bootstrap_means, summarise
from ruac.evaluate.table import markdown, overview
from ruac.families.nano import NanoConfig
from ruac.loading import load
from ruac.model import RuacConfig, RuacModel, weights_sha256

ORIGIN = Origin(weights="0" * 64, ruac="0.1.0", clicks=(1, 3), max_objects=10, seed=0, prompt="point")
KEYS = [f"{readout}.auroc.{region}@{n}" for readout in ("head", "plain") for region in ("image", "band") for n in (1, 3)]


def write_set(root: Path, images: int = 3) -> Path:
    """Pictures of two squares each, one of them with an ignored stripe."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(images):
        ids = np.zeros((40, 56), np.uint8)
        ids[4 + i : 20, 5:25], ids[22:36, 30:50] = 1, 9
        ids[:, 52:] = 255
        picture = rng.integers(0, 120, (40, 56, 3)) + 130 * (ids > 0)[..., None]
        Image.fromarray(picture.astype(np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(ids).save(root / "masks" / f"{i}.png")
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "squares")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def row(name: str, iou: float = 0.5, head: float | None = 0.9, plain: float | None = 0.8) -> Row:
    masks = {f"{measure}@{n}": (iou, iou) for measure in ("iou", "j_and_f") for n in (1, 3)}
    return Row(name, (1, 2), masks, {key: head if key.startswith("head") else plain for key in KEYS})


def test_command_writes_rows_and_summaries(data: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate([data], model=str(tiny_model_folder), clicks="1,2", out=out)
    assert sorted(path.name for path in out.iterdir()) == ["squares.jsonl", "summary.json", "summary.md"]
    header, *rows = (json.loads(line) for line in lines(out / "squares.jsonl"))
    assert header["origin"]["clicks"] == [1, 2]
    assert [entry["id"] for entry in rows] == ["0", "1", "2"]
    for entry in rows:
        assert entry["objects"] == [1, 9]
        assert sorted(entry["masks"]) == sorted(f"{m}@{n}" for m in ("iou", "dice", "boundary_f", "j_and_f") for n in (1, 2))
        assert all(len(values) == 2 for values in entry["masks"].values())
        assert len(entry["pixels"]) == 2 * 2 * 2 * 7
    summary = json.loads((out / "summary.json").read_text())
    (part,) = summary["sets"]
    assert (part["name"], part["group"], part["images"], part["objects"], part["failed"]) == ("squares", "zero-shot", 3, 6, [])
    iou = part["measures"]["iou@2"]
    assert iou["mean"] == pytest.approx(np.mean([entry["masks"]["iou@2"] for entry in rows]), abs=1e-12)
    assert iou["low"] <= iou["mean"] <= iou["high"]
    gain = part["measures"]["difference.auroc.image@1"]["mean"]
    head, plain = (part["measures"][f"{name}.auroc.image@1"]["mean"] for name in ("head", "plain"))
    assert gain == pytest.approx(head - plain, abs=1e-12)
    assert gain != 0
    assert [group["name"] for group in summary["groups"]] == ["all", "zero-shot"]
    assert summary["groups"][0]["head_better"]["image@1"] == float(gain > 0)
    assert "| squares | 3 | 6 |" in (out / "summary.md").read_text()


def test_a_stopped_run_goes_on_and_ends_with_the_same_summary(
    data: Path, tiny_model: RuacModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, protocol = find_sets([data]), Protocol(clicks=(1, 2))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    evaluate_sets(tiny_model, sets, whole, protocol)
    evaluate_image, seen = command.evaluate_image, []

    def interrupted(*arguments: object) -> ImageResult:
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(arguments)
        return evaluate_image(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "evaluate_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_sets(tiny_model, sets, stopped, protocol)
    assert len(lines(stopped / "squares.jsonl")) == 2
    assert not (stopped / "summary.json").exists()
    counted = []
    monkeypatch.setattr(command, "evaluate_image", lambda *arguments: counted.append(1) or evaluate_image(*arguments))
    evaluate_sets(tiny_model, sets, stopped, protocol)
    assert len(counted) == 2
    for name in ("squares.jsonl", "summary.json", "summary.md"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_a_half_written_line_and_a_missing_row_are_made_up_for(data: Path, tiny_model: RuacModel, tmp_path: Path) -> None:
    sets, protocol, out = find_sets([data]), Protocol(clicks=(1,)), tmp_path / "out"
    evaluate_sets(tiny_model, sets, out, protocol)
    expected = (out / "summary.json").read_bytes()
    header, first, _, third = lines(out / "squares.jsonl")
    (out / "squares.jsonl").write_text(header + third + first[: len(first) // 2])
    evaluate_sets(tiny_model, sets, out, protocol)
    assert (out / "summary.json").read_bytes() == expected
    assert [json.loads(line)["id"] for line in lines(out / "squares.jsonl")[1:]] == ["2", "0", "1"]


def test_a_file_killed_before_its_first_line_was_whole_is_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"set": "a"')
    assert ResultsFile(path, "a", ORIGIN).rows == {}
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


def test_rows_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    rows = [row("a", 1 / 3), row("b", head=None)]
    file = ResultsFile(tmp_path / "x.jsonl", "x", ORIGIN)
    for entry in rows:
        file.add(entry)
    again = ResultsFile(tmp_path / "x.jsonl", "x", ORIGIN)
    assert again.pick(["b", "missing", "a"]) == rows[::-1]


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


def test_groups_are_averages_of_their_sets_and_count_where_the_head_is_better() -> None:
    results = [
        SetResults("trashcan", "zero-shot", [row("a", 0.2), row("b", 0.4)]),
        SetResults("camvid", "zero-shot", [row("a", 0.9, head=0.7)]),
        SetResults("crackforest", "stress", [row("a", 0.0, head=None, plain=None)]),
    ]
    summary = summarise("m", ORIGIN, results)
    groups = {group.name: group for group in summary.groups}
    assert list(groups) == ["all", "stress", "zero-shot"]
    assert groups["zero-shot"].measures["iou@1"].mean == pytest.approx((0.3 + 0.9) / 2)
    assert groups["all"].measures["iou@1"].mean == pytest.approx((0.3 + 0.9 + 0) / 3)
    # where one set does not define it, the others count
    assert groups["all"].measures["head.auroc.image@1"].mean == pytest.approx(0.8)
    assert groups["all"].measures["difference.auroc.band@3"].mean == pytest.approx(0)
    assert (
        groups["all"].head_better
        == groups["zero-shot"].head_better
        == dict.fromkeys(("image@1", "image@3", "band@1", "band@3"), 0.5)
    )
    assert math.isnan(groups["stress"].head_better["image@1"])
    assert json.loads(summary.to_json())["groups"][1]["head_better"]["image@1"] is None


def test_images_without_objects_do_not_count() -> None:
    summary = summarise("m", ORIGIN, [SetResults("x", "zero-shot", [Row("empty", (), {}, {}), row("a", 0.25)])])
    assert (summary.sets[0].images, summary.sets[0].objects) == (1, 2)
    assert summary.sets[0].measures["iou@1"].mean == 0.25
    with pytest.raises(ValueError, match="no image was evaluated"):
        summarise("m", ORIGIN, [SetResults("x", "zero-shot", [Row("empty", (), {}, {})])])


def test_bootstrap_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    draws = bootstrap_means(values, "a set")
    assert draws.mean() == pytest.approx(values.mean(), abs=0.001)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (high - low) / 2 == pytest.approx(1.96 * 0.1 / math.sqrt(400), rel=0.1)
    np.testing.assert_array_equal(draws, bootstrap_means(values, "a set"))
    assert abs(np.corrcoef(draws, bootstrap_means(values, "another set"))[0, 1]) < 0.15


def test_bootstrap_leaves_undefined_values_out() -> None:
    draws = bootstrap_means(np.array([0.5, math.nan, 0.5]), "x")
    assert set(draws[np.isfinite(draws)]) == {0.5}
    assert np.isnan(draws).mean() == pytest.approx(1 / 27, abs=0.02)


def test_tables_show_groups_first_and_a_dash_for_what_is_not_defined() -> None:
    results = [SetResults("a|b", "zero-shot", [row("a", 0.25)]), SetResults("thin", "stress", [row("a", 0.5, None, None)])]
    summary = summarise("m", ORIGIN, results)
    grid = overview(summary)
    assert [line[0] for line in grid.rows] == ["all", "stress", "zero-shot", "a|b", "thin"]
    assert grid.rows[0][:4] == ("all", "2", "37.5", "37.5")
    assert grid.rows[3][4:6] == ("90.0", "80.0")
    assert grid.rows[4][4:6] == ("–", "–")
    text = markdown(summary)
    assert "| a\\|b | 1 | 2 | 25.0 [25.0, 25.0] |" in text
    assert "- all: image@1 100.0 %, image@3 100.0 %, band@1 100.0 %, band@3 100.0 %" in text


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
