"""What is left on disk of a prediction: <name>.mask.png, <name>.uncertainty.png, <name>.overlay.png and <name>.json.

With a calibration there are <name>.inner.png and <name>.outer.png, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ruac.calibrate.bounds import Bounds
from ruac.data.labels import encode
from ruac.overlay import Around, Marks, draw_overlay
from ruac.predictor import Prediction, Predictor, Prompt
from ruac.regions import band_around
from ruac.writing import require_own, write_whole

SUFFIXES = (".mask.png", ".uncertainty.png", ".overlay.png", ".json")
BOUND_SUFFIXES = (".inner.png", ".outer.png")
UNCERTAINTY_SCALE = 65535  # of a 16-bit pixel: 1 bit


@dataclass(frozen=True)
class Origin:
    """What made a prediction. image: the file as the user named it; model: its name; model_sha256: of its weights."""

    image: str
    model: str
    model_sha256: str


def output_names(images: Sequence[Path]) -> list[str]:
    """A name for each image's results: its stem, and where several have the same, stem_2, stem_3 and so on in their order.

    Letter case does not tell names apart, as some file systems do not.
    """
    taken: set[str] = set()
    # the plain stems first: an image called a_2 keeps its name whatever comes before it
    stems = {image.stem.casefold() for image in images}
    names = []
    for image in images:
        name, count = image.stem, 1
        while name.casefold() in taken or (count > 1 and name.casefold() in stems):
            count += 1
            name = f"{image.stem}_{count}"
        taken.add(name.casefold())
        names.append(name)
    return names


def save(
    folder: Path,
    name: str,
    image: NDArray[np.uint8],
    prompt: Prompt,
    prediction: Prediction,
    origin: Origin,
    bounds: Bounds | None = None,
) -> dict[str, Path]:
    """Write the files of one object; each appears whole or not at all. Returns them by SUFFIXES, and BOUND_SUFFIXES if there
    are bounds.

    Raises ValueError when the name would lead out of the folder, OSError when the disk is full or not writable.
    """
    paths = {suffix: folder / f"{name}{suffix}" for suffix in (*(BOUND_SUFFIXES if bounds else ()), *SUFFIXES)}
    for path in paths.values():
        require_own(path, folder)
    contents = render(image, prompt, prediction, origin, bounds)
    for suffix, path in paths.items():
        write_whole(path, contents[suffix])
    return paths


def render(
    image: NDArray[np.uint8], prompt: Prompt, prediction: Prediction, origin: Origin, bounds: Bounds | None = None
) -> dict[str, bytes]:
    """The contents of the files that `save` writes, by suffix."""
    mask, uncertainty = prediction.masks[0], prediction.uncertainty[0]
    summary = describe(prompt, prediction, origin)
    click = summary["next_click"]
    marks = Marks(points_of(prompt), box_of(prompt), (click["x"], click["y"]))
    around = None
    contents: dict[str, bytes] = {}
    if bounds is not None:
        summary["guarantee"] = bounds.promise
        around = Around(bounds.inner, bounds.outer, bounds.inner_words, bounds.outer_words)
        pair = zip(BOUND_SUFFIXES, (bounds.inner, bounds.outer), strict=True)
        contents |= {suffix: _png(edge.astype(np.uint8) * 255) for suffix, edge in pair}
    overlay = draw_overlay(image, mask, uncertainty, marks, _caption(summary), around)
    return contents | {
        ".mask.png": _png(mask.astype(np.uint8) * 255),
        ".uncertainty.png": _png(encode_uncertainty(uncertainty)),
        ".overlay.png": _png(overlay[..., ::-1]),
        ".json": (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode(),
    }


def describe(prompt: Prompt, prediction: Prediction, origin: Origin) -> dict[str, Any]:
    """The contents of <name>.json."""
    mask, uncertainty = prediction.masks[0], prediction.uncertainty[0]
    band = band_around(mask, mask)
    click = Predictor.next_click(prediction)
    rle = encode(mask)
    return {
        "image": origin.image,
        "width": mask.shape[1],
        "height": mask.shape[0],
        "prompt": {"points": [list(point) for point in points_of(prompt)], "box": box_of(prompt)},
        "score": prediction.score,
        "expected_iou": float(prediction.expected_iou[0]),
        "object_score": prediction.object_score,
        "area": int(mask.sum()),
        "mean_uncertainty": {
            "image": _mean(uncertainty),
            "band": _mean(uncertainty[band]) if band.any() else None,
        },
        "next_click": {"x": click.x, "y": click.y, "label": click.label},
        "rle": {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")},
        "model": origin.model,
        "model_sha256": origin.model_sha256,
        "ruac": version("ruac"),
    }


def encode_uncertainty(uncertainty: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bits as 16-bit numbers, 65535 = 1 bit."""
    return (uncertainty * UNCERTAINTY_SCALE).round().clip(0, UNCERTAINTY_SCALE).astype(np.uint16)


def points_of(prompt: Prompt) -> list[tuple[float, float, int]]:
    """(x, y, label) of a prompt's points."""
    if prompt.point_coords is None:
        return []
    coords = np.asarray(prompt.point_coords, dtype=np.float64)
    labels = np.ones(len(coords)) if prompt.point_labels is None else np.asarray(prompt.point_labels)
    return [(float(x), float(y), int(label)) for (x, y), label in zip(coords, labels, strict=True)]


def box_of(prompt: Prompt) -> tuple[float, float, float, float] | None:
    if prompt.box is None:
        return None
    x0, y0, x1, y1 = (float(v) for v in np.asarray(prompt.box, dtype=np.float64))
    return x0, y0, x1, y1


def _caption(summary: dict[str, Any]) -> str:
    uncertainty = summary["mean_uncertainty"]["image"]
    return (
        f"predicted IoU {summary['score']:.2f}  ·  expected IoU {summary['expected_iou']:.2f}  ·  "
        f"uncertainty {uncertainty:.3f} bit on average"
    )


def _mean(values: NDArray[np.float32]) -> float:
    return float(values.mean(dtype=np.float64))


def _png(pixels: NDArray) -> bytes:
    """Grey or BGR pixels, 8 or 16 bits."""
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"cannot encode {pixels.dtype} {pixels.shape} as PNG")
    return data.tobytes()
