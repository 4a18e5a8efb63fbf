"""overlay.mp4: every frame under its mask and uncertainty, and below it the doubt over time, with a mark where the film is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ruac.overlay import FAINT, INK, PAPER, Marks, draw_overlay
from ruac.video.curve import ALARM, alarms
from ruac.video.frames import Frames, require_av
from ruac.video.results import OVERLAY, Record, Results
from ruac.video.run import doubts, progress

Picture = NDArray[np.uint8]

CURVE_HEIGHT = 120  # pixels
COLOURS = (
    (255, 190, 60),
    (90, 205, 255),
    (94, 235, 140),
    (240, 130, 220),
)  # of the objects' curves, again from the first after the last
ALARMED = (120, 40, 30)


def write_movie(frames: Frames, records: Sequence[Record], results: Results) -> None:
    """The picture of the whole track; appears whole or not at all. records: of all frames, in their order."""
    curves = {number: doubts(records, number) for number in records[0]["objects"]}
    strip: Picture | None = None
    temporary = results.out / f".{OVERLAY}.tmp"
    try:
        with encoder(temporary, frames.fps) as write, progress("drawing", len(records)) as advance:
            for record in records:
                ids, uncertainty = results.load_frame(record["frame"])
                words = _caption(record, len(records))
                above = draw_overlay(frames[record["frame"]], ids > 0, uncertainty, Marks(), words)
                strip = draw_curves(curves, above.shape[1]) if strip is None else strip
                write(np.vstack([above, _with_cursor(strip, record["frame"] / max(1, len(records) - 1))]))
                advance()
        temporary.replace(results.out / OVERLAY)
    finally:
        temporary.unlink(missing_ok=True)


def draw_curves(curves: Mapping[str, NDArray[np.float64]], width: int) -> Picture:
    """Doubt from 0 (below) to 1 (above) over time, drifts in red behind it: RGB [CURVE_HEIGHT, width, 3]."""
    strip = np.full((CURVE_HEIGHT, width, 3), PAPER, np.uint8)

    def place(frame: float, frames: int, doubt: float) -> tuple[int, int]:
        return round(frame / max(1, frames - 1) * (width - 1)), round((1 - doubt) * (CURVE_HEIGHT - 1))

    for doubt in curves.values():
        for first, last in alarms(doubt):
            cv2.rectangle(strip, place(first, len(doubt), 1), place(last, len(doubt), 0), ALARMED, -1)
    level = place(0, 2, ALARM)[1]
    cv2.line(strip, (0, level), (width - 1, level), FAINT, 1)
    for i, doubt in enumerate(curves.values()):
        points = np.array([place(frame, len(doubt), value) for frame, value in enumerate(doubt)], np.int32)
        cv2.polylines(strip, [points], False, COLOURS[i % len(COLOURS)], 2, cv2.LINE_AA)
    cv2.putText(strip, "doubt", (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
    return strip


def _with_cursor(strip: Picture, share: float) -> Picture:
    marked = strip.copy()
    x = round(share * (strip.shape[1] - 1))
    cv2.line(marked, (x, 0), (x, strip.shape[0] - 1), INK, 2)
    return marked


def _caption(record: Record, frames: int) -> str:
    expected = "  ".join(f"{1 - answer['doubt']:.2f}" for answer in record["objects"].values())
    return f"frame {record['frame']} of {frames}  ·  expected IoU {expected}"


@contextmanager
def encoder(path: Path, fps: float) -> Iterator[Any]:
    """A film of RGB pictures [height, width, 3], all of one size: what it gives takes them one by one."""
    av = require_av()
    # absolute, because FFmpeg takes what comes before a colon for the name of a protocol
    with av.open(str(path.absolute()), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        # one thread and a short look ahead: each holds frames
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        stream.options = {"crf": "23", "preset": "veryfast", "rc-lookahead": "10"}

        def write(picture: Picture) -> None:
            # its chroma is half as large
            even = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
            if not stream.codec_context.is_open:
                stream.height, stream.width = even.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

        yield write
        container.mux(stream.encode())
