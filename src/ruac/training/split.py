"""Which pictures a head is fitted on, which say when to stop, and which it is reported on: three parts that share nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ruac.data.folder import FolderSet
from ruac.training.answers import Picture

ENOUGH_HELD_OUT = 5
SHARE = 5  # one picture in so many, where the sets have not enough held-out ones, and of the rest one in so many is watched
FEWEST, FEW = 3, 20


@dataclass(frozen=True)
class Split:
    fitted: tuple[Picture, ...]
    watched: tuple[Picture, ...]
    held_out: tuple[FolderSet, ...]

    @property
    def reported(self) -> int:
        """How many pictures are held out."""
        return sum(len(part.samples) for part in self.held_out)


def split(sets: Sequence[FolderSet], max_images: int | None = None) -> Split:
    """Held out are those that `Sample.held_out` says, if they are ENOUGH_HELD_OUT, else every fifth picture; of the others every fifth
    is watched. It depends on the names alone. max_images: of each set, the first by name.

    Raises ValueError for fewer than FEWEST pictures.
    """
    pictures = [(part, sample) for part in sets for sample in part.samples[:max_images]]
    if len(pictures) < FEWEST:
        raise ValueError(
            f"--data: {len(pictures)} labelled pictures; it takes {FEWEST} at least: to fit on, to stop by, to report on; add some"
        )
    apart = {sample.image for _, sample in pictures if sample.held_out}
    if len(apart) < ENOUGH_HELD_OUT:
        apart = {sample.image for _, sample in pictures[::SHARE]}
    held_out = [replace(part, samples=tuple(s for s in part.samples[:max_images] if s.image in apart)) for part in sets]
    rest = [Picture.of(part.name, sample) for part, sample in pictures if sample.image not in apart]
    watched = rest[::SHARE]
    return Split(
        tuple(picture for picture in rest if picture not in watched),
        tuple(watched),
        tuple(part for part in held_out if part.samples),
    )
