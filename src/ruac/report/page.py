"""The report from top to bottom: which tables and pictures, in which order, and what is said about them."""

from __future__ import annotations

from collections.abc import Sequence

from ruac.report.blocks import Block, Cell, Listing, Picture, Report, Section, Table
from ruac.report.findings import listed
from ruac.report.measures import AGREEMENT, CLICKS, COST, MASKS, MORE, PIXELS, Measure
from ruac.report.pictures import curves, gains, ranks
from ruac.report.published import AVERAGES, DOMAINS, SOURCE, SUITE, published
from ruac.report.scores import REGIONS, Scores
from ruac.report.settings import settings
from ruac.report.tables import ALL_SETS, by_set, counted, guesses, headline, masks, people, pooled, significance
from ruac.report.words import (
    AVERAGES_WORDS,
    CURVE_WORDS,
    EQUAL_MASKS,
    EXAMPLE_WORDS,
    EXAMPLES_MISSING,
    EXPECTED_WORDS,
    FLATTERED,
    GAIN_WORDS,
    LIMITS,
    MASK_WORDS,
    METHOD_NOTES,
    METHOD_WORDS,
    NOT_DRAWN,
    PAPER_WORDS,
    PEOPLE_WORDS,
    PLACES,
    PUBLISHED_NOTES,
    SEE_WORDS,
)


def compose(scores: Scores, findings: Sequence[str], examples: Sequence[Picture], command: str, to_see: str, made: str) -> Report:
    """findings: the report in a few sentences; examples: pictures, if any; command: what was typed; to_see: what to type for examples;
    made: when and where."""
    comparison = scores.comparison
    last = comparison.last
    models = [run.label for run in comparison.runs]
    title = f"Evaluation of {models[0]}" if len(models) == 1 else f"{listed(models)} compared"
    sections = [
        _short(scores, findings),
        Section(
            "masks",
            "Masks",
            MASK_WORDS,
            (masks(scores),),
        ),
        _methods(scores),
        _plain(scores),
        Section(
            "curves",
            "Calibration and order, in pictures",
            (*CURVE_WORDS, *_not_drawn(scores)),
            tuple(_curves(scores)),
        ),
        *_optional("expected-iou", "Does a method know how good its mask is?", EXPECTED_WORDS, guesses(scores, last)),
        *_people(scores),
        Section(
            "sets",
            "Set by set",
            (f"After {last} prompts, over {PLACES['image']}. A table for each measure; the CSV file also has the others.",),
            tuple(by_set(scores, measure, "image", last) for measure in (*MASKS, *PIXELS, *AGREEMENT) if _known(scores, measure)),
        ),
        _examples(examples, to_see),
        _paper(scores),
        settings(comparison, command, made),
        _glossary(scores),
    ]
    methods = len({contender.method for contender in comparison.contenders})
    limits = {run.max_images for run in comparison.runs}
    part = f" (of each set the first {max(limit for limit in limits if limit)})" if all(limits) else ""
    subtitle = f"{counted(comparison.sets)}{part}; {methods} method{'s' * (methods != 1)}"
    return Report(title, subtitle, made, tuple(sections))


def _short(scores: Scores, findings: Sequence[str]) -> Section:
    last = scores.comparison.last
    title = f"Every method, {ALL_SETS}, whole image, after {last} prompts"
    blocks: list[Block] = [Listing("", tuple(findings))]
    if scores.comparison.notes:
        blocks.append(Listing("To keep in mind", scores.comparison.notes))
    blocks.append(headline(scores, None, "image", last, title))
    words = (EQUAL_MASKS, f"{FLATTERED} {SEE_WORDS}")
    return Section("short", "In short", words, tuple(blocks))


def _methods(scores: Scores) -> Section:
    comparison = scores.comparison
    last = comparison.last
    blocks = [headline(scores, None, "band", last, f"{ALL_SETS}, band around the object, after {last} prompts", folded=True)]
    for group in comparison.groups if len(comparison.groups) > 1 else ():
        for region in REGIONS:
            blocks.append(headline(scores, group, region, last, f"group {group}, {region}, after {last} prompts", folded=True))
    for clicks in comparison.clicks[:-1]:
        for region in REGIONS:
            title = f"{ALL_SETS}, {region}, after {clicks} prompt{'s' * (clicks > 1)}"
            blocks.append(headline(scores, None, region, clicks, title, folded=True))
    for region in REGIONS:
        table = pooled(scores, region, last, f"{ALL_SETS}, {region}, after {last} prompts, all pixels of a set pooled (micro)")
        blocks += [] if table is None else [table]
    words = (
        "The table of the first section again, for the band around the object, for groups of sets and for fewer prompts; then with "
        "all pixels of a set pooled, where the others are means over its images.",
        f"Two regions are judged. Image: {PLACES['image']}; far from the object nearly all of them are right and certain, which "
        f"flatters every method. Band: {PLACES['band']}, where errors are to be expected and methods differ.",
    )
    return Section("methods", "Methods by region, group and prompts", words, tuple(blocks))


