"""`ruac COMMAND`: every command is a function; its options come from its signature and its docstring.

Exit codes: 0 done, 1 some work failed, 2 wrong use, 130 interrupted. Errors are one line on stderr; RUAC_DEBUG=1 shows the
traceback.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from docstring_parser import Docstring, parse
from jsonargparse import ArgumentParser

from ruac.errors import WorkError, name_problem, one_line, shown
from ruac.leaving import INTERRUPTED
from ruac.wrong_values import require_values, wrong_value

FAILED, WRONG_USE = 1, 2
NEGATIVE = re.compile(r"-[\d.]+(,-?[\d.]+)*")  # numbers
UNRECOGNIZED = "unrecognized arguments"  # how argparse begins of what stands on the command line


@dataclass(frozen=True)
class Command:
    """home: module and name of the function; help: in a line; positional: the arguments that need no option name, in words; methods:
    other functions, each in place of the one at home when --method names it, which may ask for `method` and `config`. Without
    --method, --config FILE is how the one at home is called for."""

    home: str
    help: str
    positional: str | None = None
    methods: Mapping[str, str] = field(default_factory=dict)

    def function(self, method: str | None = None) -> Callable[..., object]:
        module, name = (self.home if method is None else self.methods[method]).split(":")
        return getattr(import_module(module), name)


COMMANDS = {
    "predict": Command("ruac.predict:predict", "masks and their uncertainty for your photographs", positional="images"),
    "demo": Command("ruac.predict:demo", "the same on a photograph that is already on your disk"),
    "label": Command(
        "ruac.label.command:label", "masks for many images, and those that a person should check", positional="images"
    ),
    "convert-labels": Command(
        "ruac.exchange.command:convert_labels", "labels for and from YOLO, Label Studio, CVAT, GIS and COCO", positional="labels"
    ),
    "video": Command("ruac.video.command:video", "follow objects through a video, and see where to correct", positional="source"),
    "export": Command("ruac.export.command:export", "a model for onnxruntime and the browser"),
    "bench": Command("ruac.bench:bench", "how fast a model is on this machine"),
    "app": Command("ruac.app.command:app", "click in the browser, and see where masks may be wrong"),
    "label-studio": Command("ruac.exchange.server:label_studio", "assist people who label in Label Studio"),
    "serve": Command("ruac.serve.command:serve", "answer programs over HTTP"),
    "eval": Command("ruac.evaluate.command:evaluate", "measure masks and uncertainty on labelled data"),
    "calibrate": Command("ruac.calibrate.command:calibrate", "thresholds with a guarantee, from labelled pictures of your kind"),
    "quality": Command("ruac.quality.command:quality", "teach a model to tell how good its masks are, from labelled pictures"),
    "report": Command(
        "ruac.report.command:report", "evaluations as a page to read: tables, curves, examples", positional="results"
    ),
    "attack": Command(
        "ruac.attack.command:attack", "what an attack does to a photograph and to its uncertainty", positional="pictures"
    ),
    "train": Command(
        "ruac.training.command:recipe",
        "an uncertainty head for a SAM that you have, or a whole model from a recipe",
        methods={
            "head": "ruac.training.command:head",
            **dict.fromkeys(("laplace", "evidential", "dropout"), "ruac.training.command:rival"),
            **{name: f"ruac.training.command:{name}" for name in ("plain", "lora", "ensemble")},
        },
    ),
    "tune": Command("ruac.training.tune:tune", "search for the settings of a recipe on shifted pictures of its own source"),
    "card": Command("ruac.card:card", "write the model card of a trained model from its result files"),
    "doctor": Command("ruac.doctor:doctor", "what is installed, and whether it works"),
    "data list": Command("ruac.data.command:list_domains", "name the data sets that can be converted"),
    "data info": Command("ruac.data.command:info", "what is known of one: layout, licence, citation", positional="domain"),
    "data check": Command("ruac.data.command:check", "look for what is wrong with a set in our format", positional="folder"),
    "data convert": Command("ruac.data.command:convert", "bring a data set into our format", positional="domain root out"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of `ruac` with these arguments (those of the process by default)."""
    # importing makes millions of objects, none of them garbage: looking for some takes half a second
    gc.set_threshold(200_000, 20, 100)
    words = _with_negative_values(list(sys.argv[1:] if arguments is None else arguments))
    name = ""
    for word in words:
        if problem := name_problem(word):
            return _complain(problem, WRONG_USE)
    try:
        while name not in COMMANDS:
            if not words:
                _parser_of_names(name).print_help(sys.stderr)
                return WRONG_USE
            word = _parser_of_names(name).parse_args([words.pop(0)]).command
            name = f"{name} {word}".strip()
        command = COMMANDS[name]
        method, words = _method(command, words)
        values = _parse(name, command, method, words)
        if name != "doctor":  # which says so when what this needs is broken
            _quieten_transformers()
        command.function(method)(**values)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except WorkError as error:
        return _complain(str(error), FAILED)
    except argparse.ArgumentError as error:
        return _complain(f"{_line(error)}; see {f'ruac {name}'.strip()} --help", WRONG_USE)
    except (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        return _complain(_line(error), WRONG_USE)
    except OSError as error:
        return _complain(_line(error), FAILED)
    return 0


def _with_negative_values(words: Sequence[str]) -> list[str]:
    """--point -5,60 as --point=-5,60: to argparse the second word would be an option."""
    joined: list[str] = []
    for word in words:
        if joined and NEGATIVE.fullmatch(word) and re.fullmatch("--[a-z-]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


class _TopParser(argparse.ArgumentParser):
    """Complains with an exception, not with the usage and an exit."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the paragraphs, and says the defaults."""


def _parser_of_names(group: str) -> argparse.ArgumentParser:
    """For a word of a command's name alone, so that only the module of that command is imported; group: the word before it."""
    start = f"{group} " if group else ""
    rows = {name: command.help for name, command in COMMANDS.items() if name.startswith(start)}
    names = [name.removeprefix(start) for name in rows]
    prog = f"ruac {group}".strip()
    parser = _TopParser(
        prog=prog,
        usage=f"{prog} COMMAND ...",
        description="Segment Anything with a pixel-wise uncertainty you can trust.\n\ncommands:\n"
        + "\n".join(f"  {name:<16}{text}" for name, text in rows.items()),
        epilog=f"{prog} COMMAND --help explains a command." + ("" if group else " Start with: ruac demo"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # a name of two words is also found by its first
    parser.add_argument(
        "command", choices=list(dict.fromkeys([*names, *(name.split()[0] for name in names)])), help=argparse.SUPPRESS
    )
    parser.add_argument("--version", action="version", version=f"ruac {version('ruac')}")
    return parser


def _method(command: Command, words: list[str]) -> tuple[str | None, list[str]]:
    """What --method names, and the other words. Raises ArgumentError when nothing says what to do, or two things do."""
    if not command.methods:
        return None, words
    parser = _TopParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--method", choices=list(command.methods))
    method, rest = parser.parse_known_args(words)
    method = method.method
    configured = any(word == "--config" or word.startswith("--config=") for word in rest)
    of_recipe = method is not None and "config" in inspect.signature(command.function(method)).parameters
    if method is not None and configured and not of_recipe:
        raise argparse.ArgumentError(
            None, f"--config and --method {method} contradict each other: a recipe says itself what it trains"
        )
    if not configured and not any(word == "-h" or word == "--help" or word.endswith(".help") for word in rest):
        if of_recipe:
            raise argparse.ArgumentError(None, f"--method {method} changes a recipe: name it with --config FILE")
        if method is None:
            ways = ", ".join(command.methods)
            raise argparse.ArgumentError(None, f"say what to train: a recipe with --config FILE, or --method with one of {ways}")
    return method, rest


def _parse(name: str, command: Command, method: str | None, words: Sequence[str]) -> dict[str, Any]:
    """Values for the parameters of the command's function. Raises ArgumentError; exits after --help."""
    function = command.function(method)
    doc = parse(inspect.getdoc(function) or "")
    prog = f"ruac {name}" if method is None else f"ruac {name} --method {method}"
    parser = ArgumentParser(prog=prog, exit_on_error=False, formatter_class=_HelpFormatter)
    text = doc.long_description or ""
    parser.description = "\n\n".join(part for part in (doc.short_description, text) if part)
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters
    known = {"method": method} if command.methods and "method" in parameters else {}
    config = hints.get("config")
    recipe = config if is_dataclass(config) and isinstance(config, type) else None
    options = [parameter for key, parameter in parameters.items() if key not in known and (key != "config" or recipe is None)]
    for parameter in options:
        _add_argument(parser, parameter, hints[parameter.name], doc, command.positional)
    if recipe is not None:
        parser.add_argument("--config", action="config", help="YAML file with the settings below")
        parser.add_class_arguments(recipe)
    try:
        parsed = parser.parse_args(words)
    except (UnicodeDecodeError, RecursionError) as error:
        raise argparse.ArgumentError(None, f"{_recipe(words)}: no YAML file with the settings ({_line(error)})") from None
    except argparse.ArgumentError as error:
        raise argparse.ArgumentError(None, _refusal(_line(error), words)) from None
    if recipe is None:
        return parsed.as_dict() | known
    try:
        require_values(parsed, recipe)
        settings = parser.instantiate(parsed).as_dict()
        del settings["config"]
        values = {parameter.name: settings.pop(parameter.name) for parameter in options}
        return values | known | {"config": recipe(**settings)}
    except ValueError as error:
        raise argparse.ArgumentError(None, f"{_recipe(words)}: {wrong_value(_line(error))[1]}") from None


def _refusal(message: str, words: Sequence[str]) -> str:
    """What jsonargparse says, for people, and with the name of the recipe where what is wrong may stand there."""
    key, reason = wrong_value(message)
    option = f"--{key.replace('_', '-')}"
    typed = any(word.split("=")[0] in (option, f"--{key}") for word in words)
    if not typed and (recipe := _recipe(words)) and recipe not in message and not message.startswith(UNRECOGNIZED):
        return f"{recipe}: {key} {reason}" if key else f"{recipe}: {reason}"
    return f"{option} {reason}" if key else reason


def _recipe(words: Sequence[str]) -> str:
    """The file that --config names last, empty without one."""
    following = zip(words, [*words[1:], ""], strict=False)
    named = [word.partition("=")[2] or after for word, after in following if word.partition("=")[0] == "--config"]
    return named[-1] if named else ""


def _add_argument(
    parser: ArgumentParser, parameter: inspect.Parameter, hint: Any, doc: Docstring, positional: str | None
) -> None:
    """Lists that are no positional argument repeat the option or (without a positional argument) follow it; booleans are named."""
    text = next((entry.description for entry in doc.params if entry.arg_name == parameter.name), None)
    option = f"--{parameter.name.replace('_', '-')}"
    required = parameter.default is parameter.empty
    element = _list_element(hint)
    if parameter.name in (positional or "").split():
        parser.add_argument(parameter.name, **({"type": hint} if element is None else {"type": element, "nargs": "+"}), help=text)
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


def _quieten_transformers() -> None:
    """Its bars, and its reports of files that do not fit, which are refused in a line."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _line(error: BaseException) -> str:
    """The message on one line; OSError without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return one_line(error)


def _complain(message: str, code: int) -> int:
    if os.environ.get("RUAC_DEBUG") == "1":
        raise
    print(f"ruac: {shown(message)}", file=sys.stderr)
    return code
