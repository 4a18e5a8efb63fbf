"""A client for `ruac serve`: numpy in and out, and patience with a server that is busy or being restarted.

    client = Client("http://127.0.0.1:8000")
    photo = client.upload("photo.jpg")
    answer = client.predict(photo.id, point_coords=[[320, 240]], uncertainty="png16")
    answer.masks[0], answer.uncertainty[0]  # [height, width]: bool, and bits

Needs neither torch nor a model.
"""

from __future__ import annotations

import base64
import json
import random
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ruac.data.labels import decode
from ruac.errors import one_line

T = TypeVar("T")
Uncertainty = Literal["none", "png16", "bands"]
# busy, and what a server that is being restarted says, or a proxy before it; not 504: the same work would take as long again
AGAIN = (429, 502, 503)
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds, where the server does not say how long


class ServerError(RuntimeError):
    """A request that failed or could not be made, in a line. status: of the answer, None when there was none."""

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

    What will not be better next time is not tried again: an address that is none, a name that nobody has, work that took too long.
    One client may be used by several threads. Raises ServerError for whatever goes wrong.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", token: str | None = None, timeout: float = 150, patience: float = 60):
        import httpx

        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError) as error:
            raise ServerError(f"{url!r}: {one_line(error)}; give an address like http://127.0.0.1:8000") from None
        if parsed.scheme not in ("http", "https") or not parsed.host or not 0 < (parsed.port or 80) < 65536:
            raise ServerError(f"{url!r}: no address of a server; give one like http://127.0.0.1:8000")
        headers = {} if token is None else {b"Authorization": f"Bearer {token.strip()}".encode()}
        self._http = httpx.Client(base_url=parsed, headers=headers, timeout=timeout)
        self._patience = patience

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def health(self) -> Health:
        """Of the server, if it takes new work."""
        return self._ask(
            "GET", "/health", lambda found: Health(found["model"], found["model_sha256"], found["calibrated"], found["ruac"])
        )

    def upload(self, image: str | Path | bytes | NDArray[np.uint8]) -> Uploaded:
        """A file, its bytes, or RGB pixels [height, width, 3]."""
        name = ""
        if isinstance(image, np.ndarray):
            content = _png(image)
        elif isinstance(image, bytes):
            content = image
        else:
            content, name = _content(image), str(image)
        return self._ask(
            "POST",
            "/images",
            lambda found: Uploaded(found["id"], found["width"], found["height"], found["kept_s"]),
            content,
            "application/octet-stream",
            name,
        )

    def predict(
        self,
        image: str | Uploaded,
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
        image: str | Uploaded,
        prompts: Sequence[Mapping[str, Any]],
        multimask_output: bool = False,
        uncertainty: Uncertainty = "none",
        levels: Sequence[float] | None = None,
        low_res_logits: bool = False,
    ) -> list[Answer]:
        """Several objects at once, what is said about each made by `prompt`."""
        asked = {"prompts": list(prompts), "multimask_output": multimask_output, "low_res_logits": low_res_logits}
        return self._ask(
            "POST",
            f"/images/{_id(image)}/predict",
            lambda found: [_answer(entry["masks"], entry["object_score"], entry["bounds"]) for entry in found["predictions"]],
            _json(asked | _doubt(uncertainty, levels)),
        )

    def everything(
        self,
        image: str | Uploaded,
        grid: int = 16,
        least: float = 0.7,
        overlap: float = 0.7,
        parts: bool = True,
        uncertainty: Uncertainty = "none",
        levels: Sequence[float] | None = None,
    ) -> list[Answer]:
        """All objects that a grid of clicks finds, of one mask each; the highest expected IoU first. See `ruac.everything.Search`."""
        asked = {"grid": grid, "least": least, "overlap": overlap, "parts": parts}
        return self._ask(
            "POST",
            f"/images/{_id(image)}/everything",
            lambda found: [_answer([entry]) for entry in found["objects"]],
            _json(asked | _doubt(uncertainty, levels)),
        )

    def _ask(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T],
        content: bytes | None = None,
        kind: str = "application/json",
        name: str = "",
    ) -> T:
        """What is read from the JSON of the answer. content: of that kind, of the file of that name."""
        end, pause, name = time.monotonic() + self._patience, FIRST_PAUSE, name or f"{method} {path}"
        while True:
            response = self._try(method, path, content, kind)
            if isinstance(response, ServerError):
                failure, wait = response, None
            elif response.is_success:
                return _read(response, read)
            else:
                failure = ServerError(f"{name}: {response.status_code}, {_detail(response)}", response.status_code)
                if response.status_code not in AGAIN:
                    raise failure
                wait = _seconds(response.headers.get("Retry-After"))
            # not all at the same moment, where many were turned away
            wait = random.uniform(0.5, 1) * pause if wait is None else wait + random.uniform(0, 0.5)
            if time.monotonic() + wait > end:
                raise failure
            time.sleep(wait)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _try(self, method: str, path: str, content: bytes | None, kind: str) -> Any:
        """The response, or the error when there is none but may be next time. Raises that which will be the same next time."""
        import httpx

        headers = {} if content is None else {"Content-Type": kind}
        try:
            return self._http.request(method, path, content=content, headers=headers)
        except (httpx.RequestError, httpx.InvalidURL, UnicodeError) as error:
            lasts = not isinstance(error, httpx.TransportError) or _lasts(error)
            words = "is the address right?" if lasts else "is the server running?"
            failure = ServerError(f"{self._http.base_url}: {one_line(error)}; {words}")
            if lasts:
                raise failure from None
            return failure


