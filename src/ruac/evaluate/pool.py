"""All pixels of a set together, exactly: the histograms of its images added up, in memory and in <set>.pool.safetensors.

Counts are whole numbers, and sums are rounded, an image at a time, to multiples of UNIT and kept as whole numbers, so that a pool
does not depend on the order of its images, on who evaluated which of them, or on how often the run was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ruac.errors import one_line
from ruac.evaluate.disagreement import DisagreementHistogram
from ruac.evaluate.error_detection import ErrorHistogram
from ruac.evaluate.patches import PatchCounts
from ruac.evaluate.protocol import ImageResult
from ruac.writing import write_whole

# of sums; an image's rounding is lost in that of its pixels, and 5e11 of them fit
UNIT = 2.0**-24
REGIONS = ("image", "band")
METADATA = "ruac"

Counted = TypeVar("Counted", ErrorHistogram, PatchCounts, DisagreementHistogram)


class Pool:
    """images: those counted; tensors: "<kind>.<method>.<region>@<prompts>.<field>", whole numbers; kind: pixels, patches, people."""

    def __init__(self, images: frozenset[str] = frozenset(), tensors: Mapping[str, NDArray[np.int64]] | None = None):
        self.images = images
        self.tensors = dict(tensors or {})

    @staticmethod
    def of(result: ImageResult) -> Pool:
        """One image."""
        tensors: dict[str, NDArray[np.int64]] = {}
        for clicks, judged in result.after.items() if result.objects else ():
            for kind, methods in (("pixels", judged.detection), ("patches", judged.patches), ("people", judged.people)):
                for method, regions in methods.items():
                    for region in REGIONS:
                        tensors |= _packed(f"{kind}.{method}.{region}@{clicks}", getattr(regions, region))
        return Pool(frozenset({result.id}), tensors)

    def __add__(self, other: Pool) -> Pool:
        """Of different images. Raises ValueError when one is in both."""
        if both := self.images & other.images:
            raise ValueError(f"image '{min(both)}' would be counted twice")
        tensors = self.tensors | other.tensors
        tensors |= {name: self.tensors[name] + other.tensors[name] for name in self.tensors.keys() & other.tensors.keys()}
        return Pool(self.images | other.images, tensors)

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name.split(".")[1] for name in sorted(self.tensors)))

    @property
    def clicks(self) -> tuple[int, ...]:
        """After how many prompts there are histograms."""
        return tuple(sorted({int(name.split("@")[1].split(".")[0]) for name in self.tensors}))

    def histogram(self, method: str, region: str, clicks: int) -> ErrorHistogram:
        """Of all pixels; empty where nothing was counted."""
        return self._unpacked(ErrorHistogram.empty(), f"pixels.{method}.{region}@{clicks}")

    def patches(self, method: str, region: str, clicks: int) -> PatchCounts:
        return self._unpacked(PatchCounts.empty(), f"patches.{method}.{region}@{clicks}")

    def people(self, method: str, region: str, clicks: int) -> DisagreementHistogram:
        return self._unpacked(DisagreementHistogram.empty(), f"people.{method}.{region}@{clicks}")

    def save(self, path: Path, origin: Mapping[str, Any]) -> None:
        """The same bytes for the same pool. origin: what made it, as JSON has it."""
        # one entry only: several would be written in an order of their own
        metadata = {METADATA: json.dumps({"origin": origin, "images": sorted(self.images)})}
        write_whole(path, save(self.tensors, metadata=metadata))

    @staticmethod
    def load(path: Path, origin: Mapping[str, Any] | None = None) -> Pool:
        """Raises ValueError for a file that is no pool, and for one made by something else than `origin`."""
        try:
            with safe_open(path, "np") as opened:
                described = json.loads((opened.metadata() or {})[METADATA])
                pool = Pool(frozenset(described["images"]), {name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
            made_by = described["origin"]
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(one_line(error, f"{path}: damaged ({type(error).__name__}); delete it to evaluate again")) from None
        if origin is not None and made_by != origin:
            raise ValueError(f"{path}: belongs to another run; delete it to evaluate again")
        return pool

    def _unpacked(self, empty: Counted, prefix: str) -> Counted:
        values = {}
        for field in fields(empty):
            default = np.asarray(getattr(empty, field.name))  # of no dimension where the field is one number
            stored = self.tensors.get(f"{prefix}.{field.name}", np.zeros(default.shape or 1, np.int64))
            number = stored * UNIT if default.dtype.kind == "f" else stored
            values[field.name] = number if default.ndim else number.item()
        return type(empty)(**values)


def _packed(prefix: str, counted: ErrorHistogram | PatchCounts | DisagreementHistogram) -> dict[str, NDArray[np.int64]]:
    packed = {}
    for field in fields(counted):
        value = np.atleast_1d(getattr(counted, field.name))
        packed[f"{prefix}.{field.name}"] = (
            np.rint(value / UNIT).astype(np.int64) if value.dtype.kind == "f" else value.astype(np.int64)
        )
    return packed
