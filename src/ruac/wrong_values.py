"""Options and settings that do not fit: what jsonargparse says of them, for people, and what it lets pass."""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list"}
KEY = re.compile(r'Parser key "([\w.]+)":')
EXPECTED = re.compile(r"Expected an? (?:typing\.Literal\[(.*?)\]|<class '(\w+)'>)|Not a valid subclass of (\w+)")
VALUE = re.compile(r"(?:Got|Given) value: (.*?)(?: Subclass types.*)?$")
UNLOADED = re.compile(r"Unable to load config '(.*?)'")
# by the settings themselves, where they may be left out
REFUSED = re.compile(r"Errors: - ((?!Expected|Not a valid).*?) - Expected a <class 'NoneType'>")
UNKNOWN = re.compile(r"Option '(.*?)' is not accepted$")


def wrong_value(message: str) -> tuple[str, str]:
    """The name of the setting, with those of what it is in, and what is wrong with it; an empty name where the message does not say.

    message: of jsonargparse, on one line; it speaks of Python's types.
    """
    keys = KEY.findall(message)
    if unknown := UNKNOWN.search(message):
        return ".".join([*keys, unknown[1]]), "is no setting"
    if unloaded := UNLOADED.search(message):
        return ".".join(keys[:1]), f"{unloaded[1]}: not settings"
    if refused := REFUSED.search(message):
        return "", refused[1]
    kinds = [
        f"one of {choices.replace(chr(39), '')}" if choices else "settings" if settings else KINDS[kind]
        for choices, kind, settings in EXPECTED.findall(message)
        if choices or settings or kind in KINDS
    ]
    value = VALUE.search(message)
    if not keys or value is None or not kinds:
        return "", message.removeprefix('Parser key "config": ')
    return ".".join(keys), f"{value[1]}: not {' or '.join(dict.fromkeys(kinds))}"


def require_values(settings: Any, of: type, place: str = "") -> None:
    """Raises ValueError for a setting without a value that needs one, and for a value where there should be settings: of neither does
    jsonargparse complain. settings: its namespace; of: the dataclass that it is for; place: what it is in, with a dot."""
    for name, hint in get_type_hints(of).items():
        value = getattr(settings, name)
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if value is None and NoneType not in kinds:
            raise ValueError(f"{place}{name}: has no value")
        for kind in kinds:
            (part,) = get_args(kind) if get_origin(kind) is list else (kind,)
            if value is None or not is_dataclass(part):
                continue
            for entry in value if isinstance(value, list) else [value]:
                if not hasattr(entry, "__dict__"):
                    raise ValueError(f"{place}{name} {str(entry)[:40]}: not settings")
                require_values(entry, part, f"{place}{name}.")  # pyright: ignore[reportArgumentType]  a class, not an object
