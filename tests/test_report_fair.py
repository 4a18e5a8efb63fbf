"""Methods are compared on the same sets, and the sentences of the report say what its tables say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from test_report import row_of, write_results

from ruac.evaluate.bootstrap import DRAWS
from ruac.report.blocks import Cell, Table
from ruac.report.columns import APART, finely, measured, verdict
from ruac.report.findings import findings
from ruac.report.measures import AUROC, PIXELS, SPEARMAN
from ruac.report.read import compare, open_runs
from ruac.report.scores import Score, Scores
from ruac.report.tables import guesses, headline, pooled, significance


def scores_of(*folders: Path) -> Scores:
    return Scores(compare(open_runs(folders)))


def undefine(folder: Path, set_name: str, *keys: str) -> None:
    """As if these measures of pixels were defined on no image of the set."""
    file = folder / f"{set_name}.jsonl"
    header, *rows = map(json.loads, file.read_text().splitlines())
    for row in rows:
        row["pixels"] |= dict.fromkeys(keys)
    file.write_text("".join(json.dumps(line) + "\n" for line in (header, *rows)))


def cells_of(table: Table, title: str) -> dict[str, Cell]:
    place = [cell.text for cell in table.header].index(title)
    return {row[0].text: row[place] for row in table.rows}


def test_a_method_that_lacks_a_set_stands_apart_and_takes_that_set_from_nobody(tmp_path: Path) -> None:
    write_results(tmp_path / "a")
    whole = cells_of(headline(scores_of(tmp_path / "a"), None, "image", 3, "title"), "Spearman ↑")
    undefine(tmp_path / "a", "one", "predicted_iou.spearman.image@3")
    scores = scores_of(tmp_path / "a")
    table = headline(scores, None, "image", 3, "title")
    cells = cells_of(table, "Spearman ↑")
    assert (cells["head"], cells["plain"]) == (whole["head"], whole["plain"])
    values = scores.of(scores.comparison.contenders[2], SPEARMAN, "image", 3).values
    assert cells["predicted_iou"].text == SPEARMAN.write(values[1:].mean())
    assert (cells["predicted_iou"].sign, cells["predicted_iou"].detail[-12:]) == ("†", " over 2 sets")
    assert table.notes[0].startswith("Over 3 sets, ")
    assert APART in table.notes
    assert not any("Not defined on every set" in note for note in table.notes)


def test_sets_that_no_method_of_a_model_has_are_left_out_for_all_and_that_is_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_results(tmp_path / name, methods=("head", "plain"))
    undefine(tmp_path / "b", "one", "head.auroc.image@3", "plain.auroc.image@3")
    scores = scores_of(tmp_path / "a", tmp_path / "b")
    column = measured(scores, scores.comparison.contenders, AUROC, None, "image", 3)
    assert column.sets == 2
    assert [cell.mark for cell in column.cells] == ["best", "", "best", ""]
    assert column.cells[0].text == AUROC.write(scores.of(scores.comparison.contenders[0], AUROC, "image", 3).values[1:].mean())
    notes = headline(scores, None, "image", 3, "title").notes
    assert "Not defined on every set, and a mean over those where it is: AUROC over 2." in notes
    assert APART not in notes


def test_the_decoders_own_guess_is_compared_on_the_sets_of_all(tmp_path: Path) -> None:
    write_results(tmp_path / "a")
    file = tmp_path / "a" / "one.jsonl"
    header, *rows = map(json.loads, file.read_text().splitlines())
    for row in rows:
        row["masks"]["head.expected_iou@3"] = [0.5, 0.5]
    file.write_text("".join(json.dumps(line) + "\n" for line in (header, *rows)))
    table = guesses(scores_of(tmp_path / "a"), 3)
    assert table is not None
    cells = cells_of(table, "expected IoU Spearman ↑")
    assert [cell.mark == "apart" for cell in cells.values()] == [True, False, False, False]


@pytest.mark.parametrize(("region", "place"), [("image", "whole image"), ("band", "band around the object")])
def test_what_a_head_is_better_and_worse_at_is_said_as_the_table_of_gains_has_it(tmp_path: Path, region: str, place: str) -> None:
    write_results(tmp_path / "a")
    scores = scores_of(tmp_path / "a")
    (sentence,) = (line for line in findings(scores) if line.startswith(f"head against plain, {place}, after 3 prompts, by the"))
    table = significance(scores, region, 3, "title")
    assert table is not None
    said = {}
    sentence, counted = re.subn(r" \(better on \d of 3 sets\)", "", sentence)
    for part in sentence.rstrip(".").split(": ", 1)[1].split("; "):
        words, titles = part.split(" in ", 1)
        said |= dict.fromkeys(titles.replace(" and ", ", ").split(", "), words)
    words = {"better": "better (▲)", "worse": "worse (▼)", "": "not told apart from it"}
    assert said == {m.title: words[cells_of(table, f"{m.title} {m.arrow}")["head"].mark] for m in PIXELS}
    assert counted == sum(word in ("better (▲)", "worse (▼)") for word in said.values()) > 0


def test_a_gain_that_is_zero_as_written_is_neither_better_nor_worse() -> None:
    tiny = Score(1e-7, np.full(DRAWS, 1e-7))
    assert verdict(tiny, AUROC) == ""
    assert finely(tiny, AUROC) == ["0.000", "0.000", "0.000"]
    assert verdict(Score(1e-4, np.full(DRAWS, 1e-4)), AUROC) == "better"


def test_methods_that_are_equal_as_rounded_are_all_named_the_best(tmp_path: Path) -> None:
    write_results(tmp_path / "a")
    for file in (tmp_path / "a").glob("*.jsonl"):
        header, *rows = map(json.loads, file.read_text().splitlines())
        for row in rows:
            row["pixels"] |= {k.replace("head.", "plain."): v for k, v in row["pixels"].items() if k.startswith("head.")}
        file.write_text("".join(json.dumps(line) + "\n" for line in (header, *rows)))
    said = findings(scores_of(tmp_path / "a"))
    best = next(line for line in said if line.startswith("Best AUROC"))
    assert "): head and plain, " in best
    assert "equal as rounded here; against plain: head 0.000 points [0.000, 0.000], which is not told apart" in best
    assert "not told apart from it in AUROC, " in next(line for line in said if line.startswith("head against plain, whole"))


def test_an_interval_that_ends_short_of_zero_does_not_look_as_if_it_held_it() -> None:
    draws = np.linspace(-8e-5, -2e-6, 1000)
    assert finely(Score(-4e-5, draws), AUROC) == ["-0.0040", "-0.0078", "-0.0004"]
    assert finely(Score(-4e-5, 10 * draws), AUROC) == ["-0.004", "-0.078", "-0.004"]
    assert finely(Score(0.0, 0 * draws), AUROC) == ["0.000"] * 3


def test_pooled_pixels_are_those_of_the_summary_and_every_set_counts_the_same(tmp_path: Path) -> None:
    summary = write_results(tmp_path / "a")
    table = pooled(scores_of(tmp_path / "a"), "band", 3, "title")
    assert table is not None
    assert table.folded
    mean = sum(part.micro["head.auroc.band@3"] for part in summary.sets) / 3
    assert row_of(table, "head")["AUROC"] == AUROC.write(mean)
    assert cells_of(table, "AUROC ↑")["head"] == Cell(AUROC.write(mean), "", "best")


def test_nothing_is_pooled_where_images_are_left_out_of_the_comparison(tmp_path: Path) -> None:
    for name, images in (("a", 3), ("b", 4)):
        write_results(tmp_path / name, images=images)
    both = scores_of(tmp_path / "a", tmp_path / "b")
    table = pooled(both, "image", 3, "title")
    assert table is not None
    label = {index: next(c.label for c in both.comparison.contenders if c.index == index) for index in (0, 1)}
    assert cells_of(table, "AUROC ↑")[label[0]].text != "–"
    assert cells_of(table, "AUROC ↑")[label[1]].text == "–"
