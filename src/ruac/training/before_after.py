"""What a fitted head is worth: plain entropy against it, on pictures that it has not seen, with intervals over pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ruac.data.folder import FolderSet
from ruac.evaluate.baselines import METHODS
from ruac.evaluate.bootstrap import Estimate, bootstrap_means, defined_mean, estimate
from ruac.evaluate.comparison import LESS_IS_BETTER
from ruac.evaluate.protocol import Protocol
from ruac.evaluate.results import read_results
from ruac.evaluate.run import Study, evaluate_sets
from ruac.evaluate.shards import main_path
from ruac.evaluate.summary import Summary
from ruac.evaluate.table import Grid
from ruac.model import RuacModel

MEASURES = {"auroc": "AUROC", "aupr": "AUPR", "aurc": "AURC", "ece": "ECE", "nll": "NLL"}
MASKS = "j_and_f"
PROTOCOL = Protocol(clicks=(1, 3, 5))
FEW = 10  # pictures, below which intervals over pictures are not to be trusted

Verdict = Literal["better", "worse", "unclear"]


@dataclass(frozen=True)
class Change:
    """A measure after so many clicks, over the whole image. before: with the model as it was, None where its head was not trained;
    plain, after: plain entropy and the fitted head, on the same masks; difference: after less plain, picture by picture."""

    measure: str
    clicks: int
    before: Estimate | None
    plain: Estimate
    after: Estimate
    difference: Estimate

    @property
    def verdict(self) -> Verdict:
        """Clear is what the interval of the difference does not leave open."""
        low, high = self.difference.low, self.difference.high
        if self.measure in LESS_IS_BETTER:
            low, high = -high, -low
        return "better" if low > 0 else "worse" if high < 0 else "unclear"


@dataclass(frozen=True)
class MaskChange:
    """J&F after so many clicks with the model as it was and with the fitted head. largest: change of any one picture's."""

    clicks: int
    before: Estimate
    after: Estimate
    difference: Estimate
    largest: float


@dataclass(frozen=True)
class BeforeAfter:
    """images: held-out pictures with an object; failed: one line for each that could not be read."""

    images: int
    changes: tuple[Change, ...]
    masks: tuple[MaskChange, ...]
    failed: tuple[str, ...]

    def count(self, verdict: Verdict) -> int:
        return sum(change.verdict == verdict for change in self.changes)

    @property
    def better(self) -> bool:
        """Whether more is clearly better than with plain entropy than is clearly worse."""
        return self.count("better") > self.count("worse")

    def verdict(self) -> str:
        """In a few words, with what is better and what is worse."""
        few = ", which are too few to prove anything," if self.images < FEW else ""
        start = (
            f"On {self.images} held-out pictures{few} the fitted head is {'' if self.better else 'NOT '}better than plain entropy"
        )
        figures = f"Clearly better: {self._named('better')}. Clearly worse: {self._named('worse')}."
        remedy = "" if self.better else " Do without it, or fit it to more pictures like those that you will use it on."
        return f"{start}. {figures}{remedy}"

    def _named(self, verdict: Verdict) -> str:
        """ "AUROC @1 @3, ECE @5" """
        clicks = {name: [c.clicks for c in self.changes if (c.measure, c.verdict) == (name, verdict)] for name in MEASURES}
        return (
            ", ".join(" ".join([MEASURES[name], *(f"@{n}" for n in found)]) for name, found in clicks.items() if found)
            or "nothing"
        )


def evaluate_before(model: RuacModel, held_out: Sequence[FolderSet], out: Path) -> Summary:
    """Of the model as it is: plain entropy, and its own head where that is trained. Resumable, as `ruac eval`."""
    names = ("head", "plain") if model.config.head_trained else ("plain",)
    return evaluate_sets(model, held_out, out, PROTOCOL, name="before", study=Study({name: METHODS[name] for name in names}))


def evaluate_after(model: RuacModel, held_out: Sequence[FolderSet], out: Path) -> Summary:
    """Of the model with the fitted head: that and plain entropy on the same masks."""
    return evaluate_sets(model, held_out, out, PROTOCOL, name="after")


