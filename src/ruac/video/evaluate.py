"""How good is a track, does its doubt know where it is wrong, what is a correction worth? For clips with a mask a frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from ruac.data.folder import IGNORE, FolderSet, read_mask
from ruac.data.image import read_image
from ruac.data.prompts import first_click
from ruac.distribution import MaskDistribution
from ruac.evaluate.error_detection import RegionHistograms, histograms
from ruac.evaluate.metrics import mask_quality
from ruac.regions import Mask, band_around
from ruac.video.curve import LASTING_ALARM, runs
from ruac.video.frames import Clip
from ruac.video.predictor import Tracked, TrackedFrame, VideoPredictor

Start = Literal["mask", "click"]

DRIFTED = 0.5  # of J on the frame with the prompt


@dataclass(frozen=True, eq=False)
class Labelled:
    """A clip with the truth: of the lowest object number on the first frame. truths, valid: [height, width] of each frame."""

    name: str
    frames: Clip
    truths: tuple[Mask, ...]
    valid: tuple[Mask, ...]

    @staticmethod
    def read(part: FolderSet, most: int | None = None) -> Labelled:
        """The first frames of a set whose pictures are those of a clip. Raises ValueError when the first one is empty."""
        samples = part.samples[:most]
        ids = [read_mask(sample.mask) for sample in samples]
        objects = [int(i) for i in np.unique(ids[0]) if i not in (0, IGNORE)]
        if not objects:
            raise ValueError(f"{samples[0].mask}: no object on the first frame, so that there is nothing to follow")
        frames = Clip([read_image(sample.image) for sample in samples])
        return Labelled(part.name, frames, tuple(each == objects[0] for each in ids), tuple(each != IGNORE for each in ids))


@dataclass(frozen=True, eq=False)
class Course:
    """A track against the truth, [frames] each: J, J&F, both doubts of `Tracked`, and score, what users of SAM 2 have instead:
    predicted IoU times the object score, of a model that has one; masks: what was found."""

    j: NDArray[np.float64]
    j_and_f: NDArray[np.float64]
    doubt: NDArray[np.float64]
    own_doubt: NDArray[np.float64]
    score: NDArray[np.float64]
    masks: tuple[Mask, ...]

    def after(self, changed: Sequence[TrackedFrame], clip: Labelled) -> Course:
        """With these frames in place of what was there."""
        rows = list(zip(self.j, self.j_and_f, self.doubt, self.own_doubt, self.score, self.masks, strict=True))
        for tracked in changed:
            rows[tracked.frame] = _row(only(tracked), clip, tracked.frame)
        return Course.of(rows)

    @staticmethod
    def of(rows: Sequence[tuple[float, float, float, float, float, Mask]]) -> Course:
        j, both, doubt, own, score = (np.array([row[k] for row in rows], np.float64) for k in range(5))
        return Course(j, both, doubt, own, score, tuple(row[5] for row in rows))


def follow(predictor: VideoPredictor, clip: Labelled, start: Start = "mask") -> Iterator[TrackedFrame]:
    """The clip's object from the first frame on: from its mask there or from a click in its middle."""
    predictor.set_video(clip.frames)
    if start == "mask":
        predictor.add_prompt(0, mask=clip.truths[0])
    else:
        predictor.add_prompt(0, point_coords=[first_click(clip.truths[0])])
    return predictor.propagate()


def only(tracked: TrackedFrame) -> Tracked:
    (answer,) = tracked.objects.values()
    return answer


def course(track: Sequence[TrackedFrame], clip: Labelled) -> Course:
    """Of a track of all frames."""
    return Course.of([_row(only(tracked), clip, tracked.frame) for tracked in track])


def correct(predictor: VideoPredictor, clip: Labelled, before: Course, frame: int) -> Course:
    """An annotator draws the object on a frame, and the track around it is made anew."""
    predictor.add_prompt(frame, mask=clip.truths[frame])
    return before.after(list(predictor.refine(frame)), clip)


def errors(answer: Tracked, truth: Mask, valid: Mask, steady: bool) -> RegionHistograms:
    """Where the mask is wrong, by the uncertainty of this frame alone or of the steady distribution."""
    prediction = answer.steady if steady else answer.prediction
    whole: MaskDistribution = prediction.distribution.resize(prediction.frame, prediction.side)
    mask = whole.mean[0] > 0
    maps = (torch.from_numpy(each) for each in (truth, valid, band_around(mask.numpy(), truth)))
    return histograms(whole.scaled_mean()[0], mask, *maps)


def drifted(j: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[frames] of a track from the first frame on: whether it has drifted.

    It has where J is less than DRIFTED times what it was on the first frame, and that for LASTING_ALARM frames in a row or more.
    """
    gone = np.zeros(len(j), np.bool_)
    for first, last in runs(j < DRIFTED * j[0]):
        gone[first : last + 1] = last - first + 1 >= LASTING_ALARM
    return gone


def auroc(events: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Probability that a frame with the event has a higher score than one without, ties half; NaN where one of the two is missing."""
    count = int(events.sum())
    others = len(events) - count
    if not count or not others:
        return math.nan
    return float((rankdata(score)[events].sum() - count * (count + 1) / 2) / (count * others))


def _row(answer: Tracked, clip: Labelled, frame: int) -> tuple[float, float, float, float, float, Mask]:
    prediction = answer.prediction
    quality = mask_quality(prediction.masks[0], clip.truths[frame], clip.valid[frame])
    score = prediction.score * (1.0 if prediction.object_score is None else prediction.object_score)
    return quality.iou, quality.j_and_f, answer.doubt, answer.own_doubt, score, prediction.masks[0]
