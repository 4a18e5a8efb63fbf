"""What the page may ask for. Every request comes from a browser that is not trusted: all of it is checked here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from ruac.app import view
from ruac.app.conversation import Box, Conversation
from ruac.app.downloads import download, kinds
from ruac.app.models import Models
from ruac.app.room import Room
from ruac.app.samples import Sample
from ruac.app.sessions import Entry, Sessions
from ruac.data.image import ImageError, read_image
from ruac.errors import one_line

MAX_PIXELS = 50_000_000
LONE = re.compile(r"[\ud800-\udfff]")  # half a letter, which no file and no answer can hold
SECRET = re.compile(r"[0-9a-f]{32}")
FARTHEST = 1e6  # pixels
AT_ONCE, WAITING = 2, 16  # requests that are worked on, and those that may wait beside them
STOPPED = "the page is being stopped"
GONE = "this picture is no longer open here: choose it again"

Request = Mapping[str, Any]
Reply = dict[str, Any]


class BusyError(Exception):
    """More requests than can wait."""


class Desk:
    """Answers requests of all sessions. room: where uploaded files are."""

    def __init__(self, models: Models, pictures: Sequence[Sample], room: Room, sessions: Sessions[Conversation]):
        self.models, self.samples, self.sessions = models, pictures, sessions
        self._room = room
        self._places, self._turns = BoundedSemaphore(AT_ONCE + WAITING), BoundedSemaphore(AT_ONCE)
        self._closed = False
        self._actions: dict[str, Callable[[Entry[Conversation], Request], Reply]] = {
            "sample": self._open_sample,
            "upload": self._open_upload,
            "model": self._change_model,
            "click": _click,
            "box": _box,
            "take": _take,
            "undo": _undo,
            "clear": _clear,
            "choose": _choose,
            "download": _download,
        }

    def close(self) -> None:
        """Nothing new is begun; what is being worked on goes on."""
        self._closed = True

    def ask(self, request: Any) -> Reply:
        """The answer, or {"error": what was wrong, for people}."""
        try:
            return self._ask(request)
        except BusyError:
            return {"error": "busy: too many people are waiting; try again in a moment"}
        except (ValueError, FileNotFoundError) as error:
            return {"error": one_line(error)}

    def _ask(self, request: Any) -> Reply:
        if not isinstance(request, dict):
            raise ValueError("a request is a JSON object")
        secret, action = request.get("secret"), str(request.get("action"))
        if not isinstance(secret, str) or not SECRET.fullmatch(secret):
            raise ValueError("a request needs its session's secret")
        if action not in self._actions:
            raise ValueError(f"unknown action {action[:40]!r}")
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            # the session first: of one that waits for itself, only one request takes a turn
            with self.sessions.use(secret) as entry, self._turns:
                if self._closed:
                    raise ValueError(STOPPED)
                return self._actions[action](entry, request)
        finally:
            self._places.release()

    def _open_sample(self, entry: Entry[Conversation], request: Request) -> Reply:
        number = _whole(request, "number")
        if not 0 <= number < len(self.samples):
            raise ValueError("there is no such sample")
        sample = self.samples[number]
        return self._open(entry, sample.path, sample.path.name, request)

    def _open_upload(self, entry: Entry[Conversation], request: Request) -> Reply:
        path, name = _text(request, "path"), Path(_text(request, "name")).name[:200]
        if not self._room.holds(path):
            raise ValueError("this file has not been uploaded")
        # it stays for its time: the same picture may be among those to label
        return self._open(entry, Path(path), name, request)

    def _open(self, entry: Entry[Conversation], path: Path, name: str, request: Request) -> Reply:
        loaded = self.models.get(_text(request, "model"))
        try:
            image = read_image(path, MAX_PIXELS)
        except ImageError as error:
            # where files lie here is nobody's business
            raise ValueError(str(error).replace(str(path), name)) from None
        entry.content = Conversation(loaded, image, name)  # after an error, the picture before is open still
        return {"picture": view.picture(entry.content), "files": kinds(entry.content), **_answer(entry.content)}

    def _change_model(self, entry: Entry[Conversation], request: Request) -> Reply:
        loaded = self.models.get(_text(request, "model"))
        if entry.content is None:
            return {}
        entry.content = entry.content.with_model(loaded)
        return {"files": kinds(entry.content), **_answer(entry.content)}


def _click(entry: Entry[Conversation], request: Request) -> Reply:
    label = _whole(request, "label")
    here = _open_in(entry)
    here.click(_number(request.get("x")), _number(request.get("y")), label)
    return _answer(here)


def _box(entry: Entry[Conversation], request: Request) -> Reply:
    corners = request.get("box")
    if not isinstance(corners, list) or len(corners) != 4:
        raise ValueError("a box has four numbers")
    x0, y0, x1, y1 = (_number(value) for value in corners)
    box: Box = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
    here = _open_in(entry)
    here.draw_box(box)
    return _answer(here)


def _take(entry: Entry[Conversation], request: Request) -> Reply:
    here = _open_in(entry)
    here.take_suggestion()
    return _answer(here)


def _undo(entry: Entry[Conversation], request: Request) -> Reply:
    here = _open_in(entry)
    here.undo()
    return _answer(here)


def _clear(entry: Entry[Conversation], request: Request) -> Reply:
    here = _open_in(entry)
    here.clear()
    return _answer(here)


def _choose(entry: Entry[Conversation], request: Request) -> Reply:
    here = _open_in(entry)
    here.choose(_whole(request, "candidate"))
    return _answer(here)


def _download(entry: Entry[Conversation], request: Request) -> Reply:
    return {"file": download(_open_in(entry), _text(request, "kind"))}


def _answer(conversation: Conversation) -> Reply:
    return {"answer": view.answer(conversation)}


def _open_in(entry: Entry[Conversation]) -> Conversation:
    if entry.content is None:
        raise ValueError(GONE)
    return entry.content


def _number(value: Any) -> float:
    # written so that infinity and what is no number at all fail, too
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < FARTHEST:
        raise ValueError(f"{ascii(value)[:40]} is no number")
    return float(value)


def _whole(request: Request, key: str) -> int:
    value = request.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key}: a whole number is needed")
    return value


def _text(request: Request, key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value or "\0" in value or LONE.search(value):
        raise ValueError(f"{key}: a text is needed")
    return value
