"""report.csv holds all that the results hold."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from test_report import write_results

from ruac.evaluate.results import MASK_MEASURES, PIXEL_MEASURES
from ruac.evaluate.summary import Summary
from ruac.report.numbers import named, numbers
from ruac.report.read import compare, open_runs
from ruac.report.scores import Scores

Rows = dict[tuple[str, ...], dict[str, str]]
KEYS = ("scope", "name", "method", "measure", "region", "prompts")


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, Path]:
    folder = tmp_path_factory.mktemp("csv") / "run"
    return write_results(folder, noc=4), folder


@pytest.fixture(scope="module")
def rows(summary: tuple[Summary, Path]) -> Rows:
    lines = list(csv.DictReader(io.StringIO(numbers(Scores(compare(open_runs([summary[1]])))))))
    found = {tuple(line[key] for key in KEYS): line for line in lines}
    assert len(found) == len(lines)
    return found


def test_keys_of_the_results_are_told_apart() -> None:
    methods = ("head", "predicted_iou")
    assert named("iou@3", methods) == ("", "iou", "", "3")
    assert named("noc.85", methods) == ("", "noc.85", "", "")
    assert named("predicted_iou@3", methods) == ("", "predicted_iou", "", "3")
    assert named("predicted_iou.expected_iou@3", methods) == ("predicted_iou", "expected_iou", "", "3")
    assert named("head.auroc.band@5", methods) == ("head", "auroc", "band", "5")


def test_every_measure_of_the_results_is_there_with_its_interval(summary: tuple[Summary, Path], rows: Rows) -> None:
    found, _ = summary
    part = found.sets[1]
    for key, estimate in part.measures.items():
        if key.startswith("difference."):
            line = rows["set", "two", *named(key.removeprefix("difference."), found.origin.methods)]
            wanted = ("gain", "gain_low", "gain_high")
        else:
            line = rows["set", "two", *named(key, found.origin.methods)]
            wanted = ("mean", "low", "high")
        values = [float(line[name]) if line[name] else np.nan for name in wanted]
        assert values == pytest.approx([estimate.mean, estimate.low, estimate.high], rel=1e-4, abs=1e-6, nan_ok=True), key
    measures = {key[3] for key in rows}
    assert measures >= {*MASK_MEASURES, *PIXEL_MEASURES, "pavpu", "predicted_iou", "noc.80", "noc_failed.90", "cost"}


def test_pooled_pixels_agreement_and_cost_are_those_of_the_summary(summary: tuple[Summary, Path], rows: Rows) -> None:
    found, _ = summary
    for key, value in found.sets[1].micro.items():
        line = rows["set", "two", *named(key, found.origin.methods)]
        assert float(line["micro"] or "nan") == pytest.approx(value, rel=1e-5, nan_ok=True), key
    mean = np.mean([part.micro["head.pearson.band@3"] for part in found.sets])
    assert float(rows["all", "", "head", "pearson", "band", "3"]["micro"]) == pytest.approx(mean, rel=1e-5)
    for key, value in found.sets[2].agreement.items():
        kind, _, clicks = key.partition("@")
        method, _, measure = kind.partition(".") if ".expected_iou." in kind else ("", "", kind)
        assert float(rows["set", "three", method, measure, "", clicks]["mean"]) == pytest.approx(value, rel=1e-4), key
    assert rows["all", "", "predicted_iou", "cost", "", ""]["mean"] == "3"


def test_a_mean_says_over_how_many_sets_it_is(tmp_path: Path) -> None:
    write_results(tmp_path / "a")
    file = tmp_path / "a" / "one.jsonl"
    header, *lines = map(json.loads, file.read_text().splitlines())
    for line in lines:
        line["pixels"]["predicted_iou.spearman.image@3"] = None
    file.write_text("".join(json.dumps(line) + "\n" for line in (header, *lines)))
    found = csv.DictReader(io.StringIO(numbers(Scores(compare(open_runs([tmp_path / "a"]))))))
    wanted = [line for line in found if (line["measure"], line["region"], line["prompts"]) == ("spearman", "image", "3")]
    sets = {(line["scope"], line["name"], line["method"]): line["sets"] for line in wanted}
    assert (sets["all", "", "head"], sets["all", "", "predicted_iou"]) == ("3", "2")
    assert (sets["group", "far", "predicted_iou"], sets["set", "one", "predicted_iou"]) == ("0", "0")
