"""What can go wrong in a command other than wrong use."""

import re


class WorkError(Exception):
    """Some of the work could not be done; what could is done. The message, of a line each failure, is for people."""


class RoomError(WorkError):
    """A disk is full, or takes nothing: no fault of the work, which can go on once it does."""


UNSHOWN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST = 1000  # characters of a message: libraries repeat whatever a file holds


def one_line(error: BaseException, culprit: str = "") -> str:
    """The message on one line, the culprit before it where it is not named yet; the kind of the error where there is no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
    return text if culprit in text else f"{culprit}: {text}"


def shown(text: str) -> str:
    """What a terminal can show as it is, lines kept: a file's name may hold what moves the cursor, or bytes that are no text."""
    return UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def name_problem(name: str) -> str:
    """In words, why a file of that name cannot be listed anywhere; empty when it can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"{shown(name)}: a name that is not UTF-8; rename the file"
    return ""
