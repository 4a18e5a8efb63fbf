"""What the report says is what the results say, for people, and whatever they are called."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from squares import write_set

from ruac.data.folder import find_sets
from ruac.evaluate.conversation import Point
from ruac.evaluate.judging import Judged, judge
from ruac.evaluate.pool import Pool
from ruac.evaluate.protocol import ImageResult, Protocol
from ruac.evaluate.results import Origin, Row, read_results
from ruac.evaluate.run import Study, evaluate_sets
from ruac.evaluate.summary import Cost, SetResults, Summary, summarise
from ruac.model import RuacModel
from ruac.report import pictures
from ruac.report.blocks import Table
from ruac.report.command import report, write
from ruac.report.curves import mix, risk_coverage
from ruac.report.examples import words
from ruac.report.figures import Curve
from ruac.report.findings import findings
from ruac.report.measures import AUROC, EXPECTED_MAE, EXPECTED_SPEARMAN, J_AND_F
from ruac.report.page import compose
from ruac.report.published import BY_DOMAIN, SUITE, published
from ruac.report.read import Comparison, compare, open_runs
from ruac.report.scores import Scores
from ruac.report.tables import headline, significance

# by method, how much its logits know of where the errors are
SKILL = {"head": 2.0, "plain": 1.0, "predicted_iou": 0.0}
SIDE = 32
HOSTILE = "<script>alert(1)</script>\"'&amp;$x_{"


def image_result(
    name: str, seed: int, methods: Sequence[str], clicks: Sequence[int], quality: float, noc: int | None = None
) -> ImageResult:
    """Two objects whose masks are wrong in places; a method's logits are smaller there, the more so the more it knows."""
    rng = np.random.default_rng(seed)
    after = {}
    for n in clicks:
        judged = Judged.empty(methods)
        for i in range(2):
            truth = np.zeros((SIDE, SIDE), bool)
            truth[4 + i : 20, 6 : 22 + i] = True
            wrong = rng.random(truth.shape) < 0.2 / (quality * n)
            mask = truth ^ wrong
            logits = {}
            for method in methods:
                size = np.abs(rng.normal(2, 1, truth.shape)) + SKILL[method] * ~wrong
                logits[method] = torch.from_numpy(np.where(mask, size, -size).astype(np.float32))
            judged += judge(mask, truth, np.ones_like(truth), logits, float(rng.random()))
        after[n] = judged
    said = tuple(((Point(10, 10, 1),),) * max(clicks) for _ in range(2))
    ious = tuple(tuple(np.sort(rng.random(noc)).tolist()) for _ in range(2)) if noc else ()
    return ImageResult(name, (1, 2), after, said, ious)


