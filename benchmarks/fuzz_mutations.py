"""Valid files made wrong, for benchmarks/fuzz.py: bytes changed at random, and what the bytes mean changed on purpose.

Every function takes a `random.Random` and a file's bytes and returns other bytes; the same numbers give the same bytes.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]

MOST_BYTES = 200_000  # of a file made here: what is slow for its size alone is no finding
NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
PNG = b"\x89PNG\r\n\x1a\n"
TRAPS = (
    "../secret.png",
    "../../secret.png",
    "..\\secret.png",
    "link",
    "sub/../../secret.png",
    "/etc/passwd",
    "a.png\0.txt",
    "",
    ".",
    "..",
    "C:\\secret.png",
    "file:///etc/passwd",
    "//host/share.png",
    "\u202egnp.a",
    "é" * 300,
    "a\u0301.png",
    "😀.png",
    "a\nb.png",
    "\ud800",
    "CON",
    " ",
    "-rf",
    "%2e%2e%2fsecret.png",
    "{0}",
    "%s%n",
    "nan",
    "1e400",
    "9" * 60,
)
MANY_DIGITS = "9" * 5000


class Raw(str):
    """JSON as it is to be written, which `json` itself would not write."""


VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    0.5,
    -0.0,
    255,
    256,
    2**31,
    2**32,
    2**53 + 1,
    2**63,
    2**64,
    10**30,
    -(10**30),
    1e-320,
    1e308,
    Raw("1e400"),
    Raw("-1e400"),
    Raw("NaN"),
    Raw("Infinity"),
    Raw("-Infinity"),
    Raw(MANY_DIGITS),
    Raw("1" + "0" * 400),
    Raw("[" * 900 + "]" * 900),
    Raw("[" * 3000 + "]" * 3000),
    Raw('{"a":' * 900 + "1" + "}" * 900),
    Raw('"\\ud800"'),
    Raw("01"),
    [],
    {},
    [[]],
    [None],
    [0] * 1000,
    {"": None},
    {"__class__": "os.system"},
    "",
    "0",
    "true",
    *TRAPS,
)


def bytes_changed(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to eight changes that know nothing of the format; others: files to take pieces from."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        at = rng.randrange(len(data) + 1) if rng.random() < 0.5 else min(rng.randrange(64), len(data))
        size = min(rng.choice((1, 2, 4, 16, 64, 400)), len(data) - at)
        change = rng.randrange(9)
        if change == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif change == 1 and at < len(data):
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
        elif change == 2:
            del data[at:]
        elif change == 3:
            del data[at : at + size]
        elif change == 4:
            data[at:at] = data[at : at + size]
        elif change == 5:
            number = struct.pack(rng.choice(("<I", ">I", "<Q", ">Q")), rng.choice(NUMBERS))
            data[at : at + len(number)] = number
        elif change == 6:
            number = struct.pack(rng.choice(("<H", ">H")), rng.choice(NUMBERS) & 0xFFFF)
            data[at : at + 2] = number
        elif change == 7 and others:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[at : at + size] = other[start : start + rng.choice((4, 32, 300))]
        elif change == 8:
            data[at : at + size] = rng.randbytes(size)
    return bytes(data[:MOST_BYTES])


def png_changed(rng: random.Random, content: bytes) -> bytes:
    """Chunks changed, dropped, doubled and put elsewhere, their checksums right, so that readers get past these."""
    if not content.startswith(PNG):
        return bytes_changed(rng, content)
    chunks: list[tuple[bytes, bytes]] = []
    at = len(PNG)
    while at + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        chunks.append((kind, content[at + 8 : at + 8 + size]))
        at += 12 + size
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(chunks))
        kind, body = chunks[place]
        change = rng.randrange(7)
        if change == 0:
            chunks[place] = kind, bytes_changed(rng, body)
        elif change == 1:
            chunks.insert(rng.randrange(len(chunks) + 1), chunks[place])
        elif change == 2 and len(chunks) > 1:
            del chunks[place]
        elif change == 3:
            rng.shuffle(chunks)
        elif change == 4:
            name = rng.choice((b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"gAMA", b"fcTL", b"acTL", b"sBIT"))
            text = rng.choice((b"", b"\0", rng.randbytes(20), b"a\0\0" + zlib.compress(bytes(10**6))))
            chunks.insert(rng.randrange(len(chunks)), (name, text))
        elif change == 5 and chunks[0][0] == b"IHDR" and len(chunks[0][1]) == 13:
            header = bytearray(chunks[0][1])
            header[8:] = bytes(rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255)) for _ in range(5))
            chunks[0] = b"IHDR", bytes(header)
        elif change == 6 and chunks[0][0] == b"IHDR":
            size = struct.pack(">2I", rng.choice(NUMBERS), rng.choice((1, 3, 65535, 2**31 - 1)))
            chunks[0] = b"IHDR", size + chunks[0][1][8:]
    body = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return (PNG + body)[:MOST_BYTES]


def text_changed(rng: random.Random, content: bytes) -> bytes:
    """Lines and words changed, and what is awkward to decode put in: for CSV, YAML, XML, lists of names."""
    change = rng.randrange(8)
    if change == 0:
        return bytes_changed(rng, content)
    if change == 1:
        return rng.choice((b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\x1a", b"\r")) + content
    if change == 2:
        return content.decode(errors="replace").encode(rng.choice(("utf-16", "utf-32", "utf-7")), "replace")
    lines = content.decode(errors="replace").split("\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(lines))
        if change == 3:
            lines[place] = rng.choice(("", "\0", lines[rng.randrange(len(lines))], '"', "'" + lines[place], rng.choice(TRAPS)))
        elif change == 4:
            lines.insert(place, lines[rng.randrange(len(lines))])
        elif change == 5 and len(lines) > 1:
            del lines[place]
            place = min(place, len(lines) - 1)
        else:
            words = _words(lines[place])
            if words:
                start, end = rng.choice(words)
                word = rng.choice(
                    (*TRAPS, *(str(n) for n in NUMBERS), "-1", "0x10", "1_000", "٣", "inf", "NaN", "1e999", "*", "&a")
                )
                lines[place] = lines[place][:start] + word + lines[place][end:]
    return "\n".join(lines).encode("utf-8", "surrogatepass")[:MOST_BYTES]


def json_changed(rng: random.Random, content: bytes) -> bytes:
    """Values, keys and lists changed; bytes changed once in a while."""
    if rng.random() < 0.12:
        return text_changed(rng, content)
    return to_json(rng, changed(rng, json.loads(content))).encode("utf-8", "surrogatepass")[:MOST_BYTES]


def lines_of_json_changed(rng: random.Random, content: bytes) -> bytes:
    """A file of a JSON value a line."""
    lines = content.splitlines()
    if rng.random() < 0.3 or not lines:
        return text_changed(rng, content)
    place = rng.randrange(len(lines))
    lines[place] = json_changed(rng, lines[place])
    return b"\n".join(lines) + b"\n"


def safetensors_changed(rng: random.Random, content: bytes) -> bytes:
    """Header and tensors changed: shapes, types, places, metadata, lengths."""
    (size,) = struct.unpack("<Q", content[:8])
    header, tensors = content[8 : 8 + size], content[8 + size :]
    change = rng.randrange(8)
    if change == 0:
        return bytes_changed(rng, content)
    if change == 1:
        tensors = bytes_changed(rng, tensors)
    elif change == 2:
        described = json.loads(header)
        entry = described[rng.choice(list(described))]
        if "dtype" in entry:
            entry["dtype"] = rng.choice(("F16", "F32", "F64", "I64", "U8", "BOOL", "BF16", "F8_E4M3", "X", 3))
            entry["shape"] = rng.choice((entry["shape"], [], [0], [2**40], [2**63, 2**63], [-1], [1.5], "x"))
        header = json.dumps(described).encode()
    elif change == 3:
        tensors = tensors[: rng.randrange(len(tensors) + 1)]
    elif change == 4:
        at = min(4 * rng.randrange(len(tensors) // 4 + 1), len(tensors))
        tensors = tensors[:at] + struct.pack("<f", rng.choice((float("nan"), float("inf"), -1e38))) + tensors[at + 4 :]
    else:
        described = json.loads(header)
        facts = described.get("__metadata__")
        if facts and change < 7:
            key = rng.choice(list(facts))
            facts[key] = _metadata(rng, facts[key])
            if rng.random() < 0.3:
                del facts[key]
            header = json.dumps(described).encode("utf-8", "surrogatepass")
        else:
            header = json_changed(rng, header)
    length = len(header) if rng.random() < 0.95 else rng.choice((*NUMBERS, 2**40, 2**63))
    return (struct.pack("<Q", length) + header + tensors)[: max(MOST_BYTES, len(content))]


def xml_changed(rng: random.Random, content: bytes) -> bytes:
    """Words changed, tags doubled, entities declared."""
    change = rng.randrange(6)
    if change > 1:
        return text_changed(rng, content)
    head, _, body = content.partition(b"?>")
    if change == 1:
        words = rng.choice((b"<track id='0'/>", b"<a>" * 2000, b"<![CDATA[x", b"<!-- -- -->", b"<?xml version='1.0'?>", b"&#0;"))
        return head + b"?>" + body.replace(b"<image", words + b"<image", 1)
    levels = b"".join(b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10 if n else b"ha") for n in range(12))
    outside = b'<!ENTITY e11 SYSTEM "file:///etc/passwd">'
    declared = b"<!DOCTYPE annotations [" + rng.choice((levels, outside)) + b"]>"
    text = head + b"?>" + declared + body.replace(b"cat", b"&e11;", 1)
    return (
        text.decode().replace("utf-8", encoding := rng.choice(("utf-8", "utf-16", "utf-7", "ascii"))).encode(encoding, "replace")
    )


def changed(rng: random.Random, value: Any) -> Any:
    """A JSON value with one to four changes anywhere in it."""
    value = [value]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place, key = rng.choice(_places(value))
        change = rng.randrange(8)
        if change < 4:
            place[key] = _copy(rng.choice(VALUES))
        elif change == 4:
            other, there = rng.choice(_places(value))
            place[key] = _copy(other[there])
        elif isinstance(place, dict):
            old = place[key]
            if change == 5 or rng.random() < 0.3:
                del place[key]
            place[rng.choice((key.upper(), key + "s", *TRAPS)) if change == 6 else Raw(key)] = old
            if change == 5:
                place.pop(Raw(key), None)
        elif place is not value:
            if change == 5:
                del place[key]
            elif change == 6:
                place.insert(key, _copy(place[key]))
            else:
                place[key] = [place[key]] * rng.choice((1, 2, 50))
    return value[0] if value else None


def to_json(rng: random.Random, value: Any) -> str:
    """As `json.dumps`, but Raw is written as it is, and now and then a key is there twice."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        pairs = [f"{json.dumps(str(key))}:{to_json(rng, entry)}" for key, entry in value.items()]
        if pairs and rng.random() < 0.02:
            pairs.append(rng.choice(pairs))
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(to_json(rng, entry) for entry in value) + "]"
    return json.dumps(value)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key in it."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 3000:
        node = waiting.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            found.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
    return found or [(value, 0)]


def _copy(value: Any) -> Any:
    return (
        {key: _copy(entry) for key, entry in value.items()}
        if isinstance(value, dict)
        else ([_copy(entry) for entry in value] if isinstance(value, list) else value)
    )


def _metadata(rng: random.Random, text: str) -> str:
    """Texts of a header: JSON changed as JSON, others replaced."""
    try:
        json.loads(text)
    except ValueError:
        return str(rng.choice((*TRAPS, "-1", "1e400", text + "x")))
    return json_changed(rng, text.encode()).decode("utf-8", "replace")


def _words(line: str) -> list[tuple[int, int]]:
    """Where the words and numbers of a line are."""
    words, start = [], None
    for place, letter in enumerate(line + " "):
        inside = letter.isalnum() or letter in "._-/"
        if inside and start is None:
            start = place
        elif not inside and start is not None:
            words.append((start, place))
            start = None
    return words
