"""How the objects of a calibration set are pointed at. A guarantee holds for prompts from the same source, so they are kept
with it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ruac.data.prompts import first_click, jittered_box
from ruac.evaluate.protocol import MIN_PIXELS, Protocol, choose_objects
from ruac.predictor import Prompt
from ruac.regions import Mask

BOX_JITTER = 0.1

Kind = Literal["point", "box"]
Point = tuple[float, float, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Policy:
    """prompt: one click at the centre of the object, or a box around it whose sides are each moved by up to BOX_JITTER of the
    box's; max_objects: of an image, drawn at random among those of MIN_PIXELS or more; seed: draws objects and boxes."""

    prompt: Kind = "point"
    max_objects: int = 10
    seed: int = 0

    @property
    def words(self) -> str:
        """What is said about an object, for people."""
        if self.prompt == "point":
            return "one click at the centre of the object"
        return f"a box around the object, each side moved by up to {100 * BOX_JITTER:.0f} % of the box"

    def objects(self, ids: NDArray[np.uint8], image_id: str) -> tuple[int, ...]:
        """Those of an image that are prompted. Raises ValueError for max_objects below 1."""
        return choose_objects(ids, image_id, Protocol(clicks=(1,), max_objects=self.max_objects, seed=self.seed))

    def say(self, truth: Mask, image_id: str, i: int) -> Prompt:
        """The prompt for one object, the same wherever it is asked for. i: its id."""
        if self.prompt == "point":
            return Prompt(point_coords=[first_click(truth)], point_labels=[1])
        rng = np.random.default_rng([self.seed, zlib.crc32(image_id.encode()), i])
        return Prompt(box=jittered_box(truth, rng, BOX_JITTER))

    def draw(self, image_id: str, objects: int) -> int:
        """One of so many objects of an image."""
        return int(np.random.default_rng([self.seed, zlib.crc32(image_id.encode())]).integers(objects))

    def fits(self, points: Sequence[Point], box: Box | None) -> bool:
        """Whether such words could have come from this policy, as far as one can see from their kind."""
        if self.prompt == "box":
            return box is not None and not points
        return box is None and [label for *_, label in points] == [1]

    def describe(self) -> dict[str, str | int | float]:
        """For the file."""
        return {
            "kind": self.prompt,
            "words": self.words,
            "box_jitter": BOX_JITTER,
            "least_pixels": MIN_PIXELS,
            "max_objects": self.max_objects,
            "seed": self.seed,
        }
