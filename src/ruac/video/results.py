"""What `ruac video` leaves in its folder, and how a run that was stopped goes on.

masks/00000.png ...: indexed, 0 background and the objects' numbers; uncertainty/00000.png ...: 16 bits, 65535 is a coin toss;
frames.jsonl: a line a frame; track.json: the track as a whole; overlay.mp4: to look at; settings.json: what made them; SHA256SUMS,
written last: of all of them. While frames are missing there are progress.jsonl, with the lines so far in the order in which they were
made, and state.safetensors, what the next frames depend on. No name depends on what the video is called.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ruac.checksums import sha256_of
from ruac.label.coco import palette
from ruac.output import UNCERTAINTY_SCALE, encode_uncertainty
from ruac.training.tensorfile import tensors_sha256
from ruac.writing import TEMPORARY, require_own, write_whole

SETTINGS, STATE, PROGRESS, FRAMES, TRACK, OVERLAY = (
    "settings.json", "state.safetensors", "progress.jsonl", "frames.jsonl", "track.json", "overlay.mp4"
)  # fmt: skip
MASKS, UNCERTAINTY = "masks", "uncertainty"
SUMS = "SHA256SUMS"
FORMAT = "ruac-video-3"
SEAL = "sha256"  # of all else in a state, and of the lines up to it

Record = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """The folder; see the top of this file. frames: how many the video has."""

    out: Path
    frames: int

    @staticmethod
    def open(out: Path, settings: Mapping[str, Any]) -> Results:
        """Make the folder, or take up what is there. settings: `frames` among them. Raises ValueError when what is there was made with
        other settings, or with nobody knows which."""
        path, wanted, results = out / SETTINGS, {"format": FORMAT, **settings}, Results(out, settings["frames"])
        if not path.is_file() and (stranger := next(results.strangers(), None)):
            raise ValueError(f"--out {out}: {stranger} is there, but no {SETTINGS} that says what made it; name another folder")
        for folder in (out / MASKS, out / UNCERTAINTY):
            folder.mkdir(parents=True, exist_ok=True)
            require_own(folder, out)
        for folder in (out, out / MASKS, out / UNCERTAINTY):
            for left in folder.glob(TEMPORARY):
                left.unlink()
        if not path.is_file():
            write_whole(path, (json.dumps(wanted, indent=2) + "\n").encode())
            return results
        try:
            found = json.loads(path.read_text())
            changed = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        except (ValueError, AttributeError, RecursionError):
            raise ValueError(f"{path}: damaged; name another folder with --out") from None
        if changed:
            raise ValueError(
                f"--out {out}: was made with another {', '.join(name[:40] for name in changed)}; name another folder, or remove it"
            )
        return results

    def strangers(self) -> Iterator[str]:
        """Names of what is there, but for what a run leaves that was killed at once: empty folders, and files half written."""
        for path in self.out.glob("**/*"):
            if path not in (self.out / MASKS, self.out / UNCERTAINTY) and not path.match(TEMPORARY):
                yield path.relative_to(self.out).as_posix()

    def finished(self) -> bool:
        """Whether the run has come to its end. Raises ValueError when what it left is not all there or has changed since."""
        if not (self.out / SUMS).is_file():
            return False
        lines = [line.partition("  ") for line in (self.out / SUMS).read_text().splitlines()]
        sums = {name: digest for digest, _, name in lines}
        for name in self._names():
            path = self.out / name
            if not path.is_file() or sha256_of(path) != sums.get(name):
                raise ValueError(f"{path}: not what the run left there; name another folder with --out, or remove {self.out}")
        return True

    def seal(self) -> None:
        """The run has come to its end. Raises FileNotFoundError when something is missing."""
        lines = [f"{sha256_of(self.out / name)}  {name}\n" for name in self._names()]
        write_whole(self.out / SUMS, "".join(lines).encode())

    def _names(self) -> list[str]:
        """Of all that a run leaves, but for SUMS."""
        pictures = [self._picture(kind, frame) for kind in (MASKS, UNCERTAINTY) for frame in range(self.frames)]
        return [SETTINGS, FRAMES, TRACK, OVERLAY, *(path.relative_to(self.out).as_posix() for path in pictures)]

    def _picture(self, kind: str, frame: int) -> Path:
        """All names are of one length, so that their order is that of the frames."""
        return self.out / kind / f"{frame:0{max(5, len(str(self.frames - 1)))}}.png"

    def save_frame(self, frame: int, ids: NDArray[np.uint8], uncertainty: NDArray[np.float32]) -> None:
        """ids, uncertainty: [height, width], the latter in bits."""
        picture, buffer = Image.fromarray(ids), io.BytesIO()
        picture.putpalette(palette())
        picture.save(buffer, "PNG")
        write_whole(self._picture(MASKS, frame), buffer.getvalue())
        # the least compression: this is most of the time that writing takes
        _, data = cv2.imencode(".png", encode_uncertainty(uncertainty), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        write_whole(self._picture(UNCERTAINTY, frame), data.tobytes())

    def load_frame(self, frame: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """What `save_frame` wrote. Raises ValueError when it is not there or damaged."""
        path = self._picture(UNCERTAINTY, frame)
        bits = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if bits is None:
            raise ValueError(f"{path}: missing or damaged")
        return self.load_ids(frame), (bits / UNCERTAINTY_SCALE).astype(np.float32)

    def load_ids(self, frame: int) -> NDArray[np.uint8]:
        """The numbers alone."""
        with Image.open(self._picture(MASKS, frame)) as picture:
            return np.asarray(picture)

    def save_state(self, done: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """done: how many frames there are."""
        told = {"done": str(done), "values": json.dumps(values)}
        seal = _digest(tensors, told, self._lines(done))
        write_whole(self.out / STATE, save(dict(tensors), metadata={**told, SEAL: seal}))

    def load_state(self) -> tuple[list[Record], dict[str, Tensor], dict[str, Any]] | None:
        """The lines up to the state, and the state; None where there is none, or fewer lines than it knows of. Raises ValueError when
        anything of them is not as it was written."""
        path = self.out / STATE
        if not path.is_file() or not (self.out / PROGRESS).is_file():
            return None
        try:
            with safe_open(path, "pt") as opened:
                told = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no mapping
            done, seal = int(told["done"]), told.pop(SEAL)
            lines = self._lines(done)
            if len(lines) < done:
                return None
            if seal != _digest(tensors, told, lines):
                raise ValueError("changed since it was written")
        except (SafetensorError, KeyError, ValueError):
            raise ValueError(f"{path}: damaged; remove it, and the video is begun anew") from None
        write_whole(self.out / PROGRESS, b"".join(lines))
        return [json.loads(line) for line in lines], tensors, json.loads(told["values"])

    def _lines(self, done: int) -> list[bytes]:
        """The first of those so far, as they are written."""
        return (self.out / PROGRESS).read_bytes().splitlines(keepends=True)[:done]

    def save_track(self, records: list[Record], summary: Mapping[str, Any]) -> None:
        """The lines of all frames, in their order, and the summary."""
        write_whole(self.out / FRAMES, "".join(line_of(record) for record in records).encode())
        write_whole(self.out / TRACK, (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())

    def clear(self) -> None:
        """Remove what only an unfinished run needs."""
        for name in (STATE, PROGRESS):
            (self.out / name).unlink(missing_ok=True)


def line_of(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _digest(tensors: Mapping[str, Tensor], told: Mapping[str, str], lines: Sequence[bytes]) -> str:
    words = json.dumps([told, tensors_sha256(tensors)], sort_keys=True).encode()
    return hashlib.sha256(b"".join([words, *lines])).hexdigest()
