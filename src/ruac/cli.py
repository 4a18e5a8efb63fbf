"""`ruac COMMAND`: every command is a function; its options come from its signature and its docstring.

Exit codes: 0 done, 1 some work failed, 2 wrong use, 130 interrupted. Errors are one line on stderr; RUAC_DEBUG=1 shows the
traceback.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from docstring_parser import Docstring, parse
from jsonargparse import ArgumentParser

from ruac.errors import WorkError

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True)
class Command:
    """home: module and name of the function; help: in a line; positional: the list argument that needs no option name."""

    home: str
    help: str
    positional: str | None = None

    def function(self) -> Callable[..., object]:
        module, name = self.home.split(":")
        return getattr(import_module(module), name)


COMMANDS = {
    "predict": Command("ruac.predict:predict", "masks and their uncertainty for your photographs", positional="images"),
    "demo": Command("ruac.predict:demo", "the same on a photograph that is already on your disk"),
    "eval": Command("ruac.evaluate.command:evaluate", "measure masks and uncertainty on labelled data"),
    "train": Command("ruac.training.loop:train", "train a model from a configuration file"),
    "card": Command("ruac.card:card", "write the model card of a trained model from its result files"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of `ruac` with these arguments (those of the process by default)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        _top_parser().print_help(sys.stderr)
        return WRONG_USE
    try:
        top = _top_parser().parse_args(words[:1])
        command = COMMANDS[top.command]
        function = command.function()
        values = _parse(top.command, command, function, words[1:])
        _hide_loading_bars()
        function(**values)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except WorkError as error:
        return _complain(str(error), FAILED)
    except argparse.ArgumentError as error:
        return _complain(
            f"{_line(error)}; see {' '.join(['ruac', *words[:1]]) if words[0] in COMMANDS else 'ruac'} --help", WRONG_USE
        )
    except (ValueError, FileNotFoundError) as error:
        return _complain(_line(error), WRONG_USE)
    except OSError as error:
        return _complain(_line(error), FAILED)
    return 0


class _TopParser(argparse.ArgumentParser):
    """Complains with an exception, not with the usage and an exit."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the paragraphs, and says the defaults."""


def _top_parser() -> argparse.ArgumentParser:
    """For the first word alone, so that only the module of that command is imported."""
    table = "\n".join(f"  {name:<10}{command.help}" for name, command in COMMANDS.items())
    parser = _TopParser(
        prog="ruac",
        usage="ruac COMMAND ...",
        description=f"Segment Anything with a pixel-wise uncertainty you can trust.\n\ncommands:\n{table}",
        epilog="ruac COMMAND --help explains a command. Start with: ruac demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"ruac {version('ruac')}")
    return parser


def _parse(name: str, command: Command, function: Callable[..., object], words: Sequence[str]) -> dict[str, Any]:
    """Values for the function's parameters. Raises ArgumentError; exits after --help."""
    doc = parse(inspect.getdoc(function) or "")
    parser = ArgumentParser(prog=f"ruac {name}", exit_on_error=False, formatter_class=_HelpFormatter)
    text = doc.long_description or ""
    parser.description = "\n\n".join(part for part in (doc.short_description, text) if part)
    hints = get_type_hints(function)
    config = hints.get("config")
    if is_dataclass(config) and isinstance(config, type):
        parser.add_argument("--config", action="config", help="YAML file with the settings below")
        parser.add_class_arguments(config)
        settings = parser.instantiate(parser.parse_args(words)).as_dict()
        return {"config": config(**{key: value for key, value in settings.items() if key != "config"})}
    for parameter in inspect.signature(function).parameters.values():
        _add_argument(parser, parameter, hints[parameter.name], doc, command.positional)
    return parser.parse_args(words).as_dict()


def _add_argument(
    parser: ArgumentParser, parameter: inspect.Parameter, hint: Any, doc: Docstring, positional: str | None
) -> None:
    """Lists are the positional argument, or repeat the option, or (without a positional argument) follow it; booleans are named."""
    text = next((entry.description for entry in doc.params if entry.arg_name == parameter.name), None)
    option = f"--{parameter.name.replace('_', '-')}"
    required = parameter.default is parameter.empty
    element = _list_element(hint)
    if parameter.name == positional:
        parser.add_argument(parameter.name, nargs="+", type=element, help=text)
    elif element is not None:
        # several values an option would swallow a positional argument that follows it
        several: dict[str, Any] = {"action": "append"} if positional else {"action": "extend", "nargs": "+"}
        parser.add_argument(option, **several, type=element, required=required, help=text)
    elif hint is bool:
        parser.add_argument(option, action="store_true", help=text)
    elif required:
        parser.add_argument(option, type=hint, required=True, help=text)
    else:
        parser.add_argument(option, type=hint, default=parameter.default, help=text)


def _list_element(hint: Any) -> Any:
    """T of list[T] or list[T] | None; None for all other types."""
    for kind in (hint, *get_args(hint)):
        if get_origin(kind) is list:
            return get_args(kind)[0]
    return None


def _hide_loading_bars() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()


def _line(error: BaseException) -> str:
    """The first line of a message; OSError without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def _complain(message: str, code: int) -> int:
    if os.environ.get("RUAC_DEBUG") == "1":
        raise
    print(f"ruac: {message}", file=sys.stderr)
    return code
