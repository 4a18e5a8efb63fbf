"""The pictures of the report, as SVG. Every line differs from the others by more than its colour, so that they survive a printer."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from ruac.report.curves import Reliability, RiskCoverage
from ruac.report.ranks import Ranks, cliques

# Okabe and Ito's palette, told apart with every kind of colour blindness; its yellow is too pale for lines on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
PERFECT = (0, (1, 2))
LINEAR = 0.1  # per cent points of gain up to which the axis is linear
INK, FAINT, GRID = "#222222", "#777777", "#dddddd"
SMALL = 8


@dataclass(frozen=True)
class Style:
    """How a contender is drawn: colour and marker tell the method, the dashes tell the run."""

    colour: str
    marker: str
    dashes: str

    @staticmethod
    def of(method: int, run: int) -> Style:
        return Style(COLOURS[method % len(COLOURS)], MARKERS[method % len(MARKERS)], DASHES[run % len(DASHES)])


@dataclass(frozen=True)
class Curve:
    """A contender's curves in one region."""

    label: str
    style: Style
    reliability: Reliability
    risk: RiskCoverage


@dataclass(frozen=True)
class Gains:
    """A contender's gain over plain in one measure. sets: of each set, per cent points; mean, low, high: over them all."""

    label: str
    style: Style
    sets: Sequence[float]
    mean: float
    low: float
    high: float


def draw_reliability(regions: Mapping[str, Sequence[Curve]]) -> bytes:
    """Region by region a row of panels, one a contender: true against expected error rate, and below how many pixels are where."""
    columns = max(len(curves) for curves in regions.values())
    figure = Figure(figsize=(max(4.0, 1.55 * columns + 0.6), 2.45 * len(regions) + 0.2), layout="constrained")
    grid = figure.subplots(2 * len(regions), columns, squeeze=False, height_ratios=[3, 1] * len(regions))
    for row, (region, curves) in enumerate(regions.items()):
        upper, lower = grid[2 * row], grid[2 * row + 1]
        limit = _limit(curves)
        for axis, strip, curve in zip(upper, lower, curves, strict=False):
            _reliability_panel(axis, strip, curve, limit)
            if axis is not upper[0]:
                axis.tick_params(labelleft=False)
                strip.tick_params(labelleft=False)
        for axis in (*upper[len(curves) :], *lower[len(curves) :]):
            axis.set_axis_off()
        plain_text(upper[0].set_ylabel(f"{region}\ntrue error rate", fontsize=SMALL))
        lower[0].set_ylabel("pixels", fontsize=SMALL)
        for strip in lower[: len(curves)]:
            strip.set_xlabel("expected error", fontsize=SMALL)
    return _svg(figure)


def draw_risk(regions: Mapping[str, Sequence[Curve]]) -> bytes:
    """A panel a region: error rate among the most certain pixels, by the share of pixels that are kept."""
    figure = Figure(figsize=(4.6 * len(regions), 3.9), layout="constrained")
    axes = figure.subplots(1, len(regions), squeeze=False)[0]
    handles, labels = [], []
    for axis, (region, curves) in zip(axes, regions.items(), strict=True):
        _frame(axis)
        for curve in curves:
            style = curve.style
            (line,) = axis.plot(
                100 * curve.risk.coverage,
                100 * curve.risk.risk,
                color=style.colour,
                linestyle=style.dashes,
                marker=style.marker,
                markersize=4,
                markevery=(10, 30),
                linewidth=1.4,
            )
            if axis is axes[0]:
                handles.append(line)
                labels.append(curve.label)
        # one run, one set of masks, one perfect order: equal curves lie on each other
        perfect = [
            axis.plot(100 * c.risk.coverage, 100 * c.risk.best, color=FAINT, linewidth=0.8, linestyle=PERFECT) for c in curves
        ]
        if axis is axes[0]:
            handles += perfect[0]
            labels.append("perfect order")
        axis.set_title(region, fontsize=SMALL + 1, color=INK)
        axis.set_xlabel("most certain pixels kept, %", fontsize=SMALL)
        axis.set_ylabel("wrong among them, %", fontsize=SMALL)
        axis.set_xlim(min((100 * float(c.risk.coverage[0]) for c in curves), default=0), 100)
        axis.set_ylim(bottom=0)
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=SMALL, frameon=False)
    for text in legend.get_texts():
        plain_text(text)
    return _svg(figure)