def write_results(
    folder: Path,
    sets: Sequence[str] = ("one", "two", "three"),
    images: int = 4,
    methods: Sequence[str] = tuple(SKILL),
    model: str = "nano",
    quality: float = 1.0,
    clicks: tuple[int, ...] = (1, 3),
    **others: Any,
) -> Summary:
    """A result folder as `ruac eval` leaves it, of made-up predictions."""
    settings: dict[str, Any] = {
        "weights": "0" * 64,
        "ruac": "0.1.0",
        "max_objects": 10,
        "seed": 0,
        "prompt": "point",
        "methods": tuple(methods),
    }
    origin = Origin(clicks=clicks, **(settings | others))
    folder.mkdir()
    results = []
    for number, name in enumerate(sets):
        made = [image_result(f"{i}", 100 * number + i, methods, clicks, quality, origin.noc) for i in range(images)]
        pools = [Pool.of(result) for result in made]
        rows = [Row.of(result, pool) for result, pool in zip(made, pools, strict=True)]
        lines = [{"set": name, "origin": asdict(origin)}, *map(asdict, rows)]
        safe = name.replace("/", "_")
        (folder / f"{safe}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        pool = sum(pools, Pool())
        pool.save(folder / f"{safe}.pool.safetensors", origin.as_json())
        results.append(SetResults(name, "near" if number else "far", rows, (), pool))
    summary = summarise(model, origin, results, Cost("a machine", {name: 1.0 + i for i, name in enumerate(methods)}))
    (folder / "summary.json").write_text(summary.to_json())
    return summary


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "run"
    write_results(folder)
    return folder


@pytest.fixture(scope="module")
def comparison(results: Path) -> Comparison:
    return compare(open_runs([results]))


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report"
    report([results], out)
    return out


def row_of(table: Table, name: str) -> dict[str, str]:
    line = next(row for row in table.rows if row[0].text == name)
    return {head.text.split(" ")[0]: cell.text for head, cell in zip(table.header, line, strict=True)}


def test_headline_repeats_the_numbers_of_the_evaluations_own_summary(results: Path, comparison: Comparison) -> None:
    summary = json.loads((results / "summary.json").read_text())["groups"][0]
    assert summary["name"] == "all"
    table = headline(Scores(comparison), None, "band", 3, "title")
    for method in SKILL:
        for measure, title in (("auroc", "AUROC"), ("ece", "ECE"), ("brier", "Brier")):
            expected = summary["measures"][f"{method}.{measure}.band@3"]
            assert row_of(table, method)[title] == f"{100 * expected['mean']:.2f}"
    cell = next(row for row in table.rows if row[0].text == "head")[3]
    expected = summary["measures"]["head.auroc.band@3"]
    assert cell.detail == f"[{100 * expected['low']:.2f}, {100 * expected['high']:.2f}]"


def test_the_best_of_a_column_is_marked_and_equal_masks_are_not(comparison: Comparison) -> None:
    table = headline(Scores(comparison), None, "image", 3, "title")
    titles = [cell.text for cell in table.header]
    marks = {row[0].text: row[titles.index("AUROC ↑")].mark for row in table.rows}
    assert marks == {"head": "best", "plain": "", "predicted_iou": ""}
    assert {row[titles.index("J&F ↑")].mark for row in table.rows} == {""}
    assert {row[0].text: row[titles.index("cost × ↓")].text for row in table.rows}["predicted_iou"] == "3.00"


def test_gain_over_plain_is_the_paired_difference_of_the_summary(results: Path, comparison: Comparison) -> None:
    summary = json.loads((results / "summary.json").read_text())["groups"][0]["measures"]["difference.head.auroc.image@3"]
    table = significance(Scores(comparison), "image", 3, "title")
    assert table is not None
    assert [row[0].text for row in table.rows] == ["head", "predicted_iou"]
    head, worse = (row[1] for row in table.rows)
    assert head.text == f"+{100 * summary['mean']:.3f}"
    assert f"[{100 * summary['low']:.3f}, {100 * summary['high']:.3f}]" in head.detail
    assert (head.mark, worse.mark) == ("better", "worse")
    assert "better on 3 of 3 sets" in head.detail
    assert "better on 0 of 3 sets" in worse.detail


def test_expected_iou_is_held_against_the_true_one_object_by_object(comparison: Comparison) -> None:
    from scipy.stats import spearmanr

    scores, plain = Scores(comparison), comparison.contenders[1]
    rows = comparison.sets[1].rows[0]
    expected, true = ([value for row in rows for value in row.masks[name]] for name in ("plain.expected_iou@3", "iou@3"))
    assert len(expected) == 8
    assert scores.of(plain, EXPECTED_SPEARMAN, "", 3).values[1] == pytest.approx(np.asarray(spearmanr(expected, true))[0])
    mae = np.mean(np.abs(np.array(expected, float) - np.array(true, float)))
    assert scores.of(plain, EXPECTED_MAE, "", 3).values[1] == pytest.approx(mae)


def test_findings_name_the_best_method_and_its_lead(comparison: Comparison) -> None:
    said = findings(Scores(comparison))
    assert said[0].startswith("Masks of nano: J&F ")
    auroc = next(line for line in said if line.startswith("Best AUROC"))
    assert ": head, " in auroc
    assert "better on 3 of 3 sets" in auroc
    assert "not told apart" not in auroc


def test_two_models_are_compared_on_what_both_have(tmp_path: Path) -> None:
    write_results(tmp_path / "a", sets=("one", "two", "mine"), images=5)
    write_results(tmp_path / "b", sets=("one", "two", "yours"), model="big", quality=2.0, clicks=(3,), methods=("head", "plain"))
    both = compare(open_runs([tmp_path / "a", tmp_path / "b"]))
    assert [(part.name, part.images) for part in both.sets] == [("one", 4), ("two", 4)]
    assert both.clicks == (3,)
    assert [c.label for c in both.contenders][-2:] == ["big · head", "big · plain"]
    notes = " ".join(both.notes)
    for what in ("mine, yours", "one: left out 1 of 5 images", "clicks that all results have are shown: 3"):
        assert what in notes
    scores = Scores(both)
    first, last = both.contenders[0], both.contenders[-1]
    gain = scores.gain(last, first, J_AND_F, "", 3)
    assert (gain.values > 0.05).all()
    assert gain.values == pytest.approx(scores.of(last, J_AND_F, "", 3).values - scores.of(first, J_AND_F, "", 3).values)
    report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert "<title>nano and big compared</title>" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(("setting", "value"), [("max_objects", 3), ("seed", 1), ("prompt", "box")])
def test_results_of_different_protocols_are_refused(tmp_path: Path, setting: str, value: Any) -> None:
    write_results(tmp_path / "a", sets=("one",))
    write_results(tmp_path / "b", sets=("one",), **{setting: value})
    with pytest.raises(ValueError, match=rf"different protocols \({setting}: .* and {value}\)"):
        compare(open_runs([tmp_path / "a", tmp_path / "b"]))


def test_curves_are_of_the_images_that_all_runs_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, quality in (("a", 1.0), ("b", 2.0)):
        write_results(tmp_path / name, sets=("one", "two"), quality=quality)
    fewer = tmp_path / "b" / "one.jsonl"
    fewer.write_text("".join(fewer.read_text().splitlines(keepends=True)[:-1]))
    scores = Scores(compare(open_runs([tmp_path / "a", tmp_path / "b"])))
    assert [(part.name, part.images) for part in scores.comparison.sets] == [("one", 3), ("two", 4)]
    drawn: list[dict[str, list[Curve]]] = []
    monkeypatch.setattr(pictures, "draw_risk", lambda regions: drawn.append(regions) or b"")
    page = compose(scores, (), (), "ruac report", "ruac report --data DATA", "today")
    # a pool counts all images of a set: that of "one" cannot be had without the image that only one run has
    for name in ("a", "b"):
        mixture = mix([Pool.load(tmp_path / name / "two.pool.safetensors").histogram("head", "band", 3)])
        assert mixture is not None
        (curve,) = (curve for curve in drawn[0]["band"] if curve.label == f"{name} · head")
        np.testing.assert_array_equal(curve.risk.risk, risk_coverage(mixture).risk)
    section = next(section for section in page.sections if section.anchor == "curves")
    assert section.words[-1].startswith("Not in the curves, ")
    assert section.words[-1].endswith(": one.")
    assert section.blocks[0].notes[0] == "Over 1 set, 4 images, 8 objects."


def test_images_without_an_object_do_not_keep_a_set_out_of_the_curves(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_results(tmp_path / name, sets=("one",))
    file = tmp_path / "b" / "one.jsonl"
    file.write_text(file.read_text() + json.dumps(asdict(Row("empty", (), {}, {}))) + "\n")
    pool = Pool.load(tmp_path / "b" / "one.pool.safetensors")
    origin = read_results(file).origin
    (pool + Pool(frozenset({"empty"}))).save(tmp_path / "b" / "one.pool.safetensors", origin)
    both = compare(open_runs([tmp_path / "a", tmp_path / "b"]))
    assert [part.name for part in both.pooled] == ["one"]


@pytest.mark.parametrize(("trained", "shown"), [(True, "head"), (None, "head"), (False, "head (untrained: plain entropy)")])
def test_a_head_that_was_not_trained_is_called_that(tmp_path: Path, trained: bool | None, shown: str) -> None:
    summary = write_results(tmp_path / "a", sets=("one",))
    (tmp_path / "a" / "summary.json").write_text(replace(summary, head_trained=trained).to_json())
    one = compare(open_runs([tmp_path / "a"]))
    assert (one.contenders[0].method, one.contenders[0].label) == ("head", shown)
    old = json.loads((tmp_path / "a" / "summary.json").read_text())
    del old["head_trained"]  # as before it was noted
    (tmp_path / "a" / "summary.json").write_text(json.dumps(old))
    assert compare(open_runs([tmp_path / "a"])).contenders[0].label == "head"


def test_a_folder_called_model_goes_by_the_one_around_it(tmp_path: Path) -> None:
    for name, model in (("a", "nano"), ("b", "runs/robust/model")):
        write_results(tmp_path / name, sets=("one",), model=model)
    assert [run.label for run in open_runs([tmp_path / "a", tmp_path / "b"])] == ["nano", "robust"]


def test_clicks_from_a_file_are_allowed_and_said(tmp_path: Path) -> None:
    write_results(tmp_path / "a", sets=("one",))
    write_results(tmp_path / "b", sets=("one",), prompts="f" * 64)
    both = compare(open_runs([tmp_path / "a", tmp_path / "b"]))
    assert "the same weights" in both.notes[0]
    assert "got the clicks of a file (ffffffffffff…)" in both.notes[1]
    # one model twice: the folders tell them apart
    assert [run.label for run in both.runs] == ["a", "b"]


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    write_results(tmp_path / "a", sets=("one",))
    write_results(tmp_path / "b", sets=("two",))
    write_results(tmp_path / "c", sets=("one",), clicks=(2,))
    with pytest.raises(ValueError, match="no common set"):
        compare(open_runs([tmp_path / "a", tmp_path / "b"]))
    with pytest.raises(ValueError, match="no common number of clicks"):
        compare(open_runs([tmp_path / "a", tmp_path / "c"]))


def test_other_objects_in_the_same_image_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_results(tmp_path / name, sets=("one",))
    file = tmp_path / "b" / "one.jsonl"
    file.write_text(file.read_text().replace('"objects": [1, 2]', '"objects": [1, 7]', 1))
    with pytest.raises(ValueError, match="one: the results were measured on different data \\(image 0"):
        compare(open_runs([tmp_path / "a", tmp_path / "b"]))


def test_folders_without_results_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        open_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no summary\.json"):
        open_runs([tmp_path / "empty"])
    write_results(tmp_path / "a", sets=("one",))
    with pytest.raises(ValueError, match="named twice"):
        open_runs([tmp_path / "a", tmp_path / "a" / ".." / "a"])
    (tmp_path / "a" / "one.jsonl").unlink()
    with pytest.raises(ValueError, match=r"one\.jsonl: missing"):
        open_runs([tmp_path / "a"])
    (tmp_path / "a" / "summary.json").write_text("[]")
    with pytest.raises(ValueError, match="not the summary of an evaluation"):
        open_runs([tmp_path / "a"])


@pytest.mark.parametrize("cost", [True, [1], {"factors": 3}, {"factors": {"head": "x"}}])
def test_costs_that_are_no_numbers_are_refused(cost: object, tmp_path: Path) -> None:
    write_results(tmp_path / "a", sets=("one",))
    file = tmp_path / "a" / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "cost": cost}))
    with pytest.raises(ValueError, match="not the summary of an evaluation"):
        open_runs([tmp_path / "a"])


