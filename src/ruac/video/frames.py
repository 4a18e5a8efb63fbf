"""The frames of a video, one at a time and by number: of a film (read with PyAV), of a folder of pictures, of an array.

Nothing is read ahead, and only what the way back in a compressed film needs is kept.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ruac.data.folder import IMAGE_SUFFIXES
from ruac.data.image import MAX_PIXELS, read_image
from ruac.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

Picture = NDArray[np.uint8]

FOLDER_FPS = 24.0  # of pictures in a folder, which do not say
KEPT_BYTES = 2**25  # of decoded frames, on the way back through a film


class Frames(Protocol):
    """size: (height, width) of every frame."""

    size: tuple[int, int]
    fps: float

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int) -> Picture:
        """RGB [height, width, 3]. Raises IndexError, and ValueError for one that cannot be read."""
        ...


def open_frames(source: Source) -> Clip | Stills | Film:
    """Frames of a film, of a folder of pictures in the order of their names' numbers, or of arrays [frames, height, width, 3].

    What is open already stays as it is.

    Raises FileNotFoundError, ValueError for what is no video, and where PyAV is not installed.
    """
    if isinstance(source, Clip | Stills | Film):
        return source
    if not isinstance(source, str | Path):
        return Clip(source)
    path = Path(source)
    if path.is_dir():
        return Stills(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video: expected a file, or a folder of frames")
    return Film(path)


class Clip:
    """Frames that are in memory."""

    fps = FOLDER_FPS

    def __init__(self, pictures: NDArray[np.uint8] | Sequence[Picture]):
        shapes = {np.shape(picture) for picture in pictures}
        shape = next(iter(shapes), ())
        if len(shapes) != 1 or len(shape) != 3 or shape[2] != 3 or any(picture.dtype != np.uint8 for picture in pictures):
            raise ValueError(f"expected uint8 RGB frames [frames, height, width, 3] of one size, got {sorted(shapes)}")
        self._pictures = pictures
        self.size = (shape[0], shape[1])

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, frame: int) -> Picture:
        return self._pictures[_within(frame, len(self))]


class Stills:
    """A folder of pictures, which are the frames: 2.jpg comes before 10.jpg."""

    fps = FOLDER_FPS

    def __init__(self, folder: Path):
        files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")]
        if not files:
            raise ValueError(f"{folder}: no frame in this folder ({', '.join(IMAGE_SUFFIXES)})")
        self.files = sorted(files, key=lambda path: ([int(number) for number in re.findall(r"\d+", path.stem)], path.name))
        first = read_image(self.files[0])
        self.size = (first.shape[0], first.shape[1])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, frame: int) -> Picture:
        path = self.files[_within(frame, len(self))]
        picture = read_image(path)
        if picture.shape[:2] != self.size:
            sizes = (f"{width} x {height}" for height, width in (picture.shape[:2], self.size))
            raise ValueError("{}: {} pixels, but the first frame has {}; all must be of one size".format(path, *sizes))
        return picture


class Film:
    """A file that FFmpeg reads. A frame's number is its place in the order of the times at which frames are shown."""

    def __init__(self, path: Path):
        self.path = path
        self._av = require_av()
        try:
            self._open()
            packets = self._container.demux(self._stream)
            self._times = sorted({packet.pts for packet in packets if packet.pts is not None and not packet.is_discard})
            if not self._times:
                raise ValueError("it has no frames")
            if self._stream.width * self._stream.height > MAX_PIXELS:
                raise ValueError(f"frames of {self._stream.width} x {self._stream.height} pixels are more than {MAX_PIXELS}")
        except (self._av.FFmpegError, ValueError) as error:
            raise ValueError(f"{path}: not a video that can be read: {one_line(error)}") from None
        self.fps = float(self._stream.average_rate or FOLDER_FPS)
        self._decoded: Iterator[Any] = iter(())
        self._next = -1  # what the decoder gives next; -1: it must be set to a place first
        self._kept: dict[int, Picture] = {}
        first = self[0]
        self.size = (first.shape[0], first.shape[1])

    def _open(self) -> None:
        # absolute, because FFmpeg takes the start of "12:05.mp4" for the name of a protocol
        self._container = self._av.open(str(self.path.absolute()))
        streams = self._container.streams.video
        if not streams:
            raise ValueError("it has no pictures")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"

    def __len__(self) -> int:
        return len(self._times)

    def __getitem__(self, frame: int) -> Picture:
        if _within(frame, len(self)) in self._kept:
            return self._kept[frame]
        try:
            return self._read(frame)
        except self._av.FFmpegError as error:
            raise ValueError(f"{self.path}: frame {frame} cannot be read: {one_line(error)}") from None

    def _read(self, frame: int) -> Picture:
        back = bool(self._kept) and frame < min(self._kept)
        if frame != self._next:
            # to the last key frame before it
            self._container.seek(self._times[frame], stream=self._stream)
            self._decoded = self._container.decode(self._stream)
        if not self._decode_to(frame, back):
            # a film without an index, such as a transport stream, may not be searched in: all that is before it must be read
            self._container.close()
            self._open()
            self._decoded = self._container.decode(self._stream)
            if not self._decode_to(frame, back):
                raise ValueError(f"{self.path}: frame {frame} cannot be read: the film is damaged")
        return self._kept[frame]

    def _decode_to(self, frame: int, back: bool) -> bool:
        """Whether it comes, with what is before it kept as well on the way back."""
        self._kept = {}
        for decoded in self._decoded:
            place = bisect_left(self._times, decoded.pts)
            if place == frame or back:
                self._keep(place, decoded)
            if place >= frame:
                self._next = place + 1
                return place == frame
        return False

    def _keep(self, place: int, decoded: Any) -> None:
        # film from a telephone is stored lying down
        picture = np.ascontiguousarray(np.rot90(decoded.to_ndarray(format="rgb24"), round(decoded.rotation / 90)))
        self._kept[place] = picture
        while len(self._kept) > max(1, KEPT_BYTES // picture.nbytes):
            del self._kept[min(self._kept)]


Source = str | Path | NDArray[np.uint8] | Sequence[Picture] | Clip | Stills | Film


def require_av() -> Any:
    """PyAV. Raises ValueError with the command that installs it."""
    try:
        import av
    except ImportError:
        raise ValueError("reading and writing films needs PyAV: pip install 'ruac[video]'") from None
    return av


def _within(frame: int, count: int) -> int:
    if not 0 <= frame < count:
        raise IndexError(f"no frame {frame}: the video has frames 0 to {count - 1}")
    return frame