def prompt(
    point_coords: ArrayLike | None = None,
    point_labels: ArrayLike | None = None,
    box: ArrayLike | None = None,
    mask_input: ArrayLike | None = None,
) -> dict[str, Any]:
    """What is said about one object, as `Client.predict_many` sends it; mask_input: [h, w] low_res_logits of an earlier answer.

    Raises ServerError for what are no numbers.
    """
    told: dict[str, Any] = {
        "point_coords": None if point_coords is None else _numbers("point_coords", point_coords, "f8").tolist(),
        "point_labels": None if point_labels is None else _numbers("point_labels", point_labels).tolist(),
        "box": None if box is None else _numbers("box", box, "f8").tolist(),
    }
    if mask_input is not None:
        told["mask_input"] = base64.b64encode(_numbers("mask_input", mask_input, "<f2").tobytes()).decode("ascii")
    return {name: value for name, value in told.items() if value is not None}


def _id(image: str | Uploaded) -> str:
    """Of an upload, by itself or in what `Client.upload` returned, as a part of an address."""
    return quote(image.id if isinstance(image, Uploaded) else image, safe="")


def _doubt(uncertainty: Uncertainty, levels: Sequence[float] | None) -> dict[str, Any]:
    return {"uncertainty": uncertainty} | ({} if levels is None else {"levels": _numbers("levels", levels, "f8").tolist()})


def _numbers(name: str, values: ArrayLike, kind: str | None = None) -> NDArray[Any]:
    """Raises ServerError unless they are finite."""
    try:
        array = np.asarray(values, kind)
        if np.isfinite(array).all():
            return array
        problem = "NaN or infinite"
    except (ValueError, TypeError) as error:
        problem = one_line(error)
    raise ServerError(f"{name}: {problem}; give finite numbers, as to ruac.Predictor")


def _json(asked: dict[str, Any]) -> bytes:
    try:
        return json.dumps(asked, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise ServerError(f"the request: {one_line(error)}; give plain finite numbers") from None


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
    if pixels is None:
        raise ValueError("png16 is no PNG")
    return np.asarray(pixels, np.float32) / np.float32(np.iinfo(np.uint16).max)


def _logits(text: str) -> NDArray[np.float32]:
    """[h, w], a square."""
    values = np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32)
    side = round(len(values) ** 0.5)
    return values.reshape(side, side)


def _content(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else None
        raise ServerError(f"{path}: {words or one_line(error)}; name the file of an image") from None


def _png(pixels: NDArray[np.uint8]) -> bytes:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ServerError(f"the pixels: {pixels.dtype} {list(pixels.shape)}; give uint8, RGB [height, width, 3]")
    return cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes()


def _read(response: Any, read: Callable[[Any], T]) -> T:
    """Raises ServerError for an answer that `ruac serve` would not give."""
    try:
        return read(response.json())
    except (ValueError, LookupError, TypeError, AttributeError):
        start = " ".join(response.text[:80].split())
        raise ServerError(
            f"{response.url}: {response.status_code}, but not the answer of ruac serve: {start!r}; is it the server's address?",
            response.status_code,
        ) from None


def _detail(response: Any) -> str:
    """What the server, or a proxy before it, says is wrong."""
    try:
        return " ".join(str(response.json()["detail"]).split())
    except (ValueError, LookupError, TypeError):
        return " ".join(response.text[:200].split()) or response.reason_phrase


def _lasts(error: BaseException) -> bool:
    """Whether it lies with the request or the address, not with the moment."""
    import httpx

    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError, ssl.SSLError)):
        return True
    if isinstance(error, socket.gaierror):
        return error.errno != socket.EAI_AGAIN
    cause = error.__cause__ or error.__context__
    return cause is not None and _lasts(cause)


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
