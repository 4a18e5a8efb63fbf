"""`ruac report`: what evaluations found, as a page that people can read, print and pass on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ruac.writing import require_folder, write_whole

if TYPE_CHECKING:
    from ruac.report.blocks import Picture, Report
    from ruac.report.scores import Scores


def report(
    results: list[Path],
    out: Path = Path("report"),
    data: list[str] | None = None,
    model: str | None = None,
    head: Path | None = None,
    device: str = "cpu",
    ablation: Path | None = None,
    method: str | None = None,
) -> None:
    """Write a report of one or more evaluations: tables, curves and examples, with what they do and do not show.

    Writes <out>/report.html, which needs no other file, report.md with its figures, and report.csv with every number.

    Example: ruac report runs/eval --out report

    With --ablation it is one page of Markdown instead: what each variant adds to the first one.

    Example: ruac report plain=runs/eval-plain evidential=runs/eval-plain@evidential RUAC=runs/eval-ruac --ablation ablation.md

    Args:
        results: Folders that `ruac eval` wrote, of different models or settings; the sets that all of them have are compared. For
            --ablation each is a row, NAME=FOLDER@METHOD, where name and method may be left out.
        out: Folder for the report; made if need be.
        data: Data sets that were evaluated, to show example pictures of; repeat for several folders.
        model: The model to make the example pictures with; by default the one that the first results name.
        head: A head trained for that model, as a file, if it was evaluated with one.
        device: For the example pictures: cpu, cuda, mps ...
        ablation: File for that page; the method of its first row is plain, of the others head where one is trained.
        method: With --ablation, the method of all rows but the first that name none.

    Raises:
        ValueError: For folders without results, results of different protocols, and a model that is not theirs.
        FileNotFoundError: When a folder, the data or the model is missing.
    """
    if ablation is not None:
        if data or model or head:
            raise ValueError("--ablation: a page without pictures; leave --data, --model and --head out")
        _write_ablation([str(folder) for folder in results], ablation, method)
        return
    if method is not None:
        raise ValueError("--method is for --ablation: the report shows all methods")
    require_folder(out)

    from ruac.report.findings import findings
    from ruac.report.page import compose
    from ruac.report.read import compare, open_runs
    from ruac.report.scores import Scores

    scores = Scores(compare(open_runs(results)))
    examples = _examples(scores, [Path(folder) for folder in data], model, head, device) if data else []
    command = _typed(results, out, data, model, head)
    page = compose(scores, findings(scores), examples, command, _to_see_examples(scores, results, out, model, head), _made())
    write(page, scores, out)
    print(f"Report: {out / 'report.html'}, report.md and report.csv")


def _write_ablation(results: list[str], out: Path, method: str | None) -> None:
    from ruac.report.ablation import Asked, compose, open_ablation, typed
    from ruac.report.render import markdown

    page = compose(open_ablation([Asked.of(text) for text in results], method), typed(results, out, method), _made())
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, markdown(page).encode())
    print(f"Ablation: {out}")


def write(page: Report, scores: Scores, out: Path) -> None:
    """Every file of the report, the page last."""
    from ruac.report.numbers import numbers
    from ruac.report.render import FIGURES, html, markdown

    (out / FIGURES).mkdir(parents=True, exist_ok=True)
    for picture in page.pictures:
        write_whole(out / FIGURES / picture.name, picture.content)
    write_whole(out / "report.csv", numbers(scores).encode())
    write_whole(out / "report.md", markdown(page).encode())
    write_whole(out / "report.html", html(page).encode())


def _examples(scores: Scores, data: list[Path], model: str | None, head: Path | None, device: str) -> list[Picture]:
    from ruac.data.folder import find_sets
    from ruac.loading import load
    from ruac.report.examples import draw_examples

    return draw_examples(scores, find_sets(data), load(model or scores.comparison.runs[0].model, device, head=head))


def _to_see_examples(scores: Scores, results: list[Path], out: Path, model: str | None, head: Path | None) -> str:
    """The command with the data, and the head, of the first results, as those name them."""
    paths = scores.comparison.runs[0].paths
    recorded = [Path(path) for path in paths.get("head", ())]
    return _typed(results, out, paths.get("data", ["DATA"]), model, head or next(iter(recorded), None))


def _typed(results: list[Path], out: Path, data: list[str] | None, model: str | None, head: Path | None) -> str:
    """The command, as far as it matters to what the report says."""
    words = ["ruac", "report", *map(str, results), *(word for folder in data or () for word in ("--data", folder))]
    for option, value in (("--model", model), ("--head", head)):
        words += [] if value is None else [option, str(value)]
    return shlex.join([*words, "--out", str(out)])


def _made() -> str:
    from datetime import UTC, datetime
    from importlib.metadata import version

    from ruac.machine import describe_machine

    return f"Made on {datetime.now(UTC):%Y-%m-%d} (UTC) by ruac {version('ruac')} on {describe_machine()}"
