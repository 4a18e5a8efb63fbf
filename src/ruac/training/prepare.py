"""Everything that is made before a head is fitted: the answers about all pictures, as many of them as are not on disk yet."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruac.evaluate.protocol import read
from ruac.model import RuacModel
from ruac.training.answers import AnswerFiles, Picture, answers_key, make_answers, picture_seed
from ruac.training.embeddings import POSITION, embeddings_key

SPARE = 1.05  # of the room that is asked for


@dataclass(frozen=True)
class Folders:
    """Of one model and one way of asking; `clean` removes those of others, so that a cache does not grow from run to run."""

    cache: Path
    embeddings: Path
    answers: Path

    @staticmethod
    def of(cache: Path, model: RuacModel, objects: int, seed: int) -> Folders:
        keys = {"embeddings": embeddings_key(model), "answers": answers_key(model, objects, seed)}
        return Folders(cache, *(cache / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}" for kind, key in keys.items()))

    def clean(self) -> None:
        for kind in ("embeddings", "answers"):
            for folder in self.cache.glob(f"{kind}-*"):
                if folder not in (self.embeddings, self.answers):
                    shutil.rmtree(folder)


@dataclass(frozen=True)
class Room:
    """Disk, in bytes. embedding, answers: of a picture; needed: by all that are not there yet; free: what there is."""

    embedding: int
    answers: int
    needed: int
    free: int

    def check(self, folder: Path) -> None:
        """Raises ValueError when it is not enough."""
        if self.needed * SPARE > self.free:
            raise ValueError(
                f"{folder}: {size(self.needed)} more are needed and {size(self.free)} are free; give --max-images, fewer --objects, "
                "or an --out on a larger disk"
            )


@dataclass(frozen=True)
class Prepared:
    """usable: names of the pictures that have answers; empty: how many have no object; failed: a line for each that cannot be read."""

    usable: frozenset[str]
    empty: int
    failed: tuple[str, ...]


def prepare(
    model: RuacModel,
    pictures: Sequence[Picture],
    others: int,
    files: AnswerFiles,
    embeddings: Path,
    announce: Callable[[Room], None],
    tell: Callable[[], None],
) -> Prepared:
    """Make the answers that are missing; the model's encoder fills `embeddings` meanwhile.

    others: how many pictures will be encoded later; announce: told what all of it will take on disk, once the first picture is done;
    tell: called after every picture. Raises ValueError when the disk has no room for the rest.
    """
    usable, failed, empty, announced = set(), [], 0, False
    for number, picture in enumerate(pictures, start=1):
        if files.read(picture) is not None:
            usable.add(picture.name)
            tell()
            continue
        try:
            labelled = read(picture.sample)
        except ValueError as error:
            failed.append(str(error))
            tell()
            continue
        answers = make_answers(model, labelled, files.objects, picture_seed(files.seed, picture))
        if answers is None:
            empty += 1
        else:
            files.write(picture, answers)
            usable.add(picture.name)
            if not announced:
                room = _room(files.path(picture), embeddings, len(pictures) - number, others)
                announce(room)
                room.check(files.folder.parent)
                announced = True
        tell()
    return Prepared(frozenset(usable), empty, tuple(failed))


def size(number: float) -> str:
    """Bytes for people."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _room(answers: Path, embeddings: Path, pictures: int, others: int) -> Room:
    """All pictures take the same, whatever is on them."""
    of_answers = answers.stat().st_size
    of_embedding = max(path.stat().st_size for path in embeddings.iterdir() if path.name != POSITION)
    needed = pictures * (of_answers + of_embedding) + others * of_embedding
    return Room(of_embedding, of_answers, needed, shutil.disk_usage(embeddings).free)
