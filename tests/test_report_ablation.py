"""The page of variants next to a baseline, and the rule that a head must beat plain entropy."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_report import write_results

from ruac.cli import WRONG_USE, main
from ruac.report.ablation import MEASURES, Ablation, Asked, open_ablation, ranks
from ruac.report.measures import AUROC, J_AND_F, RANKED

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "beats_plain.py"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three models: the baseline, one of better masks, and one whose head says what plain says."""
    root = tmp_path_factory.mktemp("variants")
    write_results(root / "plain")
    write_results(root / "robust", quality=2.0, model="robust", weights="1" * 64)
    write_results(root / "untrained", model="untrained", weights="2" * 64, methods=("plain",))
    rows = root / "untrained" / "one.jsonl"
    for file in rows.parent.glob("*.jsonl"):
        header, *lines = file.read_text().splitlines()
        doubled = [with_head(json.loads(line)) for line in lines]
        origin = json.loads(header)
        origin["origin"]["methods"] = ["head", "plain"]
        file.write_text("".join(json.dumps(line) + "\n" for line in [origin, *doubled]))
    return {name: root / name for name in ("plain", "robust", "untrained")}


def with_head(row: dict) -> dict:
    """The numbers of plain again, as those of a head."""
    for part in ("masks", "pixels"):
        row[part] |= {name.replace("plain.", "head."): value for name, value in row[part].items() if name.startswith("plain.")}
    return row


@pytest.fixture(scope="module")
def ablation(folders: dict[str, Path]) -> Ablation:
    return open_ablation([Asked(folders["plain"]), Asked(folders["robust"]), Asked(folders["untrained"])])


def test_rows_are_asked_for_by_name_folder_and_method(tmp_path: Path) -> None:
    folder = Path("runs/eval")
    assert Asked.of("runs/eval") == Asked(folder)
    assert Asked.of("RUAC=runs/eval") == Asked(folder, "RUAC")
    assert Asked.of("runs/eval@laplace") == Asked(folder, None, "laplace")
    assert Asked.of("a b=runs/eval@head") == Asked(folder, "a b", "head")
    odd = tmp_path / "rate=0.1@night"
    odd.mkdir()
    assert Asked.of(str(odd)) == Asked(odd)
    assert Asked.of(f"x={odd}") == Asked(odd, "x")
    assert Asked.of(f"x={odd}@plain") == Asked(odd, "x", "plain")


def test_the_baseline_is_judged_by_plain_and_the_others_by_their_heads_where_they_are_trained(ablation: Ablation) -> None:
    assert [(row.label, row.contender.method) for row in ablation.rows] == [
        ("plain", "plain"),
        ("robust", "head"),
        ("untrained", "plain"),
    ]
    assert ablation.clicks == 3


def test_methods_can_be_chosen_for_all_and_for_one(folders: dict[str, Path]) -> None:
    plain, robust, _ = folders.values()
    asked = [Asked(plain), Asked(plain, "same masks", "head"), Asked(robust)]
    found = open_ablation(asked, method="predicted_iou")
    assert [(row.label, row.contender.index, row.contender.method) for row in found.rows] == [
        ("plain", 0, "plain"),
        ("same masks", 0, "head"),
        ("robust", 1, "predicted_iou"),
    ]
    assert [run.label for run in found.scores.comparison.runs] == ["plain", "robust"]
    with pytest.raises(ValueError, match=r"robust: the method 'laplace' was not measured; there are head, plain, predicted_iou"):
        open_ablation([Asked(plain), Asked(robust)], method="laplace")
    with pytest.raises(ValueError, match="name the results of two models or more"):
        open_ablation([Asked(plain)])


def test_ranks_are_means_over_sets_and_measures(ablation: Ablation) -> None:
    scores, contenders = ablation.scores, [row.contender for row in ablation.rows[:2]]
    found = ranks(scores, contenders, 3)
    wins = []
    for measure in RANKED:
        one, other = (scores.of(c, measure, "image", 3).values for c in contenders)
        wins += list(one > other if measure.higher else one < other)
    assert found[0] == pytest.approx(2 - np.mean(wins))
    assert sum(found) == pytest.approx(3)