def draw_ranks(every: Sequence[Ranks]) -> bytes:
    """A line a measure, best on the left; bars join methods that are not told apart."""
    heights = [0.34 + 0.16 * len(ranks.methods) for ranks in every]
    figure = Figure(figsize=(7.2, 0.55 * len(every) + sum(heights) + 0.3), layout="constrained")
    axes = figure.subplots(len(every), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, ranks in zip(axes, every, strict=True):
        _rank_line(axis, ranks)
    return _svg(figure)


def draw_gains(measures: Mapping[str, Sequence[Gains]]) -> bytes:
    """A panel a measure, a row a contender: every set a dot, the mean of all a bar with its interval. Right of zero is better."""
    rows = max(len(gains) for gains in measures.values())
    figure = Figure(figsize=(3.3 * len(measures) + 1.2, 0.42 * rows + 1.0), layout="constrained")
    axes = figure.subplots(1, len(measures), squeeze=False, sharey=True)[0]
    for axis, (title, gains) in zip(axes, measures.items(), strict=True):
        _frame(axis)
        axis.axvline(0, color=INK, linewidth=0.8)
        for row, gain in enumerate(gains):
            dots = [value for value in gain.sets if np.isfinite(value)]
            # spread by a fixed pattern, not at random: the same results give the same picture
            offsets = 0.22 * np.cos(2.4 * np.arange(len(dots)))
            axis.scatter(dots, row + offsets, s=9, color=gain.style.colour, alpha=0.45, linewidths=0)
            axis.plot([gain.low, gain.high], [row, row], color=INK, linewidth=2.2, solid_capstyle="butt")
            axis.plot([gain.mean], [row], marker=gain.style.marker, color=gain.style.colour, markeredgecolor=INK, markersize=7)
        plain_text(axis.set_title(title, fontsize=SMALL + 1, color=INK))
        axis.set_xlabel("worse  ←  per cent points  →  better", fontsize=SMALL)
        axis.set_ylim(rows - 0.5, -0.5)
        if np.nanmax(np.abs([value for gain in gains for value in (*gain.sets, gain.low, gain.high)])) > LINEAR:
            # one far set must not squeeze all others together: beyond these limits is linear in the logarithm
            axis.set_xscale("symlog", linthresh=LINEAR)
            axis.xaxis.set_major_formatter("{x:g}")
        else:
            axis.locator_params(axis="x", nbins=4)
        axis.margins(x=0.1)
    axes[0].set_yticks(range(rows), [gain.label for gain in next(iter(measures.values()))], fontsize=SMALL)
    for text in axes[0].get_yticklabels():
        plain_text(text)
    return _svg(figure)


def _reliability_panel(axis: Axes, strip: Axes, curve: Curve, limit: float) -> None:
    found = curve.reliability
    for one in (axis, strip):
        _frame(one)
        one.set_xlim(0, limit)
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle="--")
    axis.fill_between(found.expected, found.expected, found.observed, color=curve.style.colour, alpha=0.18, linewidth=0)
    axis.plot(found.expected, found.observed, color=curve.style.colour, marker=curve.style.marker, markersize=3.2, linewidth=1.2)
    axis.set_ylim(0, limit)
    axis.tick_params(labelbottom=False)
    plain_text(axis.set_title(_wrapped(curve.label), fontsize=SMALL, color=INK))
    strip.fill_between(found.expected, 1e-5, found.share, color=curve.style.colour, alpha=0.7, linewidth=0)
    strip.set_yscale("log")
    strip.set_ylim(1e-4, 1.5)
    strip.set_yticks([1e-4, 1e-2, 1], ["0.01 %", "1 %", "100 %"], fontsize=SMALL - 2)
    strip.minorticks_off()


def _limit(curves: Sequence[Curve]) -> float:
    """Where the axes end: at one half, or at the next tenth beyond what is drawn."""
    largest = max((float(max(c.reliability.expected.max(), c.reliability.observed.max())) for c in curves), default=0.5)
    return float(min(1.0, max(0.5, np.ceil(10 * largest) / 10)))


def _rank_line(axis: Axes, ranks: Ranks) -> None:
    order = np.argsort(ranks.ranks, kind="stable")
    count = len(order)
    axis.set_xlim(1 - 0.22 * count, count + 0.2)
    axis.set_ylim(count + 0.7, -0.9)
    for side in ("left", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.xaxis.tick_top()
    axis.set_xticks(range(1, count + 1))
    axis.tick_params(labelsize=SMALL, colors=INK)
    axis.set_yticks([])
    for row, i in enumerate(order):
        place = ranks.ranks[i]
        style = Style.of(int(i), 0)
        axis.plot([place, place], [-0.9, row + 1], color=style.colour, linewidth=1)
        axis.plot([place], [row + 1], marker=style.marker, color=style.colour, markersize=5)
        # on the left, where the lines of all that rank before have ended above
        text = axis.text(
            place - 0.06, row + 1, f"{ranks.methods[i]}  {place:.2f}", ha="right", va="center", fontsize=SMALL, color=INK
        )
        plain_text(text)
    for step, (first, last) in enumerate(cliques(ranks.ranks, ranks.critical)):
        height = -0.55 + 0.32 * step
        axis.plot([first - 0.03, last + 0.03], [height, height], color=INK, linewidth=3, solid_capstyle="butt")
    title = f"{ranks.measure}: mean rank over {ranks.sets} sets; critical difference {ranks.critical:.2f}"
    plain_text(axis.set_title(title, fontsize=SMALL + 1, loc="left", color=INK))


def _frame(axis: Axes) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.grid(color=GRID, linewidth=0.5)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=SMALL - 1, colors=INK)


def plain_text(text: Text) -> Text:
    """Names are no formulas: a dollar sign in one is a dollar sign."""
    text.set_parse_math(False)
    return text


def _wrapped(label: str) -> str:
    return label.replace(" · ", "\n").replace(" (", "\n(")


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return buffer.getvalue()