def test_a_summary_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    write_results(tmp_path / "a", sets=("one",))
    file = tmp_path / "a" / "summary.json"
    file.write_text(file.read_text().replace('"name": "one"', '"name": "../one"'))
    with pytest.raises(ValueError, match="cannot be a file name"):
        open_runs([tmp_path / "a"])


def test_page_needs_nothing_else_and_is_small(page: Path) -> None:
    text = (page / "report.html").read_text()
    assert len(text) < 5e6
    links = re.findall(r"""(?:src|href|action|data)\s*=\s*["']([^"']*)""", text)
    assert len(links) > 10
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert not re.search(r"<script|@import|url\(|http-equiv=.refresh", text)
    assert text.count("data:image/svg+xml") >= 4


def test_every_section_table_and_figure_is_there_and_explained(page: Path) -> None:
    text = (page / "report.html").read_text()
    sections = re.findall(r'<section id="([\w-]+)">(.*?)</section>', text, re.DOTALL)
    assert [name for name, _ in sections] == [
        "short",
        "masks",
        "methods",
        "gain",
        "curves",
        "expected-iou",
        "sets",
        "examples",
        "paper",
        "settings",
        "words",
    ]
    for name, content in sections:
        blocks = len(re.findall(r"<table|<img", content))
        # a table or figure without a word below it says nothing to those who do not know it; the last one is words
        assert len(re.findall(r'<p class="note">', content)) >= blocks - (name == "words"), name
    assert "weights, sha256" in text
    assert "--max-objects 10" in text
    assert "a machine" in text


