"""A track over time: how doubtful each frame is, where the track drifted, and which frame to correct next."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

# set before any labelled clip was looked at; benchmarks/video_correction.py judges them
ALARM = 0.5  # doubt
LASTING_ALARM = 3  # frames
# how the doubt grows with the distance from a corrected frame: towards SETTLED, two thirds of the way within SPAN frames
SETTLED, SPAN, HORIZON = 0.5, 8.0, 40


def alarm_score(doubt: NDArray[np.floating]) -> NDArray[np.float64]:
    """[frames]: the doubt that LASTING_ALARM frames in a row, this one among them, reach all: an alarm is where it is above ALARM.

    Of fewer frames in all, 0.
    """
    doubt = np.asarray(doubt, np.float64)
    score = np.zeros(len(doubt))
    for first in range(len(doubt) - LASTING_ALARM + 1):
        window = slice(first, first + LASTING_ALARM)
        score[window] = np.maximum(score[window], doubt[window].min())
    return score


def alarms(doubt: NDArray[np.floating]) -> list[tuple[int, int]]:
    """Where a track drifted: (first, last) of every run of at least LASTING_ALARM frames in a row whose doubt is above ALARM."""
    return runs(alarm_score(doubt) > ALARM)


def runs(there: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, last) of every run of True."""
    fenced = np.concatenate([[False], there, [False]]).astype(np.int8)
    starts, ends = (np.flatnonzero(np.diff(fenced) == step) for step in (1, -1))
    return [(int(start), int(end) - 1) for start, end in zip(starts, ends, strict=True)]


def correction_gain(doubt: NDArray[np.floating], told: Collection[int]) -> NDArray[np.float64]:
    """For each frame, by how much all doubts together are expected to fall if that frame is corrected and propagated both ways.

    doubt: of all frames; told: frames with prompts, which stop the propagation and gain nothing themselves. A frame at distance d
    from the corrected one, up to HORIZON, is expected to be left with a doubt of SETTLED · (1 - exp(-d / SPAN)), or with its own,
    if that is less.
    """
    doubt = np.asarray(doubt, np.float64)
    count = len(doubt)
    fence = np.zeros(count, np.bool_)
    fence[list(told)] = True
    stretch = np.where(fence, -1, fence.cumsum())  # frames between the same prompts have the same number
    gain = np.zeros(count)
    for distance in range(min(HORIZON, count - 1) + 1):
        left = SETTLED * -math.expm1(-distance / SPAN)
        saved = np.maximum(0, doubt - left)
        early, late = slice(0, count - distance), slice(distance, count)
        together = (stretch[early] == stretch[late]) & ~fence[early]
        gain[early] += saved[late] * together
        if distance:
            gain[late] += saved[early] * together
    return gain


def next_frame(doubt: NDArray[np.floating], told: Collection[int]) -> int | None:
    """The frame whose correction is expected to help most; None where every frame has a prompt."""
    if len(set(told)) >= len(doubt):
        return None
    gain = correction_gain(doubt, told)
    gain[list(told)] = -1
    return int(gain.argmax())
