"""From an answer to what the page shows of it: layers as small indexed PNGs, outlines as SVG paths, and words."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ruac.app.conversation import Conversation
from ruac.app.legend import rows, summary
from ruac.calibrate.bounds import Bounds
from ruac.data.labels import Size
from ruac.overlay import BLUE, COLOUR_MAP, ORANGE, Colour
from ruac.predictor import WORTH_A_LOOK
from ruac.regions import Mask, fewest

LONG_SIDE = 1024  # pixels of what is shown; the results have all
JPEG_QUALITY = 90
PROBABILITY_MAP = cv2.COLORMAP_CIVIDIS  # for colour-blind eyes as well, and unlike the map of the uncertainty

Palette = Sequence[tuple[int, int, int, int]]  # red, green, blue, alpha by index


def shown_size(size: Size) -> Size:
    """Of a picture (height, width) on the page."""
    scale = min(1.0, LONG_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def picture(conversation: Conversation) -> dict[str, Any]:
    """Sent once."""
    height, width = conversation.image.shape[:2]
    rows, columns = shown_size((height, width))
    small = conversation.image
    if (rows, columns) != (height, width):
        small = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return {"name": conversation.name, "width": width, "height": height, "url": data_url("image/jpeg", data.tobytes())}


def answer(conversation: Conversation) -> dict[str, Any] | None:
    """Sent after every word; None where nothing has been said."""
    if conversation.answer is None:
        return None
    height, width = conversation.image.shape[:2]
    prediction, around = conversation.shown(shown_size((height, width)))
    mask, uncertainty, error = prediction.masks[0], prediction.uncertainty[0], prediction.expected_error[0]
    click, told = conversation.suggestion(), conversation.told
    scale = width / mask.shape[1], height / mask.shape[0]
    edges = {"mask": mask} if around is None else {"mask": mask, "outer": around.outer, "inner": around.inner}
    band = fewest(error, WORTH_A_LOOK) if around is None else around.outer & ~around.inner
    return {
        "layers": {
            "mask": layer(mask.astype(np.uint8), flat(BLUE)),
            "uncertainty": layer(_levels(uncertainty), UNCERTAINTY_COLOURS),
            "probability": layer(_levels(prediction.probability[0]), PROBABILITY_COLOURS),
            "band": layer(band.astype(np.uint8), flat(ORANGE)),
        },
        "outlines": {name: path(edge, scale) for name, edge in edges.items()},
        "points": [list(point) for point in told.points],
        "box": told.box,
        "suggestion": {"x": click.x, "y": click.y, "label": click.label},
        "candidates": [_judged(conversation, i) for i in range(len(conversation.answer.candidates))],
        "chosen": conversation.answer.chosen,
        "summary": summary(error, mask),
        "legend": [{**vars(row), "colour": _over_grey(row.uncertainty)} for row in rows(error, uncertainty)],
        "promise": _promise(conversation, around),
        "bounds": None if around is None else [around.outer_words, around.inner_words],
    }


def _promise(conversation: Conversation, around: Bounds | None) -> str | None:
    """What holds for the masks around; where nothing does, no number is named that could be taken for it."""
    guarantee = conversation.loaded.guarantee
    if around is None or guarantee is None:
        return None
    if around.promise["holds"]:
        return guarantee.words
    asked = guarantee.calibration.policy.words
    return f"Nothing is promised for these two masks: the calibration is for {asked}, and this object was prompted otherwise."


def _judged(conversation: Conversation, candidate: int) -> dict[str, float]:
    """What is known of a candidate; area: as a share of the picture."""
    size = shown_size((conversation.image.shape[0], conversation.image.shape[1]))
    prediction, _ = conversation.shown(size, candidate)
    return {
        "score": prediction.score,
        "expected_iou": float(prediction.expected_iou[0]),
        "area": float(prediction.masks[0].mean()),
    }


def layer(indices: NDArray[np.uint8], palette: Palette) -> str:
    """A PNG [height, width] of colours by index, as an address; small, and quick to make."""
    image = Image.fromarray(indices)
    image.putpalette([channel for colour in palette for channel in colour[:3]])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, transparency=bytes(colour[3] for colour in palette))
    return data_url("image/png", buffer.getvalue())


def path(mask: Mask, scale: tuple[float, float]) -> str:
    """Its outlines as an SVG path; scale: pixels of the picture per pixel of the mask, right and down."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    pieces = []
    for contour in contours:
        places = (contour[:, 0] + 0.5) * scale
        pieces.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places.tolist()) + "Z")
    return "".join(pieces)


def flat(colour: Colour) -> Palette:
    """For a mask: nothing, or that colour."""
    return ((0, 0, 0, 0), (*colour, 255))


def _map(colours: int, alpha: NDArray[np.uint8]) -> Palette:
    rgb = cv2.applyColorMap(np.arange(256, dtype=np.uint8), colours).reshape(256, 3)[:, ::-1]
    return [(int(r), int(g), int(b), int(a)) for (r, g, b), a in zip(rgb, alpha, strict=True)]


def _levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (values * 255).round().clip(0, 255).astype(np.uint8)


# denser the less certain, so that the picture stays in sight where there is no doubt
UNCERTAINTY_COLOURS = _map(COLOUR_MAP, np.arange(256, dtype=np.uint8))
PROBABILITY_COLOURS = _map(PROBABILITY_MAP, np.full(256, 255, np.uint8))


def css(colour: Sequence[int]) -> str:
    """Red, green, blue and, perhaps, alpha as a style sheet has them."""
    alpha = f" / {colour[3] / 255:.3f}" if len(colour) > 3 else ""
    return f"rgb({colour[0]} {colour[1]} {colour[2]}{alpha})"


def _over_grey(uncertainty: float) -> str:
    """The colour that a doubt of so many bits has there."""
    red, green, blue, alpha = UNCERTAINTY_COLOURS[round(255 * min(1.0, uncertainty))]
    return css([round(128 + (value - 128) * alpha / 255) for value in (red, green, blue)])


def data_url(kind: str, content: bytes) -> str:
    """Of a file that is part of the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
