"""What Label Studio's machine-learning backends answer: a click or a box on a task's picture becomes a mask to accept or correct."""

from __future__ import annotations

import base64
import binascii
import hashlib
import tempfile
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from ruac.data.image import ImageError, read_image
from ruac.data.labels import Size
from ruac.data.layout import inside
from ruac.exchange.label_studio import Shape, Tags, percent, region
from ruac.exchange.parsing import parse_xml, text_of
from ruac.exchange.pictures import first_in, names_in_address
from ruac.predictor import Predictor, Prompt

MAX_PIXELS = 50_000_000
CONTROLS: dict[str, Shape] = {"BrushLabels": "mask", "PolygonLabels": "polygon"}
INTERFACES = ("keypointlabels", "rectanglelabels")
TOLERANCE = 1.0  # pixels, so that a polygon has points that a person can move


@dataclass(frozen=True)
class Interface:
    """Of a labelling configuration. key: of a task's data, where the picture's address is; shape: of the regions that are drawn."""

    key: str
    tags: Tags
    shape: Shape


@dataclass(frozen=True)
class Words:
    """What a person has said about one object. label: the last that was chosen."""

    prompt: Prompt
    label: str


class Backend:
    """Answers one request at a time; the picture of the last one stays encoded, so that its next click costs a decoding only.

    images: the folder that all pictures are in: an address is looked up there by name, and never fetched.
    """

    def __init__(self, predictor: Predictor, images: Path, model_version: str):
        self.model_version = model_version
        self._predictor = predictor
        self._images = images
        self._encoded: Hashable = None
        self._next: Hashable = None
        self._size: Size = 0, 0

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to POST /predict: none before the first click. Raises ValueError for what makes no sense."""
        context = (_object(request.get("params")).get("context")) or {}
        results = _object(context).get("result")
        if not results:
            return {"results": []}
        interface = read_interface(request.get("label_config"))
        tasks = request.get("tasks")
        if not isinstance(tasks, list) or len(tasks) != 1:
            raise ValueError("a click belongs to one task; 'tasks' must be a list of it")
        address = _object(_object(tasks[0]).get("data")).get(interface.key)
        if not isinstance(address, str):
            raise ValueError(f"the task's data has no address of a picture at {interface.key!r}")
        self._encode(address)
        words = read_words(results, self._size)
        told = words.prompt
        prediction = self._predictor.predict(told.point_coords, told.point_labels, told.box)
        mask, score = prediction.masks[0], float(prediction.expected_iou[0])
        tolerance = TOLERANCE if interface.shape == "polygon" else 0.0
        regions = []
        if mask.any():
            regions = [region(uuid4().hex[:10], mask, words.label, score, interface.tags, interface.shape, tolerance)]
        return {"results": [{"model_version": self.model_version, "score": score, "result": regions}]}

    def _encode(self, address: str) -> None:
        """Raises ImageError, or ValueError for a picture that is not in the folder."""
        if address.startswith("data:"):
            content = _inline(address)
            if self._is_new(hashlib.sha256(content).digest()):
                with tempfile.TemporaryDirectory() as folder:
                    file = Path(folder) / "inline picture"
                    file.write_bytes(content)
                    try:
                        self._show(read_image(file, MAX_PIXELS))
                    except ImageError as error:
                        raise ImageError(str(error).replace(str(file), file.name)) from None
            return
        names = names_in_address(address)
        name = first_in(self._images, names)
        if name is None:
            raise ValueError(
                f"no picture {names[0][:200]!r} in {self._images}; start with --images where Label Studio's pictures are"
            )
        path = inside(self._images, name)
        state = path.stat()
        if self._is_new((path, state.st_mtime_ns, state.st_size)):
            self._show(read_image(path, MAX_PIXELS))

    def _is_new(self, picture: Hashable) -> bool:
        """And notes that it is the one to come; after an error the next request must not find it."""
        if picture == self._encoded:
            return False
        self._encoded, self._next = None, picture
        return True

    def _show(self, pixels: NDArray[np.uint8]) -> None:
        self._predictor.set_image(pixels)
        self._size = pixels.shape[0], pixels.shape[1]
        self._encoded = self._next


def read_interface(config: Any) -> Interface:
    """The picture of a labelling configuration and what masks are drawn with on it: brush rather than polygon.

    Raises ValueError when it is none or lacks either.
    """
    if not isinstance(config, str):
        raise ValueError("no label_config")
    try:
        root = parse_xml(config.encode())
    except ValueError as error:
        raise ValueError(f"label_config: {error}") from None
    picture = next(root.iter("Image"), None)
    if picture is None or not picture.get("value", "").startswith("$"):
        raise ValueError('label_config: no <Image name="image" value="$image"/>')
    name = text_of(picture.get("name"), "label_config: name of the Image")
    for tag, shape in CONTROLS.items():
        for control in root.iter(tag):
            if control.get("toName") == name:
                tags = Tags(text_of(control.get("name"), f"label_config: name of the {tag}"), name)
                return Interface(picture.get("value", "")[1:], tags, shape)
    raise ValueError(f"label_config: neither {' nor '.join(CONTROLS)} for the Image {name!r}, to draw masks with")


def read_words(results: Any, size: Size) -> Words:
    """The clicks and the last box of a context, in pixels. Raises ValueError when there is none, or one that is not on the picture."""
    if not isinstance(results, list):
        raise ValueError("context: 'result' must be a list")
    height, width = size
    points, labels, box, label = [], [], None, None
    for result in map(_object, results):
        kind, value = result.get("type"), _object(result.get("value"))
        if kind not in INTERFACES:
            continue
        chosen = value.get(kind) or value.get("labels")
        label = text_of(chosen[0] if isinstance(chosen, list) else None, kind)
        if kind == "keypointlabels":
            x, y = percent(value, ("x", "y"))
            # 100 % is the far edge, of which the last pixel is this side
            points.append((min(max(x, 0) * width / 100, width - 1), min(max(y, 0) * height / 100, height - 1)))
            labels.append(1 if result.get("is_positive", 1) else 0)
            continue
        if value.get("rotation"):
            raise ValueError("context: a rectangle that is turned; draw one that is not")
        x, y, w, h = percent(value, ("x", "y", "width", "height"))
        left, top = x * width / 100, y * height / 100
        box = left, top, min(left + w * width / 100, width), min(top + h * height / 100, height)
    if label is None:
        raise ValueError(f"context: neither a click nor a box ({', '.join(INTERFACES)})")
    return Words(Prompt(points or None, labels or None, box), label)


def _inline(address: str) -> bytes:
    head, _, body = address.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a picture in a data: address that is not base64") from None


def _object(value: Any) -> dict[str, Any]:
    """Raises ValueError unless it is a JSON object or missing."""
    if not isinstance(value or {}, dict):
        raise ValueError(f"expected an object, got {str(value)[:60]}")
    return value or {}
