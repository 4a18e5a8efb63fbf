"""The review queue: review.csv for tables, review.html to look at and decide, both with the worst masks first."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from ruac.label.budget import Plan
from ruac.label.part import Folder, Label, Part
from ruac.overlay import INNER, OUTER

MOST_SHOWN = 5000  # masks on the page, the worst; each takes 10 to 20 kB there
PAGE = 24  # masks at a time
NOTHING = "nothing stands out"
# what is worth saying of a mask
WRONG, LOW = 0.5, 0.75  # expected IoU
FOGGY, SOFT = 0.4, 0.2  # mean uncertainty in bits
ABSENT = 0.5  # object score
OVERSURE = 0.2  # of the predicted above the expected IoU
TINY = 100  # pixels
CSV_HEADER = (
    "rank",
    "image",
    "object",
    "category",
    "expected_iou",
    "mean_uncertainty",
    "score",
    "reason",
    "x",
    "y",
    "width",
    "height",
    "next_x",
    "next_y",
    "next_label",
    "review",
    "annotation",
)


@dataclass(frozen=True)
class Item:
    """A mask in the queue. rank: from 1, the worst; annotation: its id in labels.json; object: its number in the image and in the mask
    file; key: of just this mask, so that a decision is never taken for that on another one; review: whether a person should see it;
    guaranteed: whether the guarantee holds for it, None without a calibration."""

    rank: int
    annotation: int
    key: str
    image: str
    object: int
    category: str
    expected_iou: float
    mean_uncertainty: float
    score: float
    bbox: tuple[float, float, float, float]
    next_click: tuple[int, int, int]
    reason: str
    review: bool
    guaranteed: bool | None = None
    thumbnail: str = ""


def queue(parts: Sequence[Part], names: Mapping[int, str], plan: Plan) -> list[Item]:
    """All masks in the order of the plan. names: of the categories, by id."""
    every = [(part, number, label) for part in parts for number, label in enumerate(part.labels, start=1)]
    return [_item(rank, index, *every[index], names, plan) for rank, index in enumerate(plan.order, start=1)]


def reason(label: Label, height: int, width: int) -> str:
    """In words, what is doubtful about a mask of a picture of that size."""
    if not label.area:
        return "the mask is empty"
    x, y, w, h = label.bbox
    said = [
        (label.expected_iou < WRONG, "more wrong than right is expected"),
        (WRONG <= label.expected_iou < LOW, "the expected IoU is low"),
        (label.object_score is not None and label.object_score < ABSENT, "there may be no object here"),
        (label.mean_uncertainty >= FOGGY, "doubtful nearly everywhere"),
        (SOFT <= label.mean_uncertainty < FOGGY, "the outline is doubtful"),
        (label.score - label.expected_iou > OVERSURE, "the model thinks better of it than its pixels do"),
        (label.area < TINY, "very small"),
        (x <= 0 or y <= 0 or x + w >= width or y + h >= height, "cut off by the picture's edge"),
    ]
    return "; ".join(words for true, words in said if true) or NOTHING


def review_csv(items: Sequence[Item]) -> bytes:
    """A row a mask. Words that a spreadsheet would take for a formula begin with an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for item in items:
        numbers = (f"{item.expected_iou:.4f}", f"{item.mean_uncertainty:.4f}", f"{item.score:.4f}")
        place = (*(f"{n:g}" for n in item.bbox), *item.next_click)
        words = (item.rank, _harmless(item.image), item.object, _harmless(item.category))
        writer.writerow((*words, *numbers, item.reason, *place, "yes" if item.review else "no", item.annotation))
    return buffer.getvalue().encode()


def review_html(
    items: Sequence[Item],
    plan: Plan,
    images: int,
    categories: Sequence[str],
    run: str,
    guarantee: str = "",
    warning: str = "",
) -> bytes:
    """A page that needs nothing else. items: those to show, with thumbnails; run: under which decisions are kept by the browser;
    guarantee: in words, that of the inner and outer masks in the thumbnails; warning: stands above all else."""
    environment = Environment(
        loader=PackageLoader("ruac.label", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (files("ruac.label") / "review.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("review.html.j2").render(
        data={"run": run, "page": PAGE, "categories": list(categories), "items": [asdict(item) for item in items]},
        script=script,
        script_sha256=digest,
        plan=plan,
        images=images,
        shown=len(items),
        total=len(plan.order),
        guarantee=guarantee,
        warning=warning,
        inner="#{:02x}{:02x}{:02x}".format(*INNER),
        outer="#{:02x}{:02x}{:02x}".format(*OUTER),
    )
    return page.encode()


def with_thumbnails(items: Sequence[Item], parts: Sequence[Part], folder: Folder) -> list[Item]:
    """The same with their pictures, read from the parts again."""
    names = {part.file_name: part.name for part in parts}
    wanted = {item.image for item in items}
    pictures: dict[tuple[str, int], str] = {}
    for image in wanted:
        part = folder.load(names[image])
        if part is not None:
            pictures |= {(image, number): label.thumbnail for number, label in enumerate(part.labels, start=1)}
    return [replace(item, thumbnail=pictures[item.image, item.object]) for item in items]


def _item(rank: int, index: int, part: Part, number: int, label: Label, names: Mapping[int, str], plan: Plan) -> Item:
    key = hashlib.sha256(f"{part.file_name}\n{label.category}\n{label.counts}".encode()).hexdigest()[:16]
    return Item(
        rank=rank,
        annotation=index + 1,
        key=key,
        image=part.file_name,
        object=number,
        category=names[label.category],
        expected_iou=label.expected_iou,
        mean_uncertainty=label.mean_uncertainty,
        score=label.score,
        bbox=label.bbox,
        next_click=label.next_click,
        reason=reason(label, part.height, part.width),
        review=rank <= plan.review,
        guaranteed=label.around and label.around.guaranteed,
    )


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
