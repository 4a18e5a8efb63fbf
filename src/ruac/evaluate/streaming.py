"""The metrics of this package as torchmetrics: updated batch by batch, summed over machines.

Pixels, patches, clicks and masks are kept as counts and sums, in constant memory; only ObjectQualityMetric keeps what it is given, two
numbers an object. `compute` gives a tensor by name, NaN where a measure is not defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ruac.evaluate.clicks import TARGETS, click_effort
from ruac.evaluate.error_detection import BINS, ErrorHistogram, histograms
from ruac.evaluate.metrics import mask_quality
from ruac.evaluate.object_quality import object_quality
from ruac.evaluate.patches import PatchCounts, patch_counts

MASK_MEASURES = ("iou", "dice", "boundary_f", "j_and_f")


class _Streaming(Metric):
    """What all have in common: no gradients, and batches that can be merged afterwards."""

    is_differentiable = False
    full_state_update = False


class ErrorDetectionMetric(_Streaming):
    """`error_detection.ErrorDetection` of all pixels together, by field."""

    counts: Tensor
    expected: Tensor
    nll: Tensor

    def __init__(self, **kwargs: Any):
        """kwargs: torchmetrics' own."""
        super().__init__(**kwargs)
        self.add_state("counts", torch.zeros(2, BINS, dtype=torch.int64), "sum")
        self.add_state("expected", torch.zeros(2, BINS, dtype=torch.float64), "sum")
        self.add_state("nll", torch.zeros((), dtype=torch.float64), "sum")

    def update(self, logit: Tensor, mask: Tensor, truth: Tensor, valid: Tensor) -> None:
        """All of one shape; see `error_detection.histograms`. Raises ValueError when a logit is NaN."""
        found = histograms(logit, mask, truth, valid, torch.zeros_like(valid)).image
        self.counts += torch.from_numpy(found.counts).to(self.counts)
        self.expected += torch.from_numpy(found.expected).to(self.expected)
        self.nll += found.nll

    def compute(self) -> dict[str, Tensor]:
        """Raises ValueError when there was no pixel."""
        found = ErrorHistogram(self.counts.cpu().numpy(), self.expected.cpu().numpy(), float(self.nll)).read()
        return _tensors(asdict(found), self.device)


class PatchMetric(_Streaming):
    """`patches.PatchScores` of all patches together, by field."""

    counts: Tensor

    def __init__(self, **kwargs: Any):
        """kwargs: torchmetrics' own."""
        super().__init__(**kwargs)
        self.add_state("counts", torch.from_numpy(PatchCounts.empty().counts), "sum")

    def update(self, logit: Tensor, mask: Tensor, truth: Tensor, valid: Tensor) -> None:
        """All [..., height, width]; see `patches.patch_counts`. Raises ValueError when a logit is NaN."""
        self.counts += torch.from_numpy(patch_counts(logit, mask, truth, valid).counts).to(self.counts)

    def compute(self) -> dict[str, Tensor]:
        """Raises ValueError when there was no patch."""
        return _tensors(asdict(PatchCounts(self.counts.cpu().numpy()).read()), self.device)


class ObjectQualityMetric(_Streaming):
    """`object_quality.ObjectQuality` of all objects together, by field."""

    predicted: list[Tensor]
    true: list[Tensor]

    def __init__(self, **kwargs: Any):
        """kwargs: torchmetrics' own."""
        super().__init__(**kwargs)
        self.add_state("predicted", [], "cat")
        self.add_state("true", [], "cat")

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """IoUs [objects]."""
        self.predicted.append(predicted.double())
        self.true.append(true.double())

    def compute(self) -> dict[str, Tensor]:
        """Raises ValueError as `object_quality` does."""
        predicted, true = (dim_zero_cat(values).cpu().numpy() for values in (self.predicted, self.true))
        return _tensors(asdict(object_quality(predicted, true)), self.device)


class ClicksMetric(_Streaming):
    """Mean number of clicks to reach an IoU, and the share of objects that never do: "noc@85", "failure_rate@85"."""

    clicks: Tensor
    failures: Tensor
    objects: Tensor

    def __init__(self, targets: Sequence[float] = TARGETS, **kwargs: Any):
        """targets: IoUs; kwargs: torchmetrics' own."""
        super().__init__(**kwargs)
        self.targets = tuple(targets)
        for name in ("clicks", "failures"):
            self.add_state(name, torch.zeros(len(self.targets), dtype=torch.int64), "sum")
        self.add_state("objects", torch.zeros((), dtype=torch.int64), "sum")

    def update(self, ious: Tensor) -> None:
        """[objects, N] after 1 .. N clicks, with the same N in all batches. Raises ValueError as `click_effort` does."""
        efforts = [click_effort(ious.double().cpu().numpy(), target) for target in self.targets]
        self.clicks += torch.tensor([effort.clicks.sum() for effort in efforts]).to(self.clicks)
        self.failures += torch.tensor([effort.failed.sum() for effort in efforts]).to(self.failures)
        self.objects += len(ious)

    def compute(self) -> dict[str, Tensor]:
        """NaN when there was no object."""
        names = [f"{100 * target:g}" for target in self.targets]
        noc = dict(zip((f"noc@{name}" for name in names), self.clicks / self.objects, strict=True))
        return noc | dict(zip((f"failure_rate@{name}" for name in names), self.failures / self.objects, strict=True))


class MaskQualityMetric(_Streaming):
    """Means over all masks of the measures of `metrics.MaskQuality`: "iou" (J), "dice", "boundary_f" (F), "j_and_f"."""

    higher_is_better = True
    sums: Tensor
    objects: Tensor

    def __init__(self, **kwargs: Any):
        """kwargs: torchmetrics' own."""
        super().__init__(**kwargs)
        self.add_state("sums", torch.zeros(len(MASK_MEASURES), dtype=torch.float64), "sum")
        self.add_state("objects", torch.zeros((), dtype=torch.int64), "sum")

    def update(self, mask: Tensor, truth: Tensor, valid: Tensor) -> None:
        """Boolean [objects, height, width]; valid: [height, width] or alike."""
        valid = valid.expand(truth.shape)
        masks = (tensor.cpu().numpy() for tensor in (mask, truth, valid))
        qualities = [mask_quality(*one) for one in zip(*masks, strict=True)]
        values = torch.tensor([[getattr(quality, name) for name in MASK_MEASURES] for quality in qualities], dtype=torch.float64)
        self.sums += values.sum(0).to(self.sums)
        self.objects += len(qualities)

    def compute(self) -> dict[str, Tensor]:
        """NaN when there was no object."""
        return dict(zip(MASK_MEASURES, self.sums / self.objects, strict=True))


def _tensors(values: dict[str, Any], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value, device=device) for name, value in values.items()}
