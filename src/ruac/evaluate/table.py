"""A summary for people: tables for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ruac.evaluate.bootstrap import DRAWS, Estimate
from ruac.evaluate.clicks import TARGETS
from ruac.evaluate.comparison import LESS_IS_BETTER, REFERENCE
from ruac.evaluate.protocol import MIN_PIXELS
from ruac.evaluate.suite import SUITES
from ruac.evaluate.summary import GroupSummary, SetSummary, Summary
from ruac.regions import BAND

# measures of pixels and their headings
PIXEL_COLUMNS = {
    "auroc": "AUROC",
    "aupr": "AUPR",
    "aurc": "AURC",
    "eaurc": "E-AURC",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "ece": "ECE",
    "ece_adaptive": "adaptive ECE",
    "brier": "Brier",
    "nll": "NLL (0.01 nats)",
    "pavpu": "PAvPU",
}
# in per cent, of which little is left
FINE = frozenset({"aurc", "eaurc"})
HUMAN = {"human_spearman": "Spearman", "human_pearson": "Pearson"}


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
    methods = [name for name in ("head", REFERENCE) if name in summary.origin.methods]
    pixel = [f"{method}.{measure}.image@{last}" for measure in ("auroc", "ece") for method in methods]
    names = [heading if method == methods[0] else method for heading in ("AUROC", "ECE") for method in methods]
    header = ("", "images", *(f"J&F@{n}" for n in clicks), *names)
    rows = tuple(
        (
            part.name,
            str(_counts(summary, part)[0]),
            *(_percent(part.measures.get(name), interval=False) for name in (*(f"j_and_f@{n}" for n in clicks), *pixel)),
        )
        for part in _parts(summary)
    )
    told = f"; AUROC and ECE after {_prompts(last)}: {', '.join(f'{m} entropy' if m == REFERENCE else m for m in methods)}"
    return Grid(f"{summary.model}, in per cent{told if methods else ''}", header, rows)


def method_grid(summary: Summary, region: str, clicks: int) -> Grid:
    """Every method over all sets: how well it does, whether that is more than the reference, and what it costs."""
    everything = summary.groups[0]
    header = (
        "all sets",
        *(f"{PIXEL_COLUMNS[name]} {_arrow(name)}" for name in PIXEL_COLUMNS),
        f"AUROC less {REFERENCE}",
        "AURC less",
        "ECE less",
        "better",
        "rank",
        *(("cost ×",) if summary.cost else ()),
    )
    rows = []
    for method in summary.origin.methods:
        where = f"{region}@{clicks}"
        rows.append(
            (
                method,
                *(_pixels(everything.measures.get(f"{method}.{name}.{where}"), name) for name in PIXEL_COLUMNS),
                *(
                    _pixels(everything.measures.get(f"difference.{method}.{name}.{where}"), name, interval=True)
                    for name in ("auroc", "aurc", "ece")
                ),
                _number(100 * everything.better.get(f"{method}.auroc.{where}", math.nan)),
                _number(everything.ranks.get(f"{method}.{where}", math.nan), 2),
                *((_number(summary.cost.factors.get(method, math.nan), 2),) if summary.cost else ()),
            )
        )
    return Grid(f"Methods, pixels of {_region(region)}, after {_prompts(clicks)}, in per cent", header, tuple(rows))


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


def effort_grid(summary: Summary) -> Grid:
    """Clicks to a good mask, and how many objects never get one."""
    names = [f"{round(100 * target)}" for target in TARGETS]
    header = ("", *(f"NoC@{name}" for name in names), *(f"failed@{name} %" for name in names))
    rows = []
    for part in _parts(summary):
        noc, failed = ([part.measures.get(f"{kind}.{name}") for name in names] for kind in ("noc", "noc_failed"))
        rows.append(
            (part.name, *("–" if e is None else _number(e.mean, 2) for e in noc), *(_percent(e, interval=False) for e in failed))
        )
    title = f"Clicks to reach an IoU, of {summary.origin.noc} at most; an object that never does counts as {summary.origin.noc}"
    return Grid(title, header, tuple(rows))


def pixel_grid(summary: Summary, method: str, region: str, clicks: int) -> Grid:
    """Error detection and calibration of a method, and of the reference on the same pixels where it is another one."""
    pair = [method, *([REFERENCE] if method != REFERENCE and REFERENCE in summary.origin.methods else [])]
    gain = len(pair) == 2
    heading = " / ".join(f"{name} entropy" if name == REFERENCE else name for name in pair)
    header = (
        heading,
        "errors %",
        *(f"{name} {_arrow(measure)}" for measure, name in PIXEL_COLUMNS.items()),
        *(("gain in AUROC",) if gain else ()),
        "micro AUROC",
        "micro ECE",
        "micro AURC",
    )
    rows = []
    for part in _parts(summary):
        get, where = part.measures.get, f"{region}@{clicks}"
        cells = (" / ".join(_pixels(get(f"{who}.{name}.{where}"), name) for who in pair) for name in PIXEL_COLUMNS)
        micro = (
            " / ".join(_number(100 * part.micro.get(f"{who}.{name}.{where}", math.nan), _digits(name)) for who in pair)
            for name in ("auroc", "ece", "aurc")
        )
        difference = (_percent(get(f"difference.{method}.auroc.{where}")),) if gain else ()
        rows.append((part.name, _percent(get(f"{method}.error_rate.{where}"), False), *cells, *difference, *micro))
    return Grid(f"{method}: pixels of {_region(region)}, after {_prompts(clicks)}, in per cent", header, tuple(rows))


def agreement_grid(summary: Summary, clicks: int) -> Grid:
    """Does a predicted IoU say which masks are good?"""
    kinds = ["predicted_iou", *(f"{method}.expected_iou" for method in summary.origin.methods)]
    names = ["model's own", *summary.origin.methods]
    header = ("", *(f"{name} Spearman" for name in names), *(f"{name} MAE %" for name in names))
    rows = []
    for part in _parts(summary):
        spearman, mae = (
            [part.agreement.get(f"{kind}.{measure}@{clicks}", math.nan) for kind in kinds] for measure in ("spearman", "mae")
        )
        rows.append((part.name, *(_number(value, 3) for value in spearman), *(_number(100 * value) for value in mae)))
    return Grid(f"Expected and predicted IoU against the true one, over objects, after {_prompts(clicks)}", header, tuple(rows))


def human_grid(summary: Summary, clicks: int) -> Grid | None:
    """Doubt of the methods against the disagreement of several annotators; None where no set has them."""
    columns = [(method, measure) for measure in HUMAN for method in summary.origin.methods]
    parts = [part for part in summary.sets if any(name.partition(".")[2].startswith("human_") for name in part.measures)]
    if not parts:
        return None
    header = ("", *(f"{method} {HUMAN[measure]}" for method, measure in columns))
    rows = tuple(
        (part.name, *(_percent(part.measures.get(f"{m}.{measure}.image@{clicks}"), False) for m, measure in columns))
        for part in parts
    )
    return Grid(f"Doubt and the disagreement of people, whole image, after {_prompts(clicks)}, in per cent", header, rows)


def markdown(summary: Summary) -> str:
    """summary.md: every table, and how to read them."""
    origin = summary.origin
    last = origin.clicks[-1]
    own = "prompts from a file" if origin.prompts else "the model's own correction clicks"
    first = f" Only the first {summary.max_images} images by name of each set." if summary.max_images else ""
    others = [method for method in origin.methods if method != REFERENCE] or list(origin.methods)
    grids = [method_grid(summary, region, last) for region in ("image", "band")]
    grids += [mask_grid(summary)]
    grids += [effort_grid(summary)] if origin.noc else []
    grids += [agreement_grid(summary, clicks) for clicks in origin.clicks]
    human = human_grid(summary, last)
    grids += [human] if human else []
    grids += [
        pixel_grid(summary, method, region, clicks)
        for method in others
        for clicks in origin.clicks
        for region in ("image", "band")
    ]
    blocks = [
        f"# Evaluation of {summary.model}",
        f"ruac {origin.ruac}, weights sha256 {origin.weights[:12]}…; first prompt: {origin.prompt}; at most {origin.max_objects} "
        f"objects an image (seed {origin.seed}) of at least {MIN_PIXELS} pixels; {own}.{first}",
        *_suite(summary),
        "Objects are averaged within an image, images within a set, sets within a group; 'micro' counts all pixels of a set or group "
        f"together. In brackets: 95 % bootstrap interval over images ({DRAWS} draws; differences are paired). All methods are judged "
        "on the masks of the model's own head. Plain entropy is that of the decoder's own logits, without the head.",
        "Share of the sets where a method's AUROC is above plain entropy's:\n\n" + "\n".join(_better(summary, others)),
        *(grid.to_markdown() for grid in grids),
    ]
    if summary.head_trained is False:
        blocks.append("The model's head is not trained: the method 'head' is plain entropy.")
    if summary.cost:
        blocks.append(f"Cost: a click with the method, × a click without any, on {summary.cost.machine}.")
    if summary.failed:
        blocks.append("### Files that could not be read\n\n" + "\n".join(f"- {line}" for line in summary.failed))
    return "\n\n".join(blocks) + "\n"


def _suite(summary: Summary) -> list[str]:
    suite = SUITES.get(summary.origin.suite or "")
    if suite is None:
        return []
    there = {part.name for part in summary.sets}
    missing = [domain.name for domain in suite.domains if domain.name not in there]
    told = f"Suite {suite.name}: {len(there)} of {len(suite.domains)} sets"
    return [f"{told}; missing: {', '.join(missing)}." if missing else f"{told}."]


def _better(summary: Summary, methods: Sequence[str]) -> list[str]:
    lines = []
    for group in summary.groups:
        for method in methods:
            prefix = f"{method}.auroc."
            shares = {name.removeprefix(prefix): share for name, share in group.better.items() if name.startswith(prefix)}
            if shares:
                who = f"{group.name}: " if method == "head" else f"{group.name}, {method}: "
                lines.append(f"- {who}" + ", ".join(f"{where} {_number(100 * share)} %" for where, share in shares.items()))
    return lines


def _parts(summary: Summary) -> tuple[GroupSummary | SetSummary, ...]:
    return (*summary.groups, *summary.sets)


def _counts(summary: Summary, part: GroupSummary | SetSummary) -> tuple[int, int]:
    members = [part] if isinstance(part, SetSummary) else [s for s in summary.sets if s.name in part.sets]
    return sum(s.images for s in members), sum(s.objects for s in members)


def _region(name: str) -> str:
    return "the whole image" if name == "image" else f"the band within {BAND:.0%} of the diagonal around the object"


def _arrow(measure: str) -> str:
    return "↓" if measure in LESS_IS_BETTER else "↑"


def _prompts(number: int) -> str:
    return f"{number} prompt{'s' * (number > 1)}"


def _pixels(estimate: Estimate | None, measure: str, interval: bool = False) -> str:
    return _percent(estimate, interval, _digits(measure))


def _digits(measure: str) -> int:
    return 3 if measure in FINE else 1


def _percent(estimate: Estimate | None, interval: bool = True, digits: int = 1) -> str:
    if estimate is None or math.isnan(estimate.mean):
        return "–"
    text = _number(100 * estimate.mean, digits)
    return f"{text} [{_number(100 * estimate.low, digits)}, {_number(100 * estimate.high, digits)}]" if interval else text


def _number(value: float, digits: int = 1) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
