"""The figures of the report with their titles and the words below them."""

from __future__ import annotations

import numpy as np

from ruac.report.blocks import Picture
from ruac.report.curves import mix, reliability, risk_coverage
from ruac.report.figures import Curve, Gains, Style, draw_gains, draw_ranks, draw_reliability, draw_risk
from ruac.report.measures import RANKED
from ruac.report.read import Comparison, Contender
from ruac.report.scores import REGIONS, Scores
from ruac.report.tables import ALL_SETS, counted, ranks_of
from ruac.report.words import GAIN_NOTES, RANK_NOTES, RELIABILITY_NOTES, RISK_NOTES


def curves(scores: Scores, group: str | None) -> list[Picture]:
    """Reliability, run by run, and risk-coverage curves over the sets of a group that are `Comparison.pooled`; empty where none is."""
    comparison, clicks = scores.comparison, scores.comparison.last
    where = ALL_SETS if group is None else f"group {group}"
    name = "all" if group is None else f"group{comparison.groups.index(group)}"
    by_region = _curves(scores, group)
    if not all(by_region.values()):
        return []
    over = f"Over {counted([part for part in comparison.pooled if group in (None, part.group)])}."
    pictures = []
    # panels are many: for several runs, one picture each is what a page can hold
    for index, run in enumerate(comparison.runs if group is None or len(comparison.runs) == 1 else ()):
        own = {region: [curve for contender, curve in found if contender.index == index] for region, found in by_region.items()}
        if not all(own.values()):
            continue
        title = f"Reliability, {where}, after {clicks} prompts"
        pictures.append(
            Picture(
                title if len(comparison.runs) == 1 else f"{title}: {run.label}",
                f"reliability-{name}-{index}.svg",
                draw_reliability(own),
                "For each method, the true error rate of pixels against the error it expects, in the image and in the band.",
                (over, *RELIABILITY_NOTES),
                folded=group is not None,
            )
        )
    risk = draw_risk({region: [curve for _, curve in found] for region, found in by_region.items()})
    pictures.append(
        Picture(
            f"Risk and coverage, {where}, after {clicks} prompts",
            f"risk-{name}.svg",
            risk,
            "For each method, the error rate among the most certain pixels by the share kept, in the image and in the band.",
            (over, *RISK_NOTES),
            folded=group is not None,
        )
    )
    return pictures


def gains(scores: Scores, region: str, clicks: int) -> list[Picture]:
    """Every method less plain, set by set; empty where there is nothing to compare."""
    everything = scores.members(None)
    pairs = [(c, plain) for c in scores.comparison.contenders if (plain := scores.comparison.plain_of(c))]
    drawn: dict[str, list[Gains]] = {}
    for measure in RANKED:
        sign = 100 if measure.higher else -100
        for contender, plain in pairs:
            gain = scores.gain(contender, plain, measure, region, clicks)
            mean = gain.mean(everything)
            if mean.defined:
                ends = sorted(sign * end for end in mean.interval)
                found = Gains(
                    contender.label, style(scores.comparison, contender), (sign * gain.values).tolist(), sign * mean.value, *ends
                )
                drawn.setdefault(f"{measure.title} ({region})", []).append(found)
    if not drawn or len({len(found) for found in drawn.values()}) > 1:
        return []
    return [
        Picture(
            f"Gain over plain, set by set, {region}, after {clicks} prompts",
            f"gains-{region}.svg",
            draw_gains(drawn),
            "For each method and measure, the gain over plain on every set, and its mean with a 95 % interval.",
            GAIN_NOTES,
        )
    ]


def ranks(scores: Scores, index: int, region: str, clicks: int) -> list[Picture]:
    """Of the methods of one run; empty with fewer than three sets or methods."""
    found = ranks_of(scores, index, region, clicks)
    if not found:
        return []
    comparison = scores.comparison
    whose = f" of {comparison.runs[index].label}" if len(comparison.runs) > 1 else ""
    tests = "; ".join(f"{one.measure} p {'< 0.001' if one.p < 0.001 else f'= {one.p:.3f}'}" for one in found)
    overall = np.mean([one.ranks for one in found], 0)
    order = ", ".join(f"{found[0].methods[i]} {overall[i]:.2f}" for i in np.argsort(overall, kind="stable"))
    return [
        Picture(
            f"Mean rank{whose}, {region}, after {clicks} prompts",
            f"ranks-{index}.svg",
            draw_ranks(found),
            "The methods on a line by their mean rank over the sets, for each measure; bars join methods that are not told apart.",
            (f"Over {len(found)} measures: {order}. Friedman's test that all methods are alike: {tests}.", *RANK_NOTES),
        )
    ]


def style(comparison: Comparison, contender: Contender) -> Style:
    """The same method looks the same in every run and figure."""
    methods = list(dict.fromkeys(other.method for other in comparison.contenders))
    return Style.of(methods.index(contender.method), contender.index)


def _curves(scores: Scores, group: str | None) -> dict[str, list[tuple[Contender, Curve]]]:
    """By region, after the last prompts, of those contenders whose results have histograms."""
    comparison = scores.comparison
    names = [part.name for part in comparison.pooled if group in (None, part.group)]
    found: dict[str, list[tuple[Contender, Curve]]] = {region: [] for region in REGIONS}
    for contender in comparison.contenders:
        for region, drawn in found.items():
            mixture = mix([comparison.histograms[name][contender.index][contender.method, region] for name in names])
            if mixture is not None:
                look = style(comparison, contender)
                drawn.append((contender, Curve(contender.label, look, reliability(mixture), risk_coverage(mixture))))
    return found
