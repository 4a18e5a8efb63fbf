"""`ruac data`: which data sets there are, how to get them into the folder format, and whether a set is in order.

What is slow to import is imported by the functions that use it, so that help and misspelt commands are answered at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TypeVar

from ruac.errors import WorkError

WIDTH, INDENT = 118, 12
T = TypeVar("T")


def list_domains() -> None:
    """Name the data sets that can be converted: the paper's 23 evaluation domains, and sources of training data.

    Example: ruac data list
    """
    from ruac.data.domains import DOMAINS

    rows = [("name", "group", "licence", "split"), *((d.name, d.group, d.licence, d.split) for d in DOMAINS.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def info(domain: str) -> None:
    """Say what is known of a data set: where it is, its licence, how it must lie on disk, whom to cite.

    Nothing is downloaded: most data sets ask you to agree to their terms first.

    Example: ruac data info Cityscapes

    Args:
        domain: A name that `ruac data list` shows.

    Raises:
        ValueError: When there is no such data set.
    """
    from ruac.data.domains import find_domain

    entry = find_domain(domain)
    told = {
        "name": entry.name,
        "title": entry.title,
        "group": entry.group,
        "home page": entry.home,
        "licence": entry.licence,
        "split": entry.split,
        "frames": "the first one of every video" if entry.first_frame_only else "all",
        "layout": entry.layout,
        "reader": entry.reading(),
        "notes": entry.notes or "none",
        "verified": entry.verified,
        "citation": entry.citation,
    }
    for key, value in told.items():
        # paths are to be copied, so they are not broken
        lines = value if isinstance(value, tuple) else wrap(value, WIDTH - INDENT, break_long_words=False, break_on_hyphens=False)
        print(f"{key:<{INDENT}}" + f"\n{' ' * INDENT}".join(lines))
    print(f"{'convert':<{INDENT}}ruac data convert {entry.name} ROOT OUT")


def check(folder: Path) -> None:
    """Look for what is wrong with a set in our format: sizes, ids, empty masks, damaged files, doubles, missing masks.

    Beside the folders images and masks it writes check.png, a contact sheet of up to 24 pictures with the outlines of their
    masks. Look at it: masks in the wrong place pass every other test.

    Example: ruac data check data/mine

    Args:
        folder: A data set, or a folder of data sets.

    Raises:
        FileNotFoundError: When there is no data set.
        WorkError: When there is something wrong.
    """
    from ruac.data.check import check_set, sets_in

    seen: dict[str, Path] = {}
    problems: list[str] = []
    for root in sets_in(folder):
        report = check_set(root, seen, _track)
        state = f"{len(report.problems)} problems" if report.problems else "no problem"
        look = f"; look at {report.sheet}" if report.sheet else ""
        print(f"{root.name}: {report.images} images, {report.objects} objects, {state}{look}")
        problems += report.problems
    if problems:
        raise WorkError("\n".join(problems if len(problems) == 1 else [f"{len(problems)} problems:", *problems]))


def convert(domain: str, root: Path, out: Path, max_images: int | None = None, seed: int = 0) -> None:
    """Bring a data set that you have downloaded into our format: images/, masks/ and meta.json.

    A mask holds 254 objects, so of more the largest are taken, and smaller ones lie on top of larger ones; what is not to be judged
    becomes 255. Photographs are copied as they are, other pictures become PNG. Pictures without objects are left out. A run that was
    stopped goes on where it was when started again.

    Example: ruac data convert TrashCan downloads/dataset data/eval/trashcan --max-images 500

    Args:
        domain: A name that `ruac data list` shows.
        root: Where the data set lies, as published; `ruac data info` shows how.
        out: Folder for the set; made if need be.
        max_images: Only so many images, drawn at random.
        seed: Draws them.

    Raises:
        ValueError: When there is no such data set, it does not lie as published, or out holds something else.
        WorkError: At the end, when there were pictures that could not be used.
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f"--max-images must be at least 1, not {max_images}")
    if seed < 0:
        raise ValueError(f"--seed must not be negative, as {seed} is")

    from ruac.data.convert import convert_domain
    from ruac.data.domains import find_domain

    entry = find_domain(domain)
    outcome = convert_domain(entry, root, out, max_images, seed, _track)
    objects = sum(row.objects for row in outcome.rows)
    left = f", {outcome.empty} without objects left out" if outcome.empty else ""
    print(f"{out}: {len(outcome.rows)} images, {objects} objects{left}. Licence: {entry.licence}. Next: ruac data check {out}")
    if outcome.failed:
        raise WorkError("\n".join([f"{len(outcome.failed)} images could not be used:", *outcome.failed]))
    if not outcome.rows:
        raise WorkError(f"{root}: no image with an object")


def _track(things: Sequence[T], what: str, total: int) -> Iterable[T]:
    """With a progress bar, where somebody looks."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(things, what, total=total, console=console, transient=True, disable=not console.is_terminal)
