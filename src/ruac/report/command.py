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
) -> None:
    """Write a report of one or more evaluations: tables, curves and examples, with what they do and do not show.

    Writes <out>/report.html, which needs no other file, report.md with its figures, and report.csv with every number.

    Example: ruac report runs/eval --out report

    Args:
        results: Folders that `ruac eval` wrote, of different models or settings; the sets that all of them have are compared.
        out: Folder for the report; made if need be.
        data: Data sets that were evaluated, to show example pictures of; repeat for several folders.
        model: The model to make the example pictures with; by default the one that the first results name.
        head: A head trained for that model, as a file, if it was evaluated with one.
        device: For the example pictures: cpu, cuda, mps ...

    Raises:
        ValueError: For folders without results, results of different protocols, and a model that is not theirs.
        FileNotFoundError: When a folder, the data or the model is missing.
    """
    require_folder(out)

    from ruac.report.page import compose, findings
    from ruac.report.read import compare, open_runs
    from ruac.report.scores import Scores

    scores = Scores(compare(open_runs(results)))
    examples = _examples(scores, [Path(folder) for folder in data], model, head, device) if data else []
    page = compose(scores, findings(scores), examples, _typed(results, out, data, model, head), _made())
    write(page, scores, out)
    print(f"Report: {out / 'report.html'}, report.md and report.csv")


def write(page: Report, scores: Scores, out: Path) -> None:
    """Every file of the report, the page last."""
    from ruac.report.render import FIGURES, html, markdown, numbers

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