def _plain(scores: Scores) -> Section:
    last = scores.comparison.last
    blocks: list[Block] = []
    for region in REGIONS:
        table = significance(scores, region, last, f"Gain over plain, {region}, after {last} prompts", folded=region == "band")
        blocks += [] if table is None else [table]
    if not blocks:
        return Section("gain", "Better than plain?", ("The method 'plain' was not measured, or nothing else was.",))
    blocks += gains(scores, "image", last)
    for index in range(len(scores.comparison.runs)):
        blocks += ranks(scores, index, "image", last)
    return Section("gain", "Better than plain?", GAIN_WORDS, tuple(blocks))


def _curves(scores: Scores) -> list[Picture]:
    groups = scores.comparison.groups
    shown: tuple[str | None, ...] = (None, *groups) if len(groups) > 1 else (None,)
    return [picture for group in shown for picture in curves(scores, group)]


def _not_drawn(scores: Scores) -> list[str]:
    comparison = scores.comparison
    missing = [part.name for part in comparison.sets if part not in comparison.pooled]
    return [NOT_DRAWN.format(", ".join(missing))] if missing else []


def _optional(anchor: str, title: str, words: tuple[str, ...], *tables: Table | None) -> list[Section]:
    found = tuple(table for table in tables if table is not None)
    return [Section(anchor, title, words, found)] if found else []


def _people(scores: Scores) -> list[Section]:
    last = scores.comparison.last
    tables = (people(scores, region, last, f"Doubt and human disagreement, {region}, after {last} prompts") for region in REGIONS)
    return _optional("people", "Is a method in doubt where people disagree?", PEOPLE_WORDS, *tables)


def _known(scores: Scores, measure: Measure) -> bool:
    comparison = scores.comparison
    return any(scores.of(c, measure, "image", comparison.last).defined.any() for c in comparison.contenders)


def _examples(examples: Sequence[Picture], to_see: str) -> Section:
    missing = Listing("", (to_see,), commands=True)
    return Section("examples", "Examples", EXAMPLE_WORDS if examples else (EXAMPLES_MISSING,), tuple(examples) or (missing,))


def _paper(scores: Scores) -> Section:
    comparison = scores.comparison
    averages = Table(
        f"The paper's own averages: J&F in per cent, mean over its {DOMAINS} domains",
        (Cell("method"), Cell("J&F ↑")),
        tuple((Cell(name), Cell(f"{value:.2f}")) for name, value in AVERAGES.items()),
        (AVERAGES_WORDS,),
        folded=True,
    )
    rows = _published_rows(scores)
    if not rows:
        words = (
            "Nothing stands next to the paper's numbers here: that takes a domain of the paper, measured with its protocol "
            f"(ruac eval --suite {SUITE}).",
            f"Source: {SOURCE}.",
        )
        return Section("paper", "Next to the paper", words, (averages,))
    header = [Cell("domain"), *(Cell(name) for name in ("SAM 2", "SAM 2 fine-tuned", "Bayes", "RUAC"))]
    header += [Cell(f"here: {run.label}, after {n}") for run in comparison.runs if run.suite == SUITE for n in comparison.clicks]
    table = Table("J&F in per cent", tuple(header), tuple(rows), PUBLISHED_NOTES)
    return Section("paper", "Next to the paper", (*PAPER_WORDS, f"Source: {SOURCE}."), (table, averages))


def _published_rows(scores: Scores) -> list[tuple[Cell, ...]]:
    comparison = scores.comparison
    measure = MASKS[0]
    firsts = [next(c for c in comparison.contenders if c.index == i) for i in range(len(comparison.runs))]
    ours = [c for c in firsts if comparison.runs[c.index].suite == SUITE]
    rows = []
    for i, part in enumerate(comparison.sets if ours else ()):
        row = published(part.name)
        if row is None:
            continue
        theirs = (Cell(f"{value:.1f}") for value in (row.sam2, row.fine_tuned, row.bayes, row.ruac))
        cells = []
        for contender in ours:
            for clicks in comparison.clicks:
                score = scores.of(contender, measure, "image", clicks).of(i)
                low, high = score.interval
                cells.append(Cell(measure.write(score.value), f"[{measure.write(low)}, {measure.write(high)}]"))
        rows.append((Cell(part.name), *theirs, *cells))
    return rows


def _glossary(scores: Scores) -> Section:
    methods = dict.fromkeys(contender.method for contender in scores.comparison.contenders)
    rows = [
        (Cell(m.title), Cell("higher" if m.higher else "lower"), Cell(m.words), Cell(m.mind))
        for m in (*MASKS, CLICKS, *PIXELS, *AGREEMENT, COST, *MORE)
    ]
    header = (Cell("measure"), Cell("better"), Cell("what it is"), Cell("what to mind"))
    known = tuple((Cell(name), Cell(METHOD_WORDS[name])) for name in methods if name in METHOD_WORDS)
    return Section(
        "words",
        "Methods and measures in words, and what this report cannot say",
        LIMITS,
        (
            Table("Methods", (Cell("method"), Cell("how likely a pixel is wrong follows from")), known, METHOD_NOTES, prose=True),
            Table("Measures", header, tuple(rows), prose=True),
        ),
    )
