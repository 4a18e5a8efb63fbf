"""What a calibration learns from one labelled picture, and from many, picture by picture in constant memory but for their
traits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ruac.calibrate.bounds import scores
from ruac.calibrate.policy import Policy
from ruac.calibrate.risk import BACKGROUND, CELLS, OBJECT, REACH, Losses, count
from ruac.calibrate.shift import Traits
from ruac.data.folder import IGNORE, Sample
from ruac.evaluate.error_detection import RIGHT, WRONG
from ruac.evaluate.protocol import LabelledImage, read
from ruac.evaluate.temperature import best_temperature
from ruac.predictor import Predictor


@dataclass(frozen=True, eq=False)
class Measured:
    """Of some images that have an object. objects: how many were prompted; pixels: [2, CELLS], background and object, by the
    cell of their score, as shares of each image's, summed over images."""

    losses: Losses
    objects: int
    pixels: NDArray[np.float64]
    traits: tuple[Traits, ...]

    @staticmethod
    def none() -> Measured:
        return Measured(Losses.none(), 0, np.zeros((2, CELLS)), ())

    def __add__(self, other: Measured) -> Measured:
        return Measured(
            self.losses + other.losses, self.objects + other.objects, self.pixels + other.pixels, self.traits + other.traits
        )

    @property
    def images(self) -> int:
        return self.losses.images

    @property
    def temperature(self) -> float:
        """At which the labels are likeliest when scores are divided by it; every image counts alike."""
        # an object's pixel is right to have a high score, one of the background is not
        counts = np.empty_like(self.pixels)
        counts[RIGHT], counts[WRONG] = self.pixels[OBJECT], self.pixels[BACKGROUND]
        return best_temperature(counts, REACH)


@dataclass(frozen=True, eq=False)
class Survey:
    """All that was found. fingerprint: hash of the names and the contents of all files; empty: images without an object;
    failed: a line for every image that could not be read."""

    measured: Measured
    fingerprint: str
    empty: int
    failed: tuple[str, ...]


def survey(predictor: Predictor, samples: Iterable[Sample], policy: Policy) -> Survey:
    """Prompt the objects of all samples. Raises ValueError when the model answers with NaN."""
    measured, digest = Measured.none(), hashlib.sha256()
    empty, failed = 0, []
    for sample in samples:
        try:
            labelled = read(sample)
        except ValueError as error:
            failed.append(str(error))
            continue
        for file in (sample.image, sample.mask):
            digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        found = measure(predictor, labelled, policy)
        if found is None:
            empty += 1
        else:
            measured += found
    return Survey(measured, digest.hexdigest(), empty, tuple(failed))


def measure(predictor: Predictor, labelled: LabelledImage, policy: Policy) -> Measured | None:
    """One image; None when it has no object. Raises ValueError when the model answers with NaN."""
    objects = policy.objects(labelled.ids, labelled.id)
    if not objects:
        return None
    valid = torch.from_numpy(labelled.ids != IGNORE)
    truths = [labelled.ids == i for i in objects]
    predictor.set_image(labelled.image)
    prompts = [policy.say(truth, labelled.id, i) for truth, i in zip(truths, objects, strict=True)]
    predictions = predictor.predict_many(prompts)
    counts = [
        count(scores(prediction), torch.from_numpy(truth), valid) for prediction, truth in zip(predictions, truths, strict=True)
    ]
    pixels = np.sum(counts, axis=0) / np.sum(counts)
    one = policy.draw(labelled.id, len(objects))
    return Measured(Losses.of_image(counts), len(objects), pixels, (Traits.of(labelled.image, predictions[one]),))
