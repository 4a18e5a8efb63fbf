"""calibration.json: what a calibration found, for which model, on what and prompted how."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from scipy.special import expit

from ruac.calibrate.policy import Kind, Policy
from ruac.calibrate.risk import Level, Limit
from ruac.calibrate.shift import SCALES, Traits
from ruac.errors import one_line
from ruac.writing import write_whole

FILE = "calibration.json"
FORMAT = "ruac-calibration-1"
LOOKS, DOUBTS = 7 + SCALES, 4  # numbers of `Traits`


@dataclass(frozen=True)
class Calibration:
    """model: its name when it was calibrated; sets: images of each that counted or not; fingerprint: of their files; images:
    with an object, those that count; levels: in the order they were asked for; traits: of every image that counts."""

    model: str
    model_sha256: str
    sets: Mapping[str, int]
    fingerprint: str
    images: int
    objects: int
    policy: Policy
    temperature: float
    levels: tuple[Level, ...]
    traits: tuple[Traits, ...]

    def level(self, alpha: float | None) -> Level:
        """The first, or the one named. Raises ValueError when there is none such."""
        if alpha is None:
            return self.levels[0]
        found = [level for level in self.levels if math.isclose(level.alpha, alpha)]
        if not found:
            known = ", ".join(f"{level.alpha:g}" for level in self.levels)
            raise ValueError(f"--alpha {alpha:g}: the calibration has {known}; run ruac calibrate with --alpha {alpha:g}")
        return found[0]

    def write(self, path: Path) -> None:
        """The file, whole; its folder is made if need be."""
        content = {
            "format": FORMAT,
            "ruac": version("ruac"),
            "model": self.model,
            "model_sha256": self.model_sha256,
            "data": {"sets": dict(self.sets), "fingerprint": self.fingerprint},
            "n": self.images,
            "objects": self.objects,
            "prompts": self.policy.describe(),
            "temperature": self.temperature,
            "levels": [_level_to_json(level, self.temperature) for level in self.levels],
            "reference": [asdict(traits) for traits in self.traits],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    @staticmethod
    def read(path: Path) -> Calibration:
        """Raises FileNotFoundError, and ValueError naming a file that is no calibration."""
        if not path.is_file():
            raise FileNotFoundError(f"no calibration at {path}: `ruac calibrate` writes one")
        try:
            return _from_json(json.loads(path.read_bytes()))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            reason = f"no entry {error}" if isinstance(error, KeyError) else one_line(error)
            raise ValueError(f"{path}: not a calibration that `ruac calibrate` wrote, or damaged ({reason})") from None


def find(model: str, named: Path | None, model_sha256: str) -> Calibration | None:
    """The calibration that is named, or else the one in the model's folder, if that is a folder and has one.

    Raises FileNotFoundError and ValueError as `Calibration.read`, and ValueError for one of another model.
    """
    path = named or Path(model) / FILE
    if named is None and not path.is_file():
        return None
    calibration = Calibration.read(path)
    if calibration.model_sha256 != model_sha256:
        remedy = "calibrate this one" if named else f"calibrate this one, or move {FILE} away"
        raise ValueError(
            f"{path}: made for other weights ({calibration.model_sha256[:12]}) than this model's ({model_sha256[:12]}): {remedy}"
        )
    return calibration


def _from_json(content: Any) -> Calibration:
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
    asked = content["prompts"]
    if asked["kind"] not in get_args(Kind):
        raise ValueError(f"unknown prompts {asked['kind']!r}")
    found = Calibration(
        model=str(content["model"]),
        model_sha256=str(content["model_sha256"]),
        sets={str(name): int(images) for name, images in content["data"]["sets"].items()},
        fingerprint=str(content["data"]["fingerprint"]),
        images=int(content["n"]),
        objects=int(content["objects"]),
        policy=Policy(asked["kind"], int(asked["max_objects"]), int(asked["seed"])),
        temperature=float(content["temperature"]),
        levels=tuple(_level_from_json(entry) for entry in content["levels"]),
        traits=tuple(_traits_from_json(entry) for entry in content["reference"]),
    )
    if not (found.levels and math.isfinite(found.temperature) and found.temperature > 0):
        raise ValueError("no level, or a temperature that is no positive number")
    return found


def _level_to_json(level: Level, temperature: float) -> dict[str, Any]:
    """null in place of a threshold: the outer mask is the whole picture, the inner one is empty."""

    def entry(limit: Limit) -> dict[str, float | None]:
        known = math.isfinite(limit.logit)
        return {
            "logit": limit.logit if known else None,
            "probability": float(expit(limit.logit / temperature)),
            "calibration_risk": limit.risk,
            "mean_size": limit.size,
        }

    return {"alpha": level.alpha, "outer": entry(level.outer), "inner": entry(level.inner)}


def _level_from_json(entry: Any) -> Level:
    def limit(side: str, beyond: float) -> Limit:
        given = entry[side]
        logit = beyond if given["logit"] is None else float(given["logit"])
        found = Limit(logit, float(given["calibration_risk"]), float(given["mean_size"]))
        if math.isnan(logit) or logit * beyond < 0:
            raise ValueError(f"the {side} mask's threshold is {logit}")
        return found

    return Level(float(entry["alpha"]), limit("outer", -math.inf), limit("inner", math.inf))


def _traits_from_json(entry: Any) -> Traits:
    traits = Traits(tuple(map(float, entry["look"])), tuple(map(float, entry["doubt"])))
    if (len(traits.look), len(traits.doubt)) != (LOOKS, DOUBTS) or not all(map(math.isfinite, traits.look + traits.doubt)):
        raise ValueError("a picture's reference is incomplete")
    return traits
