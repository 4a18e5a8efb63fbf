"""VideoPredictor: prompts on any frame of a video; out come masks on all frames, and how sure each is, by pixel and over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor
from transformers import PreTrainedModel

from ruac.distribution import MaskDistribution
from ruac.evaluate.metrics import iou
from ruac.features import ImageFeatures
from ruac.predictor import Prediction, Prompt
from ruac.regions import Mask
from ruac.video.frames import Frames, Source, open_frames
from ruac.video.light import LightTracker
from ruac.video.memory import MemoryTracker
from ruac.video.motion import carried, steadied
from ruac.video.opening import open_model
from ruac.video.tracker import Tracker
from ruac.video.trust import Signs


@dataclass(frozen=True, eq=False)
class Tracked:
    """An object on a frame. prediction: of this frame alone, its mask the first and only one; steady: the same mask, its doubt grown
    where the frame before, moved as the mask has moved, disagrees; told: whether a person said something about it here; signs: see
    `Tracker`."""

    prediction: Prediction
    steady: Prediction
    told: bool
    signs: Signs | None = None

    @cached_property
    def own_doubt(self) -> float:
        """1 - the IoU with the truth that the steady distribution expects. Of an empty mask, the probability that the object is there:
        1 where nothing says that it is not."""
        if self._empty:
            return 1.0 if self.prediction.object_score is None else self.prediction.object_score
        return 1 - float(replace(self.steady, low_resolution=True).expected_iou[0])

    @cached_property
    def doubt(self) -> float:
        """One number a frame: 1 - the expected IoU with the truth, as far as the track is trusted."""
        if self._empty or self.signs is None:
            return self.own_doubt
        return 1 - self.signs.trust * (1 - self.own_doubt)

    @property
    def _empty(self) -> bool:
        return not (self.prediction.distribution.mean > 0).any()


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """frame: its number; objects: by their numbers."""

    frame: int
    objects: dict[int, Tracked]


class VideoPredictor:
    """Follows objects through a video: `set_video`, `add_prompt` on any frame, `propagate` both ways, and again after corrections.

    model: what `Predictor` takes. Checkpoints of SAM 2, SAM 3's tracker and EdgeTAM use the memory they were trained with, and their
    masks are those of transformers' own code; every other model, nano among them, a light one that needs no training. A video
    model of transformers' may be given itself. keep: how many frames around the current one such a memory holds, None for all of
    them: a limit bounds memory, and a correction on a frame beyond it begins anew. features: of how many frames the image features
    are kept for another pass, with the light memory.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel = "nano",
        device: str = "cpu",
        head: str | Path | None = None,
        *,
        keep: int | None = None,
        features: int = 1,
    ):
        self.image, self.video = open_model(model, device, head)
        self._keep, self._features = keep, features
        self._frames: Frames | None = None

    @property
    def frames(self) -> Frames:
        """Raises RuntimeError before `set_video`."""
        if self._frames is None:
            raise RuntimeError("no video yet: call set_video(video) before anything else")
        return self._frames

    def set_video(self, video: Source) -> None:
        """A film, a folder of frames, arrays uint8 [frames, height, width, 3], or what is read already; forgets the one before.

        Raises FileNotFoundError, and ValueError for what is no video.
        """
        self._frames = open_frames(video)
        self._encoded: dict[int, ImageFeatures] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all objects, not the video."""
        self.tracker: Tracker = (
            LightTracker(self.image, self._encoded, self._features)
            if self.video is None
            else MemoryTracker(self.video, self.image, self._keep)
        )
        self._told: set[tuple[int, int]] = set()
        self.last: tuple[int, dict[int, MaskDistribution]] | None = None

    def add_prompt(
        self,
        frame: int,
        number: int = 1,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: Mask | None = None,
    ) -> TrackedFrame:
        """All that is said about an object on a frame, in place of what was said there before; returns that frame.

        number: of the object, a new one or one to correct; the other arguments are those of `Predictor.predict`, or a mask, boolean
        [height, width], alone. Raises ValueError for what makes no sense, IndexError for a frame that is not there.
        """
        if mask is not None and not (point_coords is None and box is None):
            raise ValueError("a mask says all about an object: give no points and no box with it")
        said = Prompt(point_coords, point_labels, box) if mask is None else mask
        if not 0 <= frame < len(self.frames):
            raise IndexError(f"no frame {frame}: the video has frames 0 to {len(self.frames) - 1}")
        answers = self.tracker.tell(self.frames, frame, number, said)
        self._told.add((frame, number))
        return self._tracked(frame, answers)

    def propagate(self, start: int | None = None, stop: int | None = None, reverse: bool = False) -> Iterator[TrackedFrame]:
        """The frames from `start` (the first one with a prompt) to `stop` (the last of the video or, in reverse, 0), both included.

        Raises RuntimeError where nothing has been said about any object.
        """
        if not self._told:
            raise RuntimeError("nothing to follow: call add_prompt(...) before propagate()")
        start = min(frame for frame, _ in self._told) if start is None else start
        stop = (0 if reverse else len(self.frames) - 1) if stop is None else stop
        for frame in range(start, stop - 1, -1) if reverse else range(start, stop + 1):
            yield self.step(frame, reverse)

    def refine(self, frame: int) -> Iterator[TrackedFrame]:
        """After `add_prompt` on a frame: all frames that it is nearer to than any other frame with a prompt is, itself the first."""
        told = {n for n, _ in self._told}
        before, after = (max((n for n in told if n < frame), default=None), min((n for n in told if n > frame), default=None))
        first = 0 if before is None else (before + frame) // 2 + 1
        last = len(self.frames) - 1 if after is None else (frame + after) // 2
        yield from self.propagate(frame, last)
        yield from (tracked for tracked in self.propagate(frame, first, reverse=True) if tracked.frame != frame)

    def retrace(self, start: int, stop: int, masks: Mapping[int, Mask]) -> Iterator[tuple[int, float | None]]:
        """The way back, as a test: how far a track from `start` to `stop` disagrees with itself when it is followed back from there.

        masks: boolean [height, width] of one object on the frames of the track, which `propagate` gave. Yields every frame, the last
        one first, and 1 - IoU of the two masks there; None from `stop` to where the object has a mask again, where there is nothing
        to follow. Forgets all objects, before and after.
        """
        self.reset()
        for frame in range(stop, start - 1, -1) if stop > start else range(stop, start + 1):
            yield frame, self.step_back(frame, {1: masks[frame]}, reverse=stop > start).get(1)
        self.reset()

    def step_back(self, frame: int, masks: Mapping[int, Mask], reverse: bool) -> dict[int, float]:
        """One frame of the way back, see `retrace`, of several objects: masks of the track by object, to 1 - IoU.

        An object is taken up on the first frame of the way where it has a mask; before, nothing is returned of it.
        """
        for number in [n for n, mask in masks.items() if n not in self.tracker.objects and mask.any()]:
            self.add_prompt(frame, number, mask=masks[number])
        if not self.tracker.objects:
            return {}
        found = self.step(frame, reverse).objects
        return {number: 1 - iou(answer.prediction.masks[0], masks[number]) for number, answer in found.items()}

    def step(self, frame: int, reverse: bool = False) -> TrackedFrame:
        """One frame further, from the one before it (in reverse, after it)."""
        return self._tracked(frame, self.tracker.step(self.frames, frame, reverse))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that later frames depend on, besides the video: tensors, and what JSON can hold."""
        tensors, values = self.tracker.state()
        frame, last = self.last or (-1, {})
        for number, distribution in last.items():
            tensors |= {f"last/{number}/mean": distribution.mean, f"last/{number}/variance": distribution.variance}
        return tensors, values | {"told": sorted(self._told), "last": frame}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on, with the same model and video, from what `state` gave."""
        self.reset()
        of_tracker = {name: value for name, value in tensors.items() if not name.startswith("last/")}
        self.tracker.restore(of_tracker, values)
        self._told = {(frame, number) for frame, number in values["told"]}
        means = {
            int(name.split("/")[1]): value
            for name, value in tensors.items()
            if name.startswith("last/") and name.endswith("mean")
        }
        last = {number: MaskDistribution(mean, tensors[f"last/{number}/variance"]) for number, mean in means.items()}
        self.last = values["last"], last

    def _tracked(self, frame: int, answers: dict[int, Prediction]) -> TrackedFrame:
        last = self.last[1] if self.last and abs(self.last[0] - frame) == 1 else {}
        objects = {}
        for number, answer in answers.items():
            told = (frame, number) in self._told
            before = carried(last[number], answer.distribution) if number in last and not told else None
            steady = replace(answer, distribution=steadied(answer.distribution, before))
            objects[number] = Tracked(answer, steady, told, self.tracker.signs.get(number))
        self.last = frame, {number: answer.distribution for number, answer in answers.items()}
        return TrackedFrame(frame, objects)
