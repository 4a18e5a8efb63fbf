"""What methods must be fitted with before they can be compared, kept beside the results so that it is fitted once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ruac.data.folder import FolderSet
from ruac.errors import one_line
from ruac.evaluate.baselines import Temperatures
from ruac.evaluate.protocol import Protocol
from ruac.evaluate.results import write_text
from ruac.evaluate.shards import Crew
from ruac.evaluate.temperature import fit_temperature
from ruac.model import RuacModel, weights_sha256

FILE = "temperatures.json"


def refuse_evaluated(calibration: Sequence[FolderSet], evaluated: Sequence[FolderSet]) -> None:
    """Raises ValueError when a set, or an image, is fitted on and evaluated: results on it would be too good."""
    images = {sample.image.resolve() for part in evaluated for sample in part.samples}
    for part in calibration:
        if any(sample.image.resolve() in images for sample in part.samples):
            raise ValueError(
                f"--calibration: the set '{part.name}' is evaluated, too; fit on images that no result is reported on"
            )


def temperatures(model: RuacModel, sets: Sequence[FolderSet], protocol: Protocol, out: Path, crew: Crew) -> Temperatures:
    """Those of <out>/temperatures.json where they were fitted on these sets for this model and protocol, else fitted and written.

    Raises ValueError as `fit_temperature`.
    """
    file = out / FILE
    wanted = {
        "weights": weights_sha256(model),
        "protocol": asdict(replace(protocol, noc=None)) | {"clicks": list(protocol.clicks)},
        "sets": {part.name: [sample.id for sample in part.samples] for part in sets},
    }
    if crew.first and _stored(file, wanted) is None:
        fitted = fit_temperature(model, sets, replace(protocol, noc=None))
        out.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(wanted | {"temperatures": fitted}) + "\n")
    crew.wait()
    stored = _stored(file, wanted)
    if stored is None:
        raise ValueError(f"{file}: was changed while it was needed; start again")
    return stored


def _stored(file: Path, wanted: dict[str, Any]) -> Temperatures | None:
    """None when there is no file, or one for something else."""
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text())
        temperatures = {int(prompts): float(value) for prompts, value in found.pop("temperatures").items()}
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(one_line(error, f"{file}: damaged; delete it")) from None
    return temperatures if found == wanted else None
