"""The report in a few sentences that its numbers themselves choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ruac.report.columns import ahead, chances, compared, finely, leader, verdict
from ruac.report.measures import AURC, AUROC, ECE, MASKS, PIXELS, Measure
from ruac.report.read import HEAD, Contender
from ruac.report.scores import REGIONS, Scores, SetScores
from ruac.report.words import SHORT_PLACES


def findings(scores: Scores) -> tuple[str, ...]:
    """How good the masks are, which methods are best, and what a head is better and worse at than plain."""
    comparison = scores.comparison
    last, everything = comparison.last, scores.members(None)
    said = []
    for index, run in enumerate(comparison.runs):
        first = next(c for c in comparison.contenders if c.index == index)
        score = scores.of(first, MASKS[0], "image", last).mean(everything)
        value, low, high = (MASKS[0].write(x) for x in (score.value, *score.interval))
        said.append(f"Masks of {run.label}: J&F {value} % [{low}, {high}] after {last} prompts.")
    for measure in (AUROC, AURC, ECE):
        said += _leaders(scores, measure)
    for contender in comparison.contenders:
        if contender.method == HEAD and comparison.plain_of(contender) is not None:
            said += _against(scores, contender)
    return tuple(said)


def _leaders(scores: Scores, measure: Measure) -> list[str]:
    """The best methods, all that are equal as written, and what each gains over plain."""
    contenders = scores.comparison.contenders
    every = [scores.of(contender, measure, "image", scores.comparison.last) for contender in contenders]
    found = compared(every, [contender.index for contender in contenders], scores.members(None))
    known = [(c, one.score) for c, one in zip(contenders, found, strict=True) if one.score.defined and not one.apart]
    if len(known) < 2:
        return []
    best = measure.write(known[leader([score for _, score in known], measure)][1].value)
    first = [contender for contender, score in known if measure.write(score.value) == best]
    equal = ", equal as rounded here" if len(first) > 1 else ""
    text = f"Best {measure.title} ({measure.words}): {listed([c.label for c in first])}, {best} %{equal}"
    if [contender.method for contender in first] == ["plain"]:
        return [f"{text}. No method does better than the plain decoder's own entropy here."]
    gains = [(c, gain) for c in first if (gain := _gain(scores, c, measure))]
    told = "; ".join(gain if len(first) == 1 else f"{contender.label} {gain}" for contender, gain in gains)
    return [f"{text}; against plain{':' if len(first) > 1 else ''} {told}." if told else f"{text}."]


def _gain(scores: Scores, contender: Contender, measure: Measure) -> str:
    """Over plain, in words; empty where there is none to tell."""
    gain = _over_plain(scores, contender, measure, "image")
    if gain is None:
        return ""
    mean = gain.scores.mean(scores.members(None))
    unsure = "" if verdict(mean, measure) == "better" else ", which is not told apart from no difference"
    value, low, high = finely(mean, measure)
    sign = "+" if float(value) > 0 else ""
    return f"{sign}{value} points [{low}, {high}]{unsure}, better on {gain.ahead}"


def _against(scores: Scores, head: Contender) -> list[str]:
    """A sentence a region: in what the head is better, in what worse, and in what not told apart."""
    said = []
    for region in REGIONS:
        verdicts: dict[str, list[str]] = {"better": [], "worse": [], "": []}
        for measure in PIXELS:
            gain = _over_plain(scores, head, measure, region)
            if gain is not None:
                mark = verdict(gain.scores.mean(scores.members(None)), measure)
                verdicts[mark].append(f"{measure.title} (better on {gain.ahead})" if mark else measure.title)
        words = {"better": "better (▲) in", "worse": "worse (▼) in", "": "not told apart from it in"}
        told = [f"{words[mark]} {listed(titles)}" for mark, titles in verdicts.items() if titles]
        if told:
            where = f"{SHORT_PLACES[region]}, after {scores.comparison.last} prompts"
            said.append(f"{head.label} against plain, {where}, by the intervals: {'; '.join(told)}.")
    return said


@dataclass(frozen=True)
class _Gain:
    """Over plain, set by set; ahead: as `columns.ahead` has it."""

    scores: SetScores
    ahead: str


def _over_plain(scores: Scores, contender: Contender, measure: Measure, region: str) -> _Gain | None:
    """None where there is nothing to tell. The chance is corrected for the number of methods, as in the table of gains."""
    comparison = scores.comparison
    pairs = [(one, plain) for one in comparison.contenders if (plain := comparison.plain_of(one))]
    every = {one: scores.gain(one, plain, measure, region, comparison.last) for one, plain in pairs}
    if contender not in every or not every[contender].defined.any():
        return None
    gain, p = every[contender], dict(zip(every, chances(list(every.values())), strict=True))[contender]
    return _Gain(gain, ahead(gain, measure, p))


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
