"""A summary for people: tables for the terminal and for Markdown."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ruac.evaluate.protocol import MIN_PIXELS
from ruac.evaluate.summary import DRAWS, Estimate, GroupSummary, SetSummary, Summary
from ruac.regions import BAND

# measure, heading, whether less is better
PIXEL_COLUMNS = (
    ("auroc", "AUROC", False),
    ("aupr", "AUPR", False),
    ("aurc", "AURC", True),
    ("spearman", "Spearman", False),
    ("ece", "ECE", True),
    ("brier", "Brier", True),
)


@dataclass(frozen=True)
class Grid:
    """The first column is text, the others are numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_rich(self) -> Table:
        table = Table(title=self.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for i, name in enumerate(self.header):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        lines = [self.header, ("---",) + ("---:",) * (len(self.header) - 1), *self.rows]
        return f"### {self.title}\n\n" + "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )


def overview(summary: Summary) -> Grid:
    """What fits a terminal: J&F by number of prompts, error detection and calibration after the last one, no intervals."""
    clicks = summary.origin.clicks
    last = clicks[-1]
    pixel = [f"{readout}.{measure}.image@{last}" for measure in ("auroc", "ece") for readout in ("head", "plain")]
    header = ("", "images", *(f"J&F@{n}" for n in clicks), "AUROC", "plain", "ECE", "plain")
    rows = tuple(
        (
            part.name,
            str(_counts(summary, part)[0]),
            *(_percent(part.measures.get(name), interval=False) for name in (*(f"j_and_f@{n}" for n in clicks), *pixel)),
        )
        for part in _parts(summary)
    )
    return Grid(f"{summary.model}, in per cent; AUROC and ECE after {_prompts(last)}: head, plain entropy", header, rows)


def mask_grid(summary: Summary) -> Grid:
    """IoU, boundary F, J&F and Dice by number of prompts; IoU with intervals."""
    names = {"iou": "IoU", "boundary_f": "F", "j_and_f": "J&F", "dice": "Dice"}
    columns = [(measure, clicks) for measure in names for clicks in summary.origin.clicks]
    header = ("", "images", "objects", *(f"{names[measure]}@{clicks}" for measure, clicks in columns))
    rows = []
    for part in _parts(summary):
        cells = (_percent(part.measures.get(f"{measure}@{clicks}"), measure == "iou") for measure, clicks in columns)
        images, objects = (str(n) for n in _counts(summary, part))
        rows.append((part.name, images, objects, *cells))
    return Grid("Masks, in per cent, by number of prompts", header, tuple(rows))


def pixel_grid(summary: Summary, region: str, clicks: int) -> Grid:
    """Error detection and calibration: head / plain entropy on the same pixels."""
    header = (
        "head / plain entropy",
        "errors %",
        *(f"{name} {'↓' if less else '↑'}" for _, name, less in PIXEL_COLUMNS),
        "gain in AUROC",
    )
    rows = []
    for part in _parts(summary):
        get = part.measures.get
        pairs = (
            " / ".join(_percent(get(f"{readout}.{measure}.{region}@{clicks}"), interval=False) for readout in ("head", "plain"))
            for measure, _, _ in PIXEL_COLUMNS
        )
        errors = _percent(get(f"plain.error_rate.{region}@{clicks}"), interval=False)
        rows.append((part.name, errors, *pairs, _percent(get(f"difference.auroc.{region}@{clicks}"))))
    where = "the whole image" if region == "image" else f"the band within {BAND:.0%} of the diagonal around the object"
    return Grid(f"Pixels of {where}, after {_prompts(clicks)}, in per cent", header, tuple(rows))


def markdown(summary: Summary) -> str:
    """summary.md: every table, and how to read them."""
    origin = summary.origin
    grids = [mask_grid(summary)]
    grids += [pixel_grid(summary, region, clicks) for clicks in origin.clicks for region in ("image", "band")]
    better = [
        f"- {group.name}: " + ", ".join(f"{where} {_number(100 * share)} %" for where, share in group.head_better.items())
        for group in summary.groups
    ]
    blocks = [
        f"# Evaluation of {summary.model}",
        f"ruac {origin.ruac}, weights sha256 {origin.weights[:12]}…; first prompt: {origin.prompt}; at most {origin.max_objects} "
        f"objects an image (seed {origin.seed}) of at least {MIN_PIXELS} pixels; the model's own correction clicks.",
        "Objects are averaged within an image, images within a set, sets within a group. In brackets: 95 % bootstrap interval "
        f"over images ({DRAWS} draws). Plain entropy is that of the decoder's own logits, without the head, on the same "
        "masks and pixels.",
        "Share of the sets where the head's AUROC is above plain entropy's:\n\n" + "\n".join(better),
        *(grid.to_markdown() for grid in grids),
    ]
    if summary.failed:
        blocks.append("### Files that could not be read\n\n" + "\n".join(f"- {line}" for line in summary.failed))
    return "\n\n".join(blocks) + "\n"


def _parts(summary: Summary) -> tuple[GroupSummary | SetSummary, ...]:
    return (*summary.groups, *summary.sets)


def _counts(summary: Summary, part: GroupSummary | SetSummary) -> tuple[int, int]:
    members = [part] if isinstance(part, SetSummary) else [s for s in summary.sets if s.name in part.sets]
    return sum(s.images for s in members), sum(s.objects for s in members)


def _prompts(number: int) -> str:
    return f"{number} prompt{'s' * (number > 1)}"


def _percent(estimate: Estimate | None, interval: bool = True) -> str:
    if estimate is None or math.isnan(estimate.mean):
        return "–"
    text = _number(100 * estimate.mean)
    return f"{text} [{_number(100 * estimate.low)}, {_number(100 * estimate.high)}]" if interval else text


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"
