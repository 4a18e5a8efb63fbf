"""How results came about: what the report prints to get them again, and what it makes of a part of them."""

import json
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_report import write_results

from ruac.evaluate.pool import Pool
from ruac.evaluate.summary import Summary
from ruac.report.blocks import Table
from ruac.report.command import report
from ruac.report.page import compose
from ruac.report.published import SUITE
from ruac.report.read import compare, open_runs
from ruac.report.scores import Scores
from ruac.report.settings import evaluation
from ruac.report.tables import masks
from ruac.report.words import PART


def changed(folder: Path, summary: Summary, **fields: Any) -> None:
    (folder / "summary.json").write_text(replace(summary, **fields).to_json())


def typed(folder: Path) -> list[str]:
    (run,) = open_runs([folder])
    return shlex.split(evaluation(run))


def test_the_command_is_the_runs_own(tmp_path: Path) -> None:
    summary = write_results(tmp_path / "a", prompts="f" * 64, noc=5)
    paths = {"data": ("../data/one", "more"), "head": ("head.safetensors",), "prompts": ("told.jsonl",)}
    changed(tmp_path / "a", summary, max_images=4, paths=paths)
    words = "--data ../data/one more --model nano --head head.safetensors --max-images 4 --clicks 1,3 --max-objects 10 --seed 0"
    more = "--prompt point --noc 5 --methods head,plain,predicted_iou --prompts told.jsonl --out"
    assert typed(tmp_path / "a") == ["ruac", "eval", *words.split(), *more.split(), str(tmp_path / "a")]


def test_results_from_before_this_was_recorded_still_open(tmp_path: Path) -> None:
    write_results(tmp_path / "a")
    file = tmp_path / "a" / "summary.json"
    old = {key: value for key, value in json.loads(file.read_text()).items() if key not in ("max_images", "paths")}
    file.write_text(json.dumps(old))
    words = typed(tmp_path / "a")
    assert words[2:4] == ["--data", "DATA"]
    assert "--max-images" not in words
    comparison = compare(open_runs([tmp_path / "a"]))
    assert not comparison.notes
    report([tmp_path / "a"], tmp_path / "out")
    assert "| images of each set | not recorded |" in (tmp_path / "out" / "report.md").read_text()


def test_only_the_first_images_are_said_and_are_those_of_the_summary(tmp_path: Path) -> None:
    """The rows of a summary of more images may lie there still."""
    fewer = write_results(tmp_path / "b", images=2)
    write_results(tmp_path / "a", images=4)
    changed(tmp_path / "a", fewer, max_images=2)
    comparison = compare(open_runs([tmp_path / "a"]))
    assert [part.images for part in comparison.sets] == [2, 2, 2]
    assert comparison.notes == (f"Only a part of every set was measured: at most 2 images, the first by name. {PART}",)
    report([tmp_path / "a"], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "at most 2 images, the first by name" in text.partition("## Masks")[0]
    changed(tmp_path / "b", fewer, model="other")
    both = compare(open_runs([tmp_path / "a", tmp_path / "b"]))
    assert f"Only a part of every set was measured by nano: at most 2 images, the first by name. {PART}" in both.notes


def test_the_sets_of_a_calibration_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    write_results(folder, temperatures={1: 1.5, 3: 2.0})
    stored = {"weights": "0" * 64, "sets": {"fit": ["0"], "other": ["0"]}, "temperatures": {"1": 1.5, "3": 2.0}}
    (folder / "temperatures.json").write_text(json.dumps(stored))
    words = typed(folder)
    assert words[words.index("--calibration") :][:3] == ["--calibration", "fit", "other"]
    report([folder], tmp_path / "out")
    assert "1.5 after 1, 2 after 3, fitted on fit, other" in (tmp_path / "out" / "report.md").read_text()
    # what was fitted later, for something else, is not theirs
    for other in (json.dumps(stored | {"temperatures": {"1": 9}}), "[]", "damaged"):
        (folder / "temperatures.json").write_text(other)
        words = typed(folder)
        assert words[words.index("--calibration") :][:2] == ["--calibration", "CALIBRATION"]


def test_what_to_type_for_examples_is_said_for_these_very_results(tmp_path: Path) -> None:
    summary = write_results(tmp_path / "a")
    changed(tmp_path / "a", summary, paths={"data": ("../data/one", "two words"), "head": ("head.safetensors",)})
    report([tmp_path / "a"], tmp_path / "out")
    section = (tmp_path / "out" / "report.md").read_text().partition("## Examples")[2].partition("## ")[0]
    words = f"--data ../data/one --data 'two words' --head head.safetensors --out {tmp_path / 'out'}"
    assert f"ruac report {tmp_path / 'a'} {words}\n" in section


@pytest.mark.parametrize(("origin", "fields"), [({"prompts": "f" * 64}, {}), ({}, {"max_images": 6})])
def test_a_part_of_a_suite_is_not_the_suite(tmp_path: Path, origin: dict[str, Any], fields: dict[str, Any]) -> None:
    """Such as older versions let be measured."""
    summary = write_results(tmp_path / "a", sets=("TrashCan",), suite=SUITE, **origin)
    changed(tmp_path / "a", summary, **fields)
    scores = Scores(compare(open_runs([tmp_path / "a"])))
    page = compose(scores, (), (), "ruac report", "ruac report --data DATA", "today")
    section = next(section for section in page.sections if section.anchor == "paper")
    assert [block.title for block in section.blocks] == ["The paper's own averages: J&F in per cent, mean over its 23 domains"]
    assert "--suite" not in typed(tmp_path / "a")


def test_every_pool_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        write_results(tmp_path / name)
    opened: list[Path] = []
    load = Pool.load
    monkeypatch.setattr(Pool, "load", lambda path, origin=None: opened.append(path) or load(path, origin))
    report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "risk-group1.svg").is_file()
    assert Counter(opened) == dict.fromkeys([*(tmp_path / "a").glob("*.safetensors"), *(tmp_path / "b").glob("*.safetensors")], 1)


def test_clicks_to_a_good_mask_are_in_the_table_of_masks(tmp_path: Path) -> None:
    summary = write_results(tmp_path / "a", noc=6)
    write_results(tmp_path / "b", model="big")
    table = masks(Scores(compare(open_runs([tmp_path / "b", tmp_path / "a"]))))
    titles = [cell.text for cell in table.header]
    line, without = (next(row for row in table.rows if row[0].text == name) for name in ("nano", "big"))
    for target in ("80", "85", "90"):
        place = titles.index(f"NoC@{target} ↓")
        assert line[place].text == f"{summary.groups[0].measures[f'noc.{target}'].mean:.2f}"
        assert without[place].text == "–"
    assert any("number of clicks until the mask reaches the IoU after the @" in note for note in table.notes)
    write_results(tmp_path / "c", model="deep", noc=3)
    assert any(note.startswith("NoC is not comparable") for note in compare(open_runs([tmp_path / "a", tmp_path / "c"])).notes)


def test_numbers_of_the_paper_and_the_few_that_are_ranked_are_explained(tmp_path: Path) -> None:
    write_results(tmp_path / "a")
    scores = Scores(compare(open_runs([tmp_path / "a"])))
    page = compose(scores, (), (), "ruac report", "ruac report --data DATA", "today")
    notes = {block.title: " ".join(block.notes) for section in page.sections for block in section.blocks}
    assert notes["The paper's own averages: J&F in per cent, mean over its 23 domains"].startswith(
        "What the paper reports of its own models"
    )
    assert "Ranked are three measures only" in notes["Mean rank, image, after 3 prompts"]
    assert isinstance(page.sections[-1].blocks[-1], Table)
