"""What a frozen Segment Anything model answers about the objects of a picture, made once and kept on disk for many steps of a head.

As in `objective.Objective`, half of the answers follow one prompt and half two to eight, each a correction of the model's own mask.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ruac.data.folder import IGNORE, Sample, object_ids
from ruac.evaluate.protocol import MIN_PIXELS, LabelledImage
from ruac.features import DecoderFeatures
from ruac.model import RuacModel, chosen_token, weights_sha256
from ruac.training.annotator import simulate
from ruac.training.embeddings import half
from ruac.training.objective import CLICK_SHARE, CLICKS
from ruac.training.tensorfile import read_tensors, write_tensors

FORMAT = "ruac-answers-1"
QUARTERS = 4  # shares of foreground are kept to a quarter: that is what four pixels a cell have


@dataclass(frozen=True)
class Answers:
    """Of R pictures' P objects after few prompts, and again after more, B = 2 R.

    decoded: the returned tokens', [B, P, ...] with K = 1; truth: [B, P, 1, h, w] share of foreground; valid: [B, 1, 1, h, w], 1 where
    pixels count.
    """

    decoded: DecoderFeatures
    truth: Tensor
    valid: Tensor

    @staticmethod
    def together(each: Sequence[Answers]) -> Answers:
        fields = [vars(answers.decoded) for answers in each]
        decoded: dict[str, Any] = {
            name: None if value is None else torch.cat([of[name] for of in fields]) for name, value in fields[0].items()
        }
        truth, valid = (torch.cat([getattr(answers, name) for answers in each]) for name in ("truth", "valid"))
        return Answers(DecoderFeatures(**decoded), truth, valid)


@dataclass(frozen=True)
class Picture:
    """A labelled picture of a set. content: hash of both of its files."""

    part: str
    sample: Sample
    content: str

    @staticmethod
    def of(part: str, sample: Sample) -> Picture:
        """Raises OSError for a file that cannot be opened."""
        digest = hashlib.sha256()
        for path in (sample.image, sample.mask):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return Picture(part, sample, digest.hexdigest())

    @property
    def name(self) -> str:
        return f"{self.part}/{self.sample.id}"


class AnswerFiles:
    """Answers on disk, a file each picture; those of other weights or settings, or of a picture that has changed, are not found."""

    def __init__(self, folder: Path, model: RuacModel, objects: int, seed: int):
        self.folder, self.objects, self.seed, self.device = folder, objects, seed, model.device
        self.key = answers_key(model, objects, seed)

    def path(self, picture: Picture) -> Path:
        return self.folder / f"{hashlib.sha256(self._key(picture).encode()).hexdigest()[:32]}.safetensors"

    def write(self, picture: Picture, answers: Answers) -> None:
        """The pixel features are rounded to half precision, the truth to QUARTERS."""
        decoded = {name: value for name, value in vars(answers.decoded).items() if value is not None}
        tensors = decoded | {
            "pixels": half(answers.decoded.pixels),
            "truth": (QUARTERS * answers.truth).round().byte(),
            "valid": answers.valid.bool(),
        }
        write_tensors(self.path(picture), tensors, self._key(picture))

    def read(self, picture: Picture) -> Answers | None:
        """None where there are none."""
        tensors = read_tensors(self.path(picture), self._key(picture))
        if tensors is None:
            return None
        on = {name: value.to(self.device, torch.float32) for name, value in tensors.items()}
        truth, valid = on.pop("truth") / QUARTERS, on.pop("valid")
        return Answers(DecoderFeatures(object_logit=on.pop("object_logit", None), **on), truth, valid)

    def _key(self, picture: Picture) -> str:
        return f"{self.key} {picture.name} {picture.content}"


def answers_key(model: RuacModel, objects: int, seed: int) -> str:
    """What answers depend on besides the picture. The head is part of it: its logits are given back with a correction."""
    return f"{FORMAT} {weights_sha256(model)} {objects} {seed}"


@torch.no_grad()
def make_answers(model: RuacModel, labelled: LabelledImage, objects: int, seed: Sequence[int]) -> Answers | None:
    """Ask the model about `objects` objects of a picture; where it has fewer, about some of them again, in other words.

    seed: what objects and prompts are drawn from. None for a picture without an object that one could click on.
    """
    rng = np.random.default_rng(tuple(seed))
    pixels = torch.from_numpy(labelled.image).permute(2, 0, 1).to(model.device)
    prepared, frame = model.prepare(pixels)
    side = 2 * model.grid  # half the input's, as in the loop
    rows, columns = (n * side // model.side for n in frame.inside)
    valid = torch.zeros(side, side)
    valid[:rows, :columns] = (_shrunk(labelled.ids != IGNORE, (rows, columns)) > 0.99).float()
    found = _visible_objects(labelled.ids, valid, (rows, columns), objects, rng)
    if not found:
        return None
    order = list(range(len(found))) + rng.integers(len(found), size=objects - len(found)).tolist()
    truth = torch.stack([found[i] for i in order])[None]  # (1, P, h, w)
    features = model.encode(prepared[None], (frame,))
    several = int(rng.choice(CLICKS, p=CLICK_SHARE))
    each = []
    for clicks in (1, several):
        prompts = simulate(model, features, truth, valid[None, None], clicks, [rng])
        decoded = model.decode(features, prompts)
        chosen = decoded.select(chosen_token(decoded, prompts, model.stability))
        each.append(Answers(chosen, truth[:, :, None].to(model.device), valid[None, None, None].to(model.device)))
    return Answers.together(each)


def picture_seed(seed: int, picture: Picture) -> tuple[int, int]:
    """What is drawn for a picture depends on nothing but its name and the run's seed."""
    return seed, zlib.crc32(picture.name.encode())


def _visible_objects(
    ids: NDArray[np.uint8], valid: Tensor, inside: tuple[int, int], most: int, rng: np.random.Generator
) -> list[Tensor]:
    """Shares of foreground [h, w] of at most so many objects, drawn at random among those of which something is to be seen."""
    sizes = np.bincount(ids.ravel(), minlength=256)
    large = [i for i in object_ids(ids) if sizes[i] >= MIN_PIXELS]
    found: list[Tensor] = []
    for i in rng.permutation(large):
        truth = torch.zeros_like(valid)
        truth[: inside[0], : inside[1]] = _shrunk(ids == i, inside)
        if ((truth > 0.5) & (valid > 0)).any():
            found.append(truth)
        if len(found) == most:
            break
    return found


def _shrunk(mask: NDArray[np.bool_], size: tuple[int, int]) -> Tensor:
    """Share of the mask in each cell, [rows, columns]."""
    return F.interpolate(torch.from_numpy(mask)[None, None].float(), size=size, mode="area")[0, 0]
