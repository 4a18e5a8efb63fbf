"""Pictures of predictions, best and worst: the model asked again, with the clicks that the evaluation recorded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ruac.data.folder import IGNORE, FolderSet, Sample
from ruac.evaluate.baselines import methods
from ruac.evaluate.conversation import Point, Word, converse, look_at, reciting
from ruac.evaluate.protocol import read
from ruac.evaluate.results import Row
from ruac.features import BACKGROUND, BOX_TOP_LEFT, FOREGROUND
from ruac.model import RuacModel, weights_sha256
from ruac.regions import Mask, bounding_box
from ruac.report.blocks import Picture
from ruac.report.figures import plain_text
from ruac.report.measures import AUROC
from ruac.report.read import PLAIN, CommonSet, Comparison, Contender
from ruac.report.scores import Scores, image_key, image_values
from ruac.report.words import EXAMPLE_NOTES

LEAST_ERRORS = 0.01  # of an image's pixels: with fewer wrong ones AUROC hangs on a handful
LONG_SIDE = 420  # pixels of a tile
ZOOM = 0.6  # tiles show the object's surroundings where those take less of the image's side than this
MISSED, EXTRA = (0.0, 0.45, 0.7), (0.9, 0.6, 0.0)  # blue and orange, told apart by every eye
DARK = 0.4  # brightness left outside the predicted mask
JPEG = {"quality": 84}
DPI = 150  # the numbers on the clicks can be read


@dataclass(frozen=True)
class Choice:
    """What to show: an image of a set, its AUROC, and why it was chosen, in words."""

    part: CommonSet
    row: Row
    sample: Sample
    auroc: float
    why: str


@dataclass(frozen=True)
class Seen:
    """One object of an image. image: uint8 [height, width, 3]; all others [height, width]; expected: error, 0 to 1, of the mask."""

    image: NDArray[np.uint8]
    truth: Mask
    mask: Mask
    valid: Mask
    expected: NDArray[np.float32]
    points: tuple[Point, ...]


def draw_examples(scores: Scores, sets: Sequence[FolderSet], model: RuacModel) -> list[Picture]:
    """The images where uncertainty and error agree most and least, of up to three sets among `sets`.

    Raises ValueError when none of the results is of this model, or none of the sets is theirs.
    """
    comparison = scores.comparison
    contender = _whose(comparison, model)
    pictures = []
    for choice in choose(scores, sets, contender):
        seen = look_again(comparison, contender, choice, model)
        pictures.append(
            Picture(
                f"{choice.part.name}, image {choice.row.id}: {choice.why} ({contender.label}, AUROC {AUROC.write(choice.auroc)} %)",
                f"example-{len(pictures)}.jpg",
                draw(seen),
                "From left to right: image, true outline and clicks; predicted mask; its errors; expected error.",
                EXAMPLE_NOTES if not pictures else (),
            )
        )
    return pictures


def choose(scores: Scores, sets: Sequence[FolderSet], contender: Contender) -> list[Choice]:
    """Of the sets with the highest, the middle and the lowest AUROC, the images with the highest and lowest one."""
    comparison = scores.comparison
    folders = {part.name.casefold(): part for part in sets}
    there = [part for part in comparison.sets if part.name.casefold() in folders]
    if not there:
        raise ValueError("--data: none of these sets is among the results; give those that were evaluated")
    means = dict(
        zip((part.name for part in comparison.sets), scores.of(contender, AUROC, "image", comparison.last).values, strict=True)
    )
    usable = {part.name: _usable(comparison, part, contender) for part in there}
    ranked = sorted((part for part in there if usable[part.name]), key=lambda part: -means[part.name])
    places = sorted({0, len(ranked) // 2, len(ranked) - 1}) if ranked else []
    return [
        choice
        for part in (ranked[place] for place in places)
        for choice in _of_set(comparison, part, usable[part.name], folders[part.name.casefold()], contender)
    ]


@torch.inference_mode()
def look_again(comparison: Comparison, contender: Contender, choice: Choice, model: RuacModel) -> Seen:
    """The object with the most wrong pixels, after all prompts. Raises ValueError where the data has changed since."""
    origin = comparison.runs[contender.index].origin
    labelled = read(choice.sample)
    truths = [labelled.ids == i for i in choice.row.objects]
    if not all(truth.any() for truth in truths):
        raise ValueError(f"{choice.sample.mask}: lacks objects that were evaluated: not the data of these results")
    valid = labelled.ids != IGNORE
    temperatures = {int(prompts): float(value) for prompts, value in (origin["temperatures"] or {}).items()} or None
    picture = look_at(model, labelled.image)
    reading = methods([contender.method], temperatures)[contender.method](picture)
    *_, turn = converse(picture, [reciting(words(points)) for points in choice.row.prompts], comparison.last)
    wrong = [int(((answer.mask != truth) & valid).sum()) for answer, truth in zip(turn.answers, truths, strict=True)]
    i = int(np.argmax(wrong))
    answer = turn.answers[i]
    logit = reading(answer.question.part([answer.index]))[0]
    mask = torch.from_numpy(answer.mask).to(logit.device)
    expected = torch.sigmoid(torch.where(mask, -logit, logit)).cpu().numpy()
    said = tuple(point for word in turn.said[i] for point in word)
    return Seen(labelled.image, truths[i], answer.mask, valid, expected, said)


def words(points: Sequence[Point]) -> tuple[Word, ...]:
    """Recorded points as prompts: the two corners of a box are one."""
    if points and points[0].label == BOX_TOP_LEFT:
        return (tuple(points[:2]), *((point,) for point in points[2:]))
    return tuple((point,) for point in points)


def draw(seen: Seen) -> bytes:
    """A JPEG of four tiles."""
    view = _view(seen)
    rows, columns = view
    height, width = rows.stop - rows.start, columns.stop - columns.start
    grey = np.repeat(cv2.cvtColor(seen.image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2) / 255 * 0.6 + 0.2
    errors = grey.copy()
    errors[seen.truth & ~seen.mask & seen.valid] = MISSED
    errors[~seen.truth & seen.mask & seen.valid] = EXTRA
    predicted = grey.copy()
    predicted[~seen.mask] *= DARK
    figure = Figure(figsize=(11, 0.4 + 2.75 * min(1.4, max(height / width, seen.image.shape[0] / seen.image.shape[1]))), dpi=100)
    axes = figure.subplots(1, 4)
    whole = (slice(0, seen.image.shape[0]), slice(0, seen.image.shape[1]))
    _tile(axes[0], seen.image / 255, whole, "image, truth, prompts")
    _outline(axes[0], seen.truth)
    _prompts(axes[0], seen.points)
    if view != whole:
        axes[0].add_patch(Rectangle((columns.start, rows.start), width, height, fill=False, edgecolor="white", linestyle="--"))
    _tile(axes[1], predicted, view, "predicted mask, true outline")
    _outline(axes[1], seen.truth)
    _tile(axes[2], errors, view, "errors: blue missed, orange too much")
    shown = axes[3].imshow(seen.expected, cmap="inferno", vmin=0, vmax=0.5, extent=_extent(seen.expected))
    _tile(axes[3], None, view, "expected error")
    bar = figure.colorbar(shown, cax=axes[3].inset_axes((1.02, 0, 0.03, 1)), ticks=[0, 0.25, 0.5])
    bar.ax.set_yticklabels(["0", "25 %", "50 %"], fontsize=7)
    figure.subplots_adjust(0.005, 0.01, 0.955, 0.9, 0.03)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpg", dpi=DPI, facecolor="white", pil_kwargs=JPEG)
    return buffer.getvalue()


def _whose(comparison: Comparison, model: RuacModel) -> Contender:
    """The head of the run that measured this model, or what else it measured besides plain."""
    own = weights_sha256(model)
    for index, run in enumerate(comparison.runs):
        if run.origin["weights"] == own:
            contenders = [c for c in comparison.contenders if c.index == index]
            return min(contenders, key=lambda c: (c.method == PLAIN, c.method != "head"))
    known = ", ".join(f"{str(run.origin['weights'])[:12]}…" for run in comparison.runs)
    raise ValueError(
        f"--model: its weights ({own[:12]}…) are not those evaluated ({known}); give that model, with its --head if any"
    )


def _aurocs(comparison: Comparison, part: CommonSet, contender: Contender) -> NDArray[np.float64]:
    return image_values(part, contender.index, image_key(contender.method, AUROC, "image", comparison.last))


def _usable(comparison: Comparison, part: CommonSet, contender: Contender) -> list[int]:
    """Places of the images with errors enough for their AUROC to mean something."""
    values = _aurocs(comparison, part, contender)
    rates = image_values(part, contender.index, f"{contender.method}.error_rate.image@{comparison.last}")
    return [i for i in range(part.images) if np.isfinite(values[i]) and rates[i] >= LEAST_ERRORS]


def _of_set(
    comparison: Comparison, part: CommonSet, usable: Sequence[int], folder: FolderSet, contender: Contender
) -> list[Choice]:
    samples = {sample.id: sample for sample in folder.samples}
    values = _aurocs(comparison, part, contender)
    ordered = sorted(usable, key=lambda i: -values[i])
    choices = []
    whys = {ordered[-1]: "uncertainty and error agree least", ordered[0]: "uncertainty and error agree most"}
    if len(ordered) == 1:
        whys = {ordered[0]: "the only image of this set with wrong pixels enough"}
    for i, why in reversed(whys.items()):
        row = part.rows[contender.index][i]
        if row.id not in samples:
            raise ValueError(f"--data: the set '{part.name}' there has no image '{row.id}': not the data of these results")
        choices.append(Choice(part, row, samples[row.id], float(values[i]), why))
    return choices


def _view(seen: Seen) -> tuple[slice, slice]:
    """Rows and columns around the object where it is small, else the whole image."""
    height, width = seen.truth.shape
    rows, columns = bounding_box(seen.truth | seen.mask)
    size = (rows.stop - rows.start, columns.stop - columns.start)
    rows, columns = bounding_box(seen.truth | seen.mask, margin=max(8, max(size) // 3))
    large = rows.stop - rows.start > ZOOM * height or columns.stop - columns.start > ZOOM * width
    return (slice(0, height), slice(0, width)) if large else (rows, columns)


def _tile(axis: Axes, picture: NDArray[np.floating] | None, view: tuple[slice, slice], title: str) -> None:
    rows, columns = view
    if picture is not None:
        step = max(1, max(rows.stop - rows.start, columns.stop - columns.start) // LONG_SIDE)
        axis.imshow(picture[::step, ::step].clip(0, 1), extent=_extent(picture))
    axis.set_xlim(columns.start, columns.stop)
    axis.set_ylim(rows.stop, rows.start)
    axis.set_axis_off()
    plain_text(axis.set_title(title, fontsize=8))


def _extent(picture: NDArray[np.floating]) -> tuple[float, float, float, float]:
    """Pixel corners at whole numbers, whatever the steps between the pixels drawn."""
    return 0, picture.shape[1], picture.shape[0], 0


def _outline(axis: Axes, mask: Mask) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        closed = np.vstack([contour[:, 0], contour[:1, 0]]) + 0.5
        axis.plot(*closed.T, color="black", linewidth=1.8)
        axis.plot(*closed.T, color="white", linewidth=0.8)


def _prompts(axis: Axes, points: Sequence[Point]) -> None:
    if points[0].label == BOX_TOP_LEFT:
        start, end = points[:2]
        axis.add_patch(Rectangle(start[:2], end.x - start.x, end.y - start.y, fill=False, edgecolor="#0072B2", linewidth=1.5))
    for number, point in enumerate((p for p in points if p.label in (BACKGROUND, FOREGROUND)), start=1):
        colour = "#0072B2" if point.label == FOREGROUND else "#D55E00"
        axis.plot([point.x + 0.5], [point.y + 0.5], marker="o", color=colour, markeredgecolor="white", markersize=10)
        sign = "+" if point.label == FOREGROUND else "–"
        axis.annotate(
            f"{sign}{number}",
            (point.x + 0.5, point.y + 0.5),
            color="white",
            fontsize=6,
            ha="center",
            va="center",
            annotation_clip=True,
        )