def test_csv_holds_every_number(page: Path, results: Path) -> None:
    rows = list(csv.DictReader((page / "report.csv").open()))
    summary = json.loads((results / "summary.json").read_text())
    (row,) = [
        r
        for r in rows
        if (r["scope"], r["name"], r["method"], r["measure"], r["region"], r["prompts"])
        == ("set", "two", "head", "nll", "band", "1")
    ]
    part = next(part for part in summary["sets"] if part["name"] == "two")
    assert float(row["mean"]) == pytest.approx(part["measures"]["head.nll.band@1"]["mean"], rel=1e-5)
    assert float(row["low"]) == pytest.approx(part["measures"]["head.nll.band@1"]["low"], rel=1e-5)
    assert float(row["gain"]) == pytest.approx(part["measures"]["difference.head.nll.band@1"]["mean"], rel=1e-4)
    assert {r["name"] for r in rows if r["scope"] == "group"} == {"far", "near"}


def test_markdown_shows_its_figures_and_its_tables(page: Path) -> None:
    text = (page / "report.md").read_text()
    figures = re.findall(r"!\[[^\]]*\]\(figures/([\w.-]+)\)", text)
    assert len(figures) >= 4
    assert all((page / "figures" / name).is_file() for name in figures)
    table = next(block for block in text.split("\n\n") if block.startswith("| method |"))
    assert len({line.count(" | ") for line in table.splitlines()}) == 1