def test_the_page_says_what_each_row_gains_on_the_same_images(
    folders: dict[str, Path], ablation: Ablation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the real command line's main."""
    out = tmp_path / "docs" / "ablation.md"
    words = [f"fine-tuned={folders['plain']}", f"RUAC={folders['robust']}", str(folders["untrained"])]
    assert main(["report", *words, "--ablation", str(out)]) == 0
    assert capsys.readouterr().out == f"Ablation: {out}\n"
    text = out.read_text()
    values, gains = re.findall(r"(?m)^\| variant .*\n(?:\|.*\n)+|^\| less fine-tuned, plain .*\n(?:\|.*\n)+", text)
    titles = [cell.strip().split(" ")[0] for cell in values.splitlines()[0].strip("|").split("|")]
    assert titles == ["variant", "method", *(m.title.replace("&", "\\&") for m in MEASURES), "rank"]
    lines = {line.split("|")[1].strip(): line for line in (values + gains).splitlines()}
    assert set(lines) >= {"fine-tuned", "RUAC", "untrained", "RUAC, head", "untrained, plain"}
    base, robust = (row.contender for row in ablation.rows[:2])
    everything = ablation.scores.members(None)
    gain = ablation.scores.gain(robust, base, J_AND_F, "image", 3)
    mean = gain.mean(everything)
    assert mean.value > 0.05
    low, high = mean.interval
    expected = f"+{100 * mean.value:.2f} \\[{100 * low:.2f}, {100 * high:.2f}\\], better on 3 of 3 sets ▲"
    assert expected in lines["RUAC, head"]
    auroc = ablation.scores.of(base, AUROC, "image", 3).mean(everything)
    assert f"{100 * auroc.value:.2f} \\[" in lines["fine-tuned"]
    assert "--ablation" in text
    assert f"RUAC={folders['robust']}" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--ablation", "x.md", "--data", "y"], "--ablation: a page without pictures"),
        (["--method", "head"], "--method is for --ablation"),
        (["--ablation", "x.md"], "name the results of two models or more"),
    ],
)
def test_wrong_use_is_one_line(
    more: list[str], message: str, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(folders["plain"]), *more]) == WRONG_USE
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert message in shown


def beats_plain(*words: str | Path) -> tuple[int, dict]:
    done = subprocess.run([sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_a_head_on_better_masks_passes_and_one_on_worse_masks_does_not(folders: dict[str, Path], ablation: Ablation) -> None:
    code, found = beats_plain(folders["plain"], folders["robust"], "--clicks", "1")
    assert (code, found["missed"], found["figures"]["sets"]) == (0, [], 3)
    gains = found["figures"]["gains"]
    assert gains.keys() == {"j_and_f", "auroc", "aupr", "aurc", "ece"}
    robust, base = (ablation.rows[i].contender for i in (1, 0))
    aurc = ablation.scores.gain(robust, base, MEASURES[3], "image", 1).mean(ablation.scores.members(None))
    assert gains["aurc"]["mean"] == pytest.approx(-aurc.value, abs=1e-5)
    assert gains["aurc"]["low"] > 0
    assert next(iter(found["figures"]["ranks"])) == "B · head"

    code, found = beats_plain(folders["robust"], folders["plain"])
    assert code == 1
    assert found["missed"][0].startswith("j_and_f is worse: -0.")
    assert found["missed"][1:] == ["ece is better on 0.33333 of the sets", "the best rank is that of A · head"]


def test_of_one_folder_the_head_is_held_against_its_own_plain_entropy(folders: dict[str, Path], ablation: Ablation) -> None:
    _, found = beats_plain(folders["robust"])
    gains = found["figures"]["gains"]
    assert gains["j_and_f"]["mean"] == 0
    robust = ablation.rows[1].contender
    own = replace(robust, method="plain")
    auroc = ablation.scores.gain(robust, own, AUROC, "image", 3).mean(ablation.scores.members(None))
    assert gains["auroc"]["mean"] == pytest.approx(auroc.value, abs=1e-5)


def test_quick_looks_at_fewer_sets(folders: dict[str, Path], tmp_path: Path) -> None:
    for name, quality in (("a", 1.0), ("b", 2.0)):
        write_results(tmp_path / name, sets=("one", "two", "three", "four"), images=2, quality=quality)
    _, found = beats_plain(tmp_path / "a", tmp_path / "b", "--quick")
    assert (found["figures"]["sets"], found["quick"]) == (3, True)
