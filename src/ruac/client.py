"""A client for `ruac serve`: numpy in and out, and patience with a server that is busy or being restarted.

    client = Client("http://127.0.0.1:8000")
    photo = client.upload("photo.jpg")
    answer = client.predict(photo.id, point_coords=[[320, 240]], uncertainty="png16")
    answer.masks[0], answer.uncertainty[0]  # [height, width]: bool, and bits

Needs neither torch nor a model.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ruac.data.labels import decode
from ruac.errors import one_line

Uncertainty = Literal["none", "png16", "bands"]
AGAIN = (429, 503)  # statuses of a server that asks to come again
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds, where the server does not say how long


class ServerError(RuntimeError):
    """A request that failed, in a line. status: of the answer, None when there was none."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Uploaded:
    """id: of the image, the same for the same file; kept_s: seconds after its last use that the server keeps it."""

    id: str
    width: int
    height: int
    kept_s: float


@dataclass(frozen=True)
class Health:
    """model_sha256: of its weights; calibrated: whether answers have bounds; ruac: the server's version."""

    model: str
    model_sha256: str
    calibrated: bool
    ruac: str


@dataclass(frozen=True)
class Click:
    """Where a click is expected to help most. label: 1 to add, 0 to take away."""

    x: int
    y: int
    label: int


@dataclass(frozen=True, eq=False)
class Bounds:
    """inner, outer: bool [height, width], the two masks of a calibration; holds: whether the promise is for prompts of that kind."""

    inner: NDArray[np.bool_]
    outer: NDArray[np.bool_]
    alpha: float
    holds: bool
    words: str


@dataclass(frozen=True, eq=False)
class Answer:
    """M candidate masks of one object, the best first; what was not asked for is None.

    masks: bool [M, height, width]; iou, expected_iou: [M], the decoder's guess and what the pixels' probabilities expect; uncertainty:
    [M, height, width] in bits, of "png16"; bands: of "bands", for each level in bits where it is reached, bool [M, height, width];
    low_res_logits: [M, h, w], one of them the mask_input of a next prompt.
    """

    masks: NDArray[np.bool_]
    iou: NDArray[np.float32]
    expected_iou: NDArray[np.float32]
    next_clicks: tuple[Click, ...]
    object_score: float | None = None
    uncertainty: NDArray[np.float32] | None = None
    bands: Mapping[float, NDArray[np.bool_]] | None = None
    low_res_logits: NDArray[np.float32] | None = None
    bounds: Bounds | None = None


