"""Label Studio's brush: an RGBA picture as a stream of bits, in the run-length coding of the library rle-pack.

32 bits say how many values follow, 5 how many bits a value has, less one, and 4 x 4 which lengths of a number there are, less one.
Then each step: a bit, 1 for one value repeated and 0 for different ones; 2 bits, which length its number has; the number of values,
less one; and the value, or all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ruac.data.labels import Size
from ruac.exchange.runs import run_lengths
from ruac.regions import Mask

CHANNELS, ALPHA = 4, 3
VALUE_BITS = 8
LENGTH_BITS = np.array([3, 4, 8, 16])
OPAQUE = 128  # half covered, at the soft edge of a stroke


def encode_brush(mask: Mask) -> list[int]:
    """Bytes. The mask is white and opaque, all other pixels transparent."""
    runs = run_lengths(mask) * CHANNELS
    values = np.where(np.arange(len(runs)) % 2, 255, 0)
    most = 1 << int(LENGTH_BITS[-1])
    steps = -(-runs // most)
    lengths = np.full(int(steps.sum()), most)
    there = steps > 0  # the first run may be empty
    lengths[np.cumsum(steps)[there] - 1] = (runs[there] - 1) % most + 1
    kind = np.searchsorted(1 << LENGTH_BITS, lengths)
    numbers = (((4 + kind) << LENGTH_BITS[kind]) + lengths - 1 << VALUE_BITS) + np.repeat(values, steps)
    header = _bits(
        np.array([mask.size * CHANNELS, VALUE_BITS - 1, *(LENGTH_BITS - 1)]), np.array([32, 5, *np.full(len(LENGTH_BITS), 4)])
    )
    return np.packbits(np.concatenate([header, _bits(numbers, 3 + LENGTH_BITS[kind] + VALUE_BITS)])).tolist()


def decode_brush(content: Sequence[int], size: Size) -> Mask:
    """[height, width]: the pixels that are half covered or more. Raises ValueError when it is broken or of another size."""
    try:
        data = bytes(list(content))  # of a number it would be so many zeros
    except (TypeError, ValueError):
        raise ValueError("a brush whose rle is no list of bytes") from None
    height, width = size
    total = height * width * CHANNELS
    reader = _Bits(data)
    if reader.read(32) != total:
        raise ValueError(f"a brush that is not of {width} x {height} pixels")
    if reader.read(5) + 1 != VALUE_BITS:
        raise ValueError(f"a brush with values of other than {VALUE_BITS} bits")
    sizes = [reader.read(4) + 1 for _ in LENGTH_BITS]
    levels = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeated = reader.read(1)
        end = done + 1 + reader.read(sizes[reader.read(2)])
        if end > total:
            raise ValueError("a brush that leaves the picture")
        levels[done:end] = reader.read(VALUE_BITS) if repeated else reader.read_bytes(end - done)
        done = end
    return levels.reshape(height, width, CHANNELS)[..., ALPHA] >= OPAQUE


def _bits(numbers: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """One after the other, each with so many bits, the highest first."""
    shifts = widths[:, None] - 1 - np.arange(widths.max())
    bits = numbers[:, None] >> np.maximum(shifts, 0) & 1
    return bits[shifts >= 0].astype(np.uint8)


class _Bits:
    """Reads bits, the highest of each byte first. Raises ValueError beyond the end."""

    def __init__(self, data: bytes):
        self._data = data
        self._at = 0

    def read(self, count: int) -> int:
        start, end = self._take(count)
        number = int.from_bytes(self._data[start:end], "big")
        return number >> end * 8 - self._at & (1 << count) - 1

    def read_bytes(self, count: int) -> NDArray[np.uint8]:
        first = self._at % 8
        start, end = self._take(8 * count)
        bits = np.unpackbits(np.frombuffer(self._data[start:end], np.uint8))
        return np.packbits(bits[first : first + 8 * count])

    def _take(self, count: int) -> tuple[int, int]:
        """The bytes that the next bits are in; behind these is where the next call reads."""
        start, self._at = self._at // 8, self._at + count
        end = -(-self._at // 8)
        if end > len(self._data):
            raise ValueError("a brush that ends too early")
        return start, end
