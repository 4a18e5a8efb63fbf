"""How good a model is under random shifts of its own source: what `ruac tune` makes large, without a picture of any test domain."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ruac.data.folder import FolderSet
from ruac.data.restyle import restyle
from ruac.evaluate.baselines import METHODS
from ruac.evaluate.protocol import LabelledImage, Protocol, evaluate_image
from ruac.model import RuacModel
from ruac.training.sources import TrainingPool

METHOD = "head"


@dataclass(frozen=True)
class Score:
    """Means over pictures and clicks. j_and_f: of the masks, 1 is best; aurc: area under the risk-coverage curve of their pixels, 0 is
    best, in the band around the object: over the whole picture nearly all pixels are easy, and it would have no say."""

    j_and_f: float
    aurc: float

    def total(self, aurc_weight: float) -> float:
        """To be made large."""
        return self.j_and_f - aurc_weight * self.aurc


def shifted_pictures(sets: Sequence[FolderSet], images: int, shifts: int, seed: int) -> list[LabelledImage]:
    """Held-out pictures of each set, the first by name, as they are and in `shifts` other styles: by statistics, colours, gamma, noise
    or blur, the same ones for every model.

    Raises ValueError when nothing is held out or a picture cannot be read.
    """
    pool = TrainingPool(sets, {}, held_out=True)
    found = []
    for samples in pool.samples:
        # of a video one frame
        for sample in list({sample.id: sample for sample in reversed(samples)}.values())[::-1][:images]:
            labelled = LabelledImage(sample.id, *pool.read(sample))
            found.append(labelled)
            for number in range(shifts):
                rng = np.random.default_rng([seed, zlib.crc32(sample.id.encode()), number])
                found.append(replace(labelled, image=restyle(labelled.image, rng)))
    return found


def score(model: RuacModel, pictures: Sequence[LabelledImage], protocol: Protocol) -> Score:
    """Of a model in evaluation mode. Raises ValueError when there is no object to click on."""
    quality, aurc = [], []
    for picture in pictures:
        result = evaluate_image(model, picture, protocol, {METHOD: METHODS[METHOD]})
        for judged in result.after.values() if result.objects else ():
            quality += [each.j_and_f for each in judged.quality]
            band = judged.detection[METHOD].band
            if band.counts.any():
                aurc.append(band.read().aurc)
    if not aurc:
        raise ValueError("data: no object to click on in the held-out pictures; give more pictures, or more of each set")
    return Score(float(np.mean(quality)), float(np.mean(aurc)))
