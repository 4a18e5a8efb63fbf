"""One answer held against the truth: its mask, and what every uncertainty method says about the pixels of that mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ruac.distribution import expected_iou
from ruac.evaluate.disagreement import RegionDisagreement, disagreement_histograms
from ruac.evaluate.error_detection import RegionHistograms, histograms
from ruac.evaluate.metrics import MaskQuality, mask_quality
from ruac.evaluate.patches import PATCH, PatchCounts, patch_counts
from ruac.regions import Mask, band_around, bounding_box


@dataclass(frozen=True)
class RegionPatches:
    """image: all patches; band: those of the pixels within the band around the object."""

    image: PatchCounts
    band: PatchCounts

    @staticmethod
    def empty() -> RegionPatches:
        return RegionPatches(PatchCounts.empty(), PatchCounts.empty())

    def __add__(self, other: RegionPatches) -> RegionPatches:
        return RegionPatches(self.image + other.image, self.band + other.band)


@dataclass(frozen=True)
class Judged:
    """Objects after some number of prompts: a value each, and the pixels of all of them together, by method.

    predicted_iou: the model's own guess; expected_iou: from the method's probabilities; detection, patches: how the doubt meets the
    errors; people: how it meets the disagreement of several annotators, empty where nobody else named these objects.
    """

    quality: tuple[MaskQuality, ...]
    predicted_iou: tuple[float, ...]
    expected_iou: dict[str, tuple[float, ...]]
    detection: dict[str, RegionHistograms]
    patches: dict[str, RegionPatches]
    people: dict[str, RegionDisagreement]

    @staticmethod
    def empty(methods: Iterable[str]) -> Judged:
        names = list(methods)
        return Judged(
            (),
            (),
            dict.fromkeys(names, ()),
            {name: RegionHistograms.empty() for name in names},
            {name: RegionPatches.empty() for name in names},
            {},
        )

    def __add__(self, other: Judged) -> Judged:
        people = self.people | other.people
        people |= {name: self.people[name] + other.people[name] for name in self.people.keys() & other.people.keys()}
        return Judged(
            self.quality + other.quality,
            self.predicted_iou + other.predicted_iou,
            {name: value + other.expected_iou[name] for name, value in self.expected_iou.items()},
            {name: value + other.detection[name] for name, value in self.detection.items()},
            {name: value + other.patches[name] for name, value in self.patches.items()},
            people,
        )


def judge(
    mask: Mask,
    truth: Mask,
    valid: Mask,
    logits: Mapping[str, Tensor],
    predicted_iou: float,
    disagreement: NDArray[np.floating] | None = None,
) -> Judged:
    """One object. mask, truth, valid: [height, width]; logits: of the probability of foreground, [height, width] by method;
    disagreement: [height, width], of several annotators about this object."""
    quality = mask_quality(mask, truth, valid)
    if not logits:
        return Judged((quality,), (predicted_iou,), {}, {}, {}, {})
    near = band_around(mask, truth)
    device = next(iter(logits.values())).device
    given, true, counted, band = (torch.from_numpy(m).to(device) for m in (mask, truth, valid, near))
    people = None if disagreement is None else torch.from_numpy(disagreement).to(device)
    box = _whole_patches(near)

    def patches(logit: Tensor) -> RegionPatches:
        # all patches of the band lie in the box around it
        inside = patch_counts(logit[box], given[box], true[box], counted[box] & band[box])
        return RegionPatches(patch_counts(logit, given, true, counted), inside)

    return Judged(
        (quality,),
        (predicted_iou,),
        {name: (float(expected_iou(logit, given, counted)),) for name, logit in logits.items()},
        {name: histograms(logit, given, true, counted, band) for name, logit in logits.items()},
        {name: patches(logit) for name, logit in logits.items()},
        {} if people is None else {name: disagreement_histograms(logit, people, counted, band) for name, logit in logits.items()},
    )


def _whole_patches(mask: Mask) -> tuple[slice, slice]:
    """The box around the mask, its upper left corner moved to that of a patch and its lower right one to that of a patch or beyond."""
    rows, columns = (slice(side.start // PATCH * PATCH, -(-side.stop // PATCH) * PATCH) for side in bounding_box(mask))
    return rows, columns
