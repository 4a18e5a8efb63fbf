"""Suites: sets, settings and groups that are fixed, so that numbers of different people mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ruac.data.domain import Domain
from ruac.data.domains import EVALUATION
from ruac.data.folder import FolderSet
from ruac.evaluate.protocol import Protocol


@dataclass(frozen=True)
class Suite:
    """domains: as `ruac data convert` writes them, which says what the first frame of a video is; protocol: the settings."""

    name: str
    domains: tuple[Domain, ...]
    protocol: Protocol

    def check(self, protocol: Protocol, max_images: int | None = None, prompts: Path | None = None) -> None:
        """Raises ValueError for settings that are not the suite's, and for fewer images and other clicks. `noc` only adds to them."""
        for setting in ("clicks", "max_objects", "seed", "prompt"):
            own, asked = getattr(self.protocol, setting), getattr(protocol, setting)
            if own != asked:
                option = f"--{setting.replace('_', '-')}"
                raise ValueError(f"the suite {self.name} fixes {option} at {_text(own)}: leave {option} {_text(asked)} out")
        for option, given in (("--max-images", max_images), ("--prompts", prompts)):
            if given is not None:
                raise ValueError(
                    f"the suite {self.name} is every image of its sets, with the annotator's own clicks: leave {option} {given} out, "
                    "or --suite, and the results are those of sets with any name"
                )

    def open(self, root: Path) -> SuiteSets:
        """The sets under ROOT/<name>. Raises FileNotFoundError when none is there, else as `FolderSet.open`."""
        there = {folder.name.casefold(): folder for folder in sorted(root.iterdir()) if folder.is_dir()} if root.is_dir() else {}
        found = [
            (domain, FolderSet.open(there[domain.name.casefold()])) for domain in self.domains if domain.name.casefold() in there
        ]
        if not found:
            raise FileNotFoundError(
                f"{root}: none of the {len(self.domains)} sets of {self.name} is here; "
                f"`ruac data convert {self.domains[0].name} ROOT {root / self.domains[0].name}` puts the first one here"
            )
        names = {domain.name for domain, _ in found}
        return SuiteSets(
            tuple(FolderSet(domain.name, part.meta | {"group": domain.group}, part.samples) for domain, part in found),
            tuple(domain.name for domain in self.domains if domain.name not in names),
        )


@dataclass(frozen=True)
class SuiteSets:
    """sets: those that are there, named and grouped by the registry; missing: names of the others."""

    sets: tuple[FolderSet, ...]
    missing: tuple[str, ...]


SUITES = {suite.name: suite for suite in (Suite("sa23-ruac", EVALUATION, Protocol(clicks=(1, 3, 5), max_objects=10, seed=0)),)}


def find_suite(name: str) -> Suite:
    """Raises ValueError for a name that is none."""
    if name not in SUITES:
        raise ValueError(f"no suite '{name}': choose from {', '.join(SUITES)}")
    return SUITES[name]


def _text(value: object) -> str:
    return ",".join(str(n) for n in value) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
