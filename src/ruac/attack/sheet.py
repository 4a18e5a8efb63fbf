"""A contact sheet of an attack, for eyes: a row a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ruac.attack.batch import AttackedBatch, LabelledBatch
from ruac.distribution import MaskDistribution

COLUMNS = ("clean", "attacked", "moved by (pixels)", "change of colour", "uncertainty, clean", "uncertainty, attacked")
ARROWS = 14  # along a side
INCHES, DPI = 1.7, 90  # of a tile


@dataclass(frozen=True)
class Tried:
    """A batch before and after an attack, and the model's answers to both, [B, P, 1, S, S]."""

    batch: LabelledBatch
    attacked: AttackedBatch
    before: MaskDistribution
    after: MaskDistribution


def draw_sheet(tried: Tried) -> bytes:
    """A PNG. White lines are the true outlines; uncertainty is the largest over the objects, black 0 to yellow 1 bit."""
    rows = len(tried.batch.images)
    figure = Figure(figsize=(len(COLUMNS) * INCHES, rows * INCHES + 0.3), dpi=DPI)
    axes = figure.subplots(rows, len(COLUMNS), squeeze=False)
    for i, line in enumerate(axes):
        _draw_row(line, tried, i)
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, fontsize=8)
    figure.subplots_adjust(0.005, 0.005, 0.995, 1 - 0.25 / (rows * INCHES + 0.3), 0.02, 0.02)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_row(line: np.ndarray, tried: Tried, i: int) -> None:
    clean, attacked = (batch.images[i].detach().permute(1, 2, 0).numpy() / 255 for batch in (tried.batch, tried.attacked))
    inside = tried.batch.counted[i, 0].numpy() > 0.5
    rows, columns = inside.any(1).sum(), inside.any(0).sum()
    for axis, picture, batch in ((line[0], clean, tried.batch), (line[1], attacked, tried.attacked)):
        axis.imshow(picture.clip(0, 1))
        _outline(axis, batch, i)
    _draw_flow(line[2], clean, tried.attacked.flow, i)
    # grey is no change
    line[3].imshow((0.5 + attacked - clean).clip(0, 1))
    for axis, distribution, batch in ((line[4], tried.before, tried.batch), (line[5], tried.after, tried.attacked)):
        uncertainty = (distribution.entropy()[i, :, 0] * batch.present[i, :, None, None]).amax(0)
        axis.imshow(uncertainty.numpy(), cmap="inferno", vmin=0, vmax=1)
        _outline(axis, batch, i)
    for axis in line:
        axis.set_xlim(-0.5, columns - 0.5)
        axis.set_ylim(rows - 0.5, -0.5)
        axis.set_axis_off()


def _outline(axis: Axes, batch: LabelledBatch, i: int) -> None:
    for mask in batch.objects[i].detach().numpy():
        if mask.any() and not mask.all():
            axis.contour(mask, [0.5], colors="white", linewidths=0.7)


def _draw_flow(axis: Axes, picture: np.ndarray, flow: Tensor | None, i: int) -> None:
    axis.imshow(picture.mean(2).clip(0, 1) * 0.6, cmap="gray", vmin=0, vmax=1)
    if flow is None:
        return
    side = flow.shape[-1]
    places = torch.arange(side // ARROWS // 2, side, side // ARROWS)
    # where content goes is the opposite of where pixels look
    x, y = (-flow[i].detach()[:, places][:, :, places]).numpy()
    longest = float(flow[i].detach().norm(dim=0).max())
    scale = max(longest, 0.5) * ARROWS / side
    axis.quiver(places, places, x, y, color="orange", angles="xy", scale_units="xy", scale=scale, width=0.006)
    axis.text(0.02, 0.97, f"longest {longest:.1f}", color="white", fontsize=6, va="top", transform=axis.transAxes)
