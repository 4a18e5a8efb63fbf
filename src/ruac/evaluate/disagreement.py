"""Is a method in doubt where people disagree? Sets in which several people segmented every image.

Next to images/ and masks/ such a set has annotators/<id>_<n>.png: the segmentation of person n, every value a region of theirs (0
too). masks/<id>.png holds the regions of one of them. People do not name the same objects, they cut an image into more regions or
fewer. So a person's mask of an object is the union of those of their regions that lie more than half inside the object, and it counts
only where its IoU with the object is at least SAME: a person who made the object a part of something larger, or of whom nothing is
left of it, did not name it and says nothing about its outline. (On 90 images of BSDS500 the rule hardly depends on SAME: of 5,556
pairs of an object and another person, 37 % have an IoU of zero, 60 % one of at least a half, 3 % lie between.) The person whose
regions are the objects is one of the people. Objects that fewer than MIN_PEOPLE people name, 27 % there, are left out.

The disagreement at a pixel is the share of the people who are in the minority there, min(p, 1 - p) with p the share who include it:
the chance that a person drawn at random contradicts most of the others, as a method's min(p, 1 - p) is the chance that its label is
wrong. Compared with it is the doubt of the method's own probability, whatever the mask is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ruac.data.folder import read_mask
from ruac.evaluate.correlation import centred_ranks, correlation
from ruac.evaluate.error_detection import BINS, bin_centres, bin_of, check_numbers
from ruac.regions import Mask

FOLDER = "annotators"
# IoU from which on two masks are of the same object
SAME = 0.5
MIN_PEOPLE = 3
# disagreements are counted in steps of 1/60: exact for up to six people
STEPS = 60
SHARES = STEPS // 2 + 1
# of the logit's size, that is of the upper half of the bins
SIZES = BINS // 2
# what a pixel is, in bits: inside the band, ignored; so the parts from this one on do not count
IGNORED = 2


@dataclass(frozen=True)
class People:
    """What everybody made of one image. regions: uint8 [people, height, width]; sizes: [people, 256], pixels of each region."""

    regions: NDArray[np.uint8]
    sizes: NDArray[np.int64]

    @staticmethod
    def of(regions: NDArray[np.uint8]) -> People:
        return People(regions, np.stack([np.bincount(person.ravel(), minlength=256) for person in regions]))


@dataclass(frozen=True)
class HumanDisagreement:
    """Correlations of a method's doubt with people's disagreement over `pixels`, by ranks (corrected for ties) and by values; NaN
    where either is the same everywhere."""

    pixels: int
    spearman: float
    pearson: float


@dataclass(frozen=True)
class DisagreementHistogram:
    """counts: [SIZES, SHARES], pixels by the size of the logit, the last bin open, and by disagreement.

    For Pearson's correlation pixels sit at the centre of their bin, 1/128 logit wide: that moves it by less than 1e-4.
    """

    counts: NDArray[np.int64]

    @staticmethod
    def empty() -> DisagreementHistogram:
        return DisagreementHistogram(np.zeros((SIZES, SHARES), np.int64))

    def __add__(self, other: DisagreementHistogram) -> DisagreementHistogram:
        return DisagreementHistogram(self.counts + other.counts)

    def read(self) -> HumanDisagreement:
        """Raises ValueError for an empty histogram."""
        pixels = int(self.counts.sum())
        if not pixels:
            raise ValueError("no pixel to judge: no object that enough people name")
        doubt = 1 / (1 + np.exp(bin_centres()[SIZES:, None]))
        # bins of the logit's size run from uncertain to certain
        ranks = -centred_ranks(self.counts.sum(1))[:, None], centred_ranks(self.counts.sum(0))
        return HumanDisagreement(
            pixels, correlation(self.counts, *ranks), correlation(self.counts, doubt, np.arange(SHARES) / STEPS)
        )


@dataclass(frozen=True)
class RegionDisagreement:
    """image: all pixels; band: those near the object, as in `error_detection.RegionHistograms`."""

    image: DisagreementHistogram
    band: DisagreementHistogram

    @staticmethod
    def empty() -> RegionDisagreement:
        return RegionDisagreement(DisagreementHistogram.empty(), DisagreementHistogram.empty())

    def __add__(self, other: RegionDisagreement) -> RegionDisagreement:
        return RegionDisagreement(self.image + other.image, self.band + other.band)


def annotator_files(mask: Path) -> tuple[Path, ...]:
    """The segmentations, by number, of the image that this file of masks/ belongs to; none in a set of one annotator."""
    name = re.compile(re.escape(mask.stem) + r"_(\d+)\.png")
    folder = mask.parent.parent / FOLDER
    numbered = [(int(match[1]), file) for file in folder.glob("*.png") if (match := name.fullmatch(file.name))]
    return tuple(file for _, file in sorted(numbered))


def read_people(mask: Path) -> People:
    """The people of `annotator_files`. Raises ValueError when there is none, or naming the file that cannot be read or has another
    size than the mask."""
    files = annotator_files(mask)
    if not files:
        raise ValueError(f"{mask}: no segmentations {FOLDER}/{mask.stem}_<number>.png beside it")
    height, width = read_mask(mask).shape
    regions = []
    for file in files:
        person = read_mask(file)
        if person.shape != (height, width):
            size = f"{person.shape[1]} x {person.shape[0]}"
            raise ValueError(f"{file}: {size} pixels, but {mask} has {width} x {height}; they must be of one size")
        regions.append(person)
    return People.of(np.stack(regions))


def people_disagree(people: People, truth: Mask) -> NDArray[np.float32] | None:
    """Share of people, [height, width], who are in the minority about the object `truth`; None when too few name it."""
    including, named = np.zeros(truth.shape, np.float32), 0
    size = np.count_nonzero(truth)
    for regions, sizes in zip(people.regions, people.sizes, strict=True):
        inside = np.bincount(regions[truth], minlength=256)
        chosen = 2 * inside > sizes
        overlap = inside[chosen].sum()
        if overlap >= SAME * (sizes[chosen].sum() + size - overlap):
            including += chosen[regions]
            named += 1
    if named < MIN_PEOPLE:
        return None
    including /= named
    return np.minimum(including, 1 - including)


def disagreement_histograms(logit: Tensor, disagreement: Tensor, valid: Tensor, band: Tensor) -> RegionDisagreement:
    """The histograms of one object, all [height, width].

    logit: of the probability of foreground; disagreement: from `people_disagree`; valid, band: boolean; pixels that are not valid do
    not count. Raises ValueError when a logit is NaN.
    """
    check_numbers(logit)
    size = bin_of(logit.to(torch.promote_types(logit.dtype, torch.float32)).abs()) - SIZES
    share = (disagreement * STEPS).round().int()
    part = band.int() + IGNORED * (~valid).int()
    cell = (part * SIZES + size) * SHARES + share
    counts = torch.bincount(cell.flatten(), minlength=2 * IGNORED * SIZES * SHARES)[: IGNORED * SIZES * SHARES]
    outside, inside = counts.cpu().numpy().reshape(2, SIZES, SHARES)
    return RegionDisagreement(DisagreementHistogram(outside + inside), DisagreementHistogram(inside))
