"""Prompts in a file, so that other models are told the very same: a line of JSON an image, after a line that says what they are.

    {"format": "ruac-prompts-1", "prompt": "point", "clicks": 5}
    {"set": "trashcan", "image": "0001", "objects": {"7": {"points": [[120.0, 64.0, 1], [131.0, 80.0, 0]]}}}

Points are x, y in pixels of the original image, and 1 on the object or 0 on the background; with "prompt": "box" every object has a
"box": [x0, y0, x1, y1], which counts as its first prompt. An object may have fewer than `clicks` prompts: those who clicked it saw
nothing left to correct.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruac.data.folder import FolderSet, object_ids
from ruac.errors import one_line
from ruac.evaluate.conversation import Point, Word, box_word
from ruac.evaluate.protocol import LabelledImage, Protocol
from ruac.evaluate.results import Row
from ruac.features import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND
from ruac.writing import write_whole

FORMAT = "ruac-prompts-1"

Words = Mapping[int, tuple[Word, ...]]


@dataclass(frozen=True)
class ClickFile:
    """prompt: the kind of the first one; clicks: for how many an object was clicked, at most; images: by set and image the words by
    object; sha256: of the file."""

    path: Path
    prompt: Literal["point", "box"]
    clicks: int
    images: Mapping[tuple[str, str], Words]
    sha256: str

    @staticmethod
    def read(path: Path) -> ClickFile:
        """Raises ValueError naming file and line, FileNotFoundError when there is none."""
        if not path.is_file():
            raise FileNotFoundError(f"--prompts {path}: no such file; `ruac eval --save-prompts` writes one")
        content = path.read_bytes()
        try:
            header, *lines = [json.loads(line) for line in content.decode().splitlines() if line.strip()] or [None]
        except (ValueError, RecursionError) as error:
            raise ValueError(one_line(error, f"{path}: not lines of JSON")) from None
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError(f"{path}: no file of prompts; its first line must be {{'format': '{FORMAT}', ...}}")
        prompt, clicks = header.get("prompt"), header.get("clicks")
        if prompt not in ("point", "box") or not isinstance(clicks, int) or clicks < 1:
            raise ValueError(f"{path}: line 1: 'prompt' must be 'point' or 'box', and 'clicks' a number from 1")
        images: dict[tuple[str, str], Words] = {}
        for number, line in enumerate(lines, start=2):
            try:
                place = str(line["set"]), str(line["image"])
                words = {int(i): _words(entry, prompt) for i, entry in line["objects"].items()}
            except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
                raise ValueError(one_line(error, f"{path}: entry {number}: not the prompts of an image")) from None
            if place in images:
                raise ValueError(f"{path}: entry {number}: a second one for image '{place[1]}' of the set '{place[0]}'")
            images[place] = words
        return ClickFile(path, prompt, clicks, images, hashlib.sha256(content).hexdigest())

    def check(self, sets: Iterable[FolderSet], protocol: Protocol) -> None:
        """Raises ValueError unless the file holds what these sets and this protocol ask for."""
        if self.prompt != protocol.prompt:
            raise ValueError(f"{self.path}: its first prompts are of the kind '{self.prompt}': give --prompt {self.prompt}")
        if self.clicks < protocol.last:
            raise ValueError(
                f"{self.path}: holds {self.clicks} prompts an object, {protocol.last} are asked for; lower --clicks or --noc"
            )
        for part in sets:
            known = {sample.id for sample in part.samples}
            named = {image for name, image in self.images if name == part.name}
            if not named:
                raise ValueError(f"{self.path}: no prompts for the set '{part.name}'")
            if unknown := sorted(named - known):
                raise ValueError(f"{self.path}: the set '{part.name}' has no image '{unknown[0]}'")

    def words(self, name: str, labelled: LabelledImage) -> Words:
        """What to say about the objects of an image of that set. Raises ValueError unless it fits the image."""
        place = f"{self.path}: image '{labelled.id}' of the set '{name}'"
        words = self.images.get((name, labelled.id))
        if words is None:
            raise ValueError(f"{place}: no prompts; save them again from the same data")
        height, width = labelled.ids.shape
        present = object_ids(labelled.ids)
        for i, said in words.items():
            if i not in present:
                raise ValueError(f"{place}: there is no object {i}")
            for point in (point for word in said for point in word):
                # a box may end at the image's edge, a click is on a pixel
                beyond = int(point.label in (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT))
                if not (0 <= point.x < width + beyond and 0 <= point.y < height + beyond):
                    raise ValueError(f"{place}: object {i}: ({point.x:g}, {point.y:g}) is outside its {width} x {height} pixels")
        return words


def write_clicks(path: Path, protocol: Protocol, sets: Iterable[tuple[str, Sequence[Row]]]) -> None:
    """What was said in an evaluation, set by set. Raises ValueError when the folder is missing."""
    if not path.parent.is_dir():
        raise ValueError(f"--save-prompts {path}: the folder {path.parent} is not there")
    lines: list[dict[str, Any]] = [{"format": FORMAT, "prompt": protocol.prompt, "clicks": protocol.last}]
    for name, rows in sets:
        for row in rows:
            objects = {str(i): _entry(points) for i, points in zip(row.objects, row.prompts, strict=True)}
            lines.append({"set": name, "image": row.id, "objects": objects})
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def _entry(points: Sequence[Point]) -> dict[str, Any]:
    corners = [point for point in points if point.label in (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)]
    box = {"box": [float(value) for corner in corners for value in (corner.x, corner.y)]} if corners else {}
    clicks = [point for point in points if point.label in (BACKGROUND, FOREGROUND)]
    return {**box, "points": [[float(point.x), float(point.y), point.label] for point in clicks]}


def _words(entry: dict[str, Any], prompt: str) -> tuple[Word, ...]:
    """Raises ValueError, KeyError or TypeError for anything but the prompts of an object."""
    words: list[Word] = []
    if ("box" in entry) != (prompt == "box"):
        raise ValueError(f"an object {'without' if prompt == 'box' else 'with'} a box, although the first prompt is a {prompt}")
    if "box" in entry:
        x0, y0, x1, y1 = (float(value) for value in entry["box"])
        words.append(box_word((x0, y0, x1, y1)))
    for x, y, label in entry["points"]:
        if label not in (BACKGROUND, FOREGROUND):
            raise ValueError(f"a point's label is 1 (object) or 0 (background), not {label!r}")
        words.append((Point(float(x), float(y), int(label)),))
    if not words:
        raise ValueError("an object without a prompt")
    if not all(math.isfinite(value) for word in words for point in word for value in point):
        raise ValueError("a coordinate is not finite")
    return tuple(words)