class Client:
    """token: where the server asks for one; timeout: seconds for one try; patience: seconds in which a request is tried again while
    the server is busy, is being restarted or cannot be reached. To try again is safe: the same request has the same answer.

    One client may be used by several threads. Raises ServerError for whatever goes wrong.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", token: str | None = None, timeout: float = 90, patience: float = 60):
        import httpx

        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self._patience = patience

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def health(self) -> Health:
        """Of the server, if it takes new work."""
        found = self._ask("GET", "/health")
        return Health(found["model"], found["model_sha256"], found["calibrated"], found["ruac"])

    def upload(self, image: str | Path | bytes | NDArray[np.uint8]) -> Uploaded:
        """A file, its bytes, or RGB pixels [height, width, 3]."""
        content = (
            _png(image) if isinstance(image, np.ndarray) else image if isinstance(image, bytes) else Path(image).read_bytes()
        )
        found = self._ask("POST", "/images", content=content, headers={"Content-Type": "application/octet-stream"})
        return Uploaded(found["id"], found["width"], found["height"], found["kept_s"])

    def predict(
        self,
        image: str,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = False,
        uncertainty: Uncertainty = "none",
        levels: Sequence[float] | None = None,
        low_res_logits: bool = False,
    ) -> Answer:
        """One object of an uploaded image, by its id; the arguments are those of `ruac.Predictor`."""
        told = prompt(point_coords, point_labels, box, mask_input)
        return self.predict_many(image, [told], multimask_output, uncertainty, levels, low_res_logits)[0]

    def predict_many(
        self,
        image: str,
        prompts: Sequence[Mapping[str, Any]],
        multimask_output: bool = False,
        uncertainty: Uncertainty = "none",
        levels: Sequence[float] | None = None,
        low_res_logits: bool = False,
    ) -> list[Answer]:
        """Several objects at once, what is said about each made by `prompt`."""
        asked = {"prompts": list(prompts), "multimask_output": multimask_output, "low_res_logits": low_res_logits}
        found = self._ask("POST", f"/images/{image}/predict", json=asked | _doubt(uncertainty, levels))
        return [_answer(entry["masks"], entry["object_score"], entry["bounds"]) for entry in found["predictions"]]

    def everything(
        self,
        image: str,
        grid: int = 16,
        least: float = 0.7,
        overlap: float = 0.7,
        parts: bool = True,
        uncertainty: Uncertainty = "none",
        levels: Sequence[float] | None = None,
    ) -> list[Answer]:
        """All objects that a grid of clicks finds, of one mask each; the highest expected IoU first. See `ruac.everything.Search`."""
        asked = {"grid": grid, "least": least, "overlap": overlap, "parts": parts}
        found = self._ask("POST", f"/images/{image}/everything", json=asked | _doubt(uncertainty, levels))
        return [_answer([entry]) for entry in found["objects"]]

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        """The JSON of the answer."""
        import httpx

        end, pause = time.monotonic() + self._patience, FIRST_PAUSE
        while True:
            try:
                response = self._http.request(method, path, **content)
            except httpx.TransportError as error:
                failure, wait = ServerError(f"{self._http.base_url}: {one_line(error)}; is the server running?"), None
            else:
                if response.is_success:
                    return response.json()
                failure = ServerError(f"{method} {path}: {response.status_code}, {_detail(response)}", response.status_code)
                if response.status_code not in AGAIN:
                    raise failure
                wait = _seconds(response.headers.get("Retry-After"))
            # not all at the same moment, where many were turned away
            wait = random.uniform(0.5, 1) * pause if wait is None else wait + random.uniform(0, 0.5)
            if time.monotonic() + wait > end:
                raise failure
            time.sleep(wait)
            pause = min(LONGEST_PAUSE, 2 * pause)


def prompt(
    point_coords: ArrayLike | None = None,
    point_labels: ArrayLike | None = None,
    box: ArrayLike | None = None,
    mask_input: ArrayLike | None = None,
) -> dict[str, Any]:
    """What is said about one object, as `Client.predict_many` sends it; mask_input: [h, w] low_res_logits of an earlier answer."""
    told: dict[str, Any] = {
        "point_coords": None if point_coords is None else np.asarray(point_coords, np.float64).tolist(),
        "point_labels": None if point_labels is None else np.asarray(point_labels).tolist(),
        "box": None if box is None else np.asarray(box, np.float64).tolist(),
    }
    if mask_input is not None:
        told["mask_input"] = base64.b64encode(np.asarray(mask_input, "<f2").tobytes()).decode("ascii")
    return {name: value for name, value in told.items() if value is not None}


def _doubt(uncertainty: Uncertainty, levels: Sequence[float] | None) -> dict[str, Any]:
    return {"uncertainty": uncertainty} | ({} if levels is None else {"levels": list(levels)})


def _answer(masks: Sequence[Any], object_score: float | None = None, bounds: Any = None) -> Answer:
    doubts = [mask["uncertainty"] or {} for mask in masks]
    logits = [mask["low_res_logits"] for mask in masks]
    return Answer(
        masks=np.stack([decode(mask["rle"]) for mask in masks]),
        iou=np.array([mask["score"] for mask in masks], np.float32),
        expected_iou=np.array([mask["expected_iou"] for mask in masks], np.float32),
        next_clicks=tuple(Click(**mask["next_click"]) for mask in masks),
        object_score=object_score,
        uncertainty=np.stack([_bits(doubt["png16"]) for doubt in doubts]) if doubts[0].get("png16") else None,
        bands=_bands([doubt["bands"] for doubt in doubts]) if doubts[0].get("bands") else None,
        low_res_logits=np.stack([_logits(text) for text in logits]) if logits[0] else None,
        bounds=bounds
        and Bounds(decode(bounds["inner"]), decode(bounds["outer"]), bounds["alpha"], bounds["holds"], bounds["words"]),
    )


def _bands(masks: Sequence[Sequence[Any]]) -> dict[float, NDArray[np.bool_]]:
    return {band["at_least"]: np.stack([decode(bands[i]["rle"]) for bands in masks]) for i, band in enumerate(masks[0])}


def _bits(text: str) -> NDArray[np.float32]:
    """[height, width]"""
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)
    return np.asarray(pixels, np.float32) / np.float32(np.iinfo(np.uint16).max)


def _logits(text: str) -> NDArray[np.float32]:
    """[h, w], a square."""
    values = np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32)
    side = round(len(values) ** 0.5)
    return values.reshape(side, side)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes()


def _detail(response: Any) -> str:
    """What the server, or a proxy before it, says is wrong."""
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return " ".join(response.text[:200].split()) or response.reason_phrase


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