class _Seen(HTMLParser):
    """Tags, and all text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_are_shown_and_never_run(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "_")
    write_results(tmp_path / "a", sets=(name, "two", "three"), images=2, model=HOSTILE)
    write_results(tmp_path / "b", sets=(name, "two", "three"), images=2, model="_other")
    report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    seen = _Seen()
    seen.feed((tmp_path / "out" / "report.html").read_text())
    assert "script" not in seen.tags
    assert "alert" not in " ".join(seen.tags + seen.attributes)
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert name in seen.text
    markdown = (tmp_path / "out" / "report.md").read_text()
    # commands are code, and shown as they are
    assert "<script>" not in re.sub(r"^(```+)\n.*?^\1$", "", markdown, flags=re.DOTALL | re.MULTILINE).replace("\\<script\\>", "")


def test_published_numbers_stand_only_next_to_their_own_protocol(tmp_path: Path) -> None:
    assert published("trash-can") == BY_DOMAIN["TrashCan"]
    assert published("squares") is None
    write_results(tmp_path / "own", sets=("TrashCan",))
    write_results(tmp_path / "suite", sets=("TrashCan", "OVIS"), suite=SUITE)

    def paper(folder: Path) -> list[Table]:
        scores = Scores(compare(open_runs([folder])))
        page = compose(scores, (), (), "ruac report", "ruac report --data DATA", "today")
        section = next(section for section in page.sections if section.anchor == "paper")
        return [block for block in section.blocks if isinstance(block, Table)]

    assert len(paper(tmp_path / "own")) == 1
    table, averages = paper(tmp_path / "suite")
    ((name, *cells),) = table.rows
    assert name.text == "TrashCan"
    assert [cell.text for cell in cells[:4]] == ["44.9", "72.4", "74.9", "74.4"]
    assert len(cells) == 6
    assert len(averages.rows) == 6


def test_a_method_alone_makes_a_report_without_comparisons(tmp_path: Path) -> None:
    write_results(tmp_path / "a", sets=("one",), images=1, methods=("head",))
    report([tmp_path / "a"], tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "was not measured, or nothing else was" in text
    assert "mean rank" not in text


def test_recorded_points_are_prompts_again() -> None:
    click, corner, other = Point(1, 2, 1), Point(0, 0, 2), Point(5, 5, 3)
    assert words([click, click]) == ((click,), (click,))
    assert words([corner, other, click]) == ((corner, other), (click,))


def test_examples_are_predicted_again_from_data_and_model(tmp_path: Path, tiny_model: RuacModel, tiny_model_folder: Path) -> None:
    data = write_set(tmp_path / "squares")
    evaluate_sets(tiny_model, find_sets([data]), tmp_path / "run", Protocol((1, 2)), name=str(tiny_model_folder), study=Study())
    report([tmp_path / "run"], tmp_path / "out", data=[str(data)])
    examples = sorted((tmp_path / "out" / "figures").glob("example-*.jpg"))
    assert len(examples) == 2
    assert all(file.read_bytes()[:2] == b"\xff\xd8" for file in examples)
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/jpeg") == 2
    with pytest.raises(ValueError, match=r"--model: its weights .* are not those evaluated"):
        report([tmp_path / "run"], tmp_path / "out", data=[str(data)], model="nano")
    other = write_set(tmp_path / "others")
    with pytest.raises(ValueError, match="none of these sets is among the results"):
        report([tmp_path / "run"], tmp_path / "out", data=[str(other)])


def test_command_line_makes_the_report_and_complains_in_one_line(results: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "ruac", "report", *arguments], capture_output=True, text=True, check=False)

    done = run(str(results), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["figures", "report.csv", "report.html", "report.md"]
    failed = run(str(tmp_path), "--out", str(tmp_path / "other"))
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_the_same_results_give_the_same_numbers_and_words(results: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        scores = Scores(compare(open_runs([results])))
        write(compose(scores, findings(scores), (), "ruac report", "ruac report --data DATA", "today"), scores, tmp_path / name)
        texts.append([(tmp_path / name / f"report.{end}").read_bytes() for end in ("md", "csv")])
    assert texts[0] == texts[1]
    assert AUROC.title.encode() in texts[0][0]