def compare(before: Summary, after: Summary, folders: tuple[Path, Path]) -> BeforeAfter:
    """Both summaries, and the folders that their results are in."""
    old, new = (summary.groups[0].measures for summary in (before, after))
    changes = [
        Change(measure, n, old.get(f"head.{key}"), new[f"plain.{key}"], new[f"head.{key}"], new[f"difference.head.{key}"])
        for measure in MEASURES
        for n in PROTOCOL.clicks
        for key in (f"{measure}.image@{n}",)
    ]
    masks = []
    names = [part.name for part in after.sets if part.images]
    for n in PROTOCOL.clicks:
        each = {name: _mask_changes(name, n, folders) for name in names}
        draws = np.mean([bootstrap_means(values, name) for name, values in each.items()], 0)
        mean = defined_mean(np.array([defined_mean(values) for values in each.values()]))
        largest = max(float(np.abs(values).max()) for values in each.values())
        masks.append(MaskChange(n, old[f"{MASKS}@{n}"], new[f"{MASKS}@{n}"], estimate(mean, draws), largest))
    images = sum(part.images for part in after.sets)
    return BeforeAfter(images, tuple(changes), tuple(masks), after.failed)


def grid(found: BeforeAfter, clicks: Sequence[int]) -> Grid:
    """Plain entropy and the fitted head, in per cent but for NLL, which is in nats."""
    had_one = any(change.before is not None for change in found.changes)
    header = ("", "plain", *(("before",) if had_one else ()), "fitted", "fitted less plain", "")
    rows = []
    for change in (change for change in found.changes if change.clicks in clicks):
        unit = 1.0 if change.measure == "nll" else 100.0
        less = change.measure in LESS_IS_BETTER
        name = f"{MEASURES[change.measure]} {'↓' if less else '↑'} @{change.clicks}"
        columns = (change.plain, *((change.before,) if had_one else ()), change.after)
        rows.append((name, *(_number(e, unit) for e in columns), _interval(change.difference, unit), change.verdict))
    for mask in (mask for mask in found.masks if mask.clicks in clicks):
        columns = (mask.before, *((mask.before,) if had_one else ()), mask.after)
        rows.append((f"J&F ↑ @{mask.clicks}", *(_number(e, 100) for e in columns), _interval(mask.difference, 100), "masks"))
    return Grid(f"{found.images} held-out pictures, whole image, after {_list(clicks)} clicks", header, tuple(rows))


def as_json(found: BeforeAfter, described: Mapping[str, Any]) -> str:
    """described: what else the report says. Undefined values are null."""
    changes = [asdict(change) | {"verdict": change.verdict} for change in found.changes]
    content = {**described, **asdict(found), "changes": changes, "better": found.better, "verdict": found.verdict()}
    return json.dumps(json.loads(json.dumps(content), parse_constant=lambda _: None), indent=1) + "\n"


def _mask_changes(name: str, clicks: int, folders: tuple[Path, Path]) -> np.ndarray:
    """J&F after less before, of each picture of a set."""
    old, new = (
        {row.id: row.averages()[f"{MASKS}@{clicks}"] for row in read_results(main_path(folder, name)).rows if row.objects}
        for folder in folders
    )
    return np.array([new[i] - old[i] for i in new if i in old])


def _number(value: Estimate | None, unit: float) -> str:
    if value is None or not math.isfinite(value.mean):
        return "-"
    return f"{unit * value.mean:.3f}" if unit == 1 else f"{unit * value.mean:.1f}"


def _interval(value: Estimate, unit: float) -> str:
    if not math.isfinite(value.mean):
        return "-"
    digits = 3 if unit == 1 else 1
    return f"{unit * value.mean:+.{digits}f} [{unit * value.low:+.{digits}f}, {unit * value.high:+.{digits}f}]"


def _list(clicks: Sequence[int]) -> str:
    return ", ".join(map(str, clicks))
