"""The models that whoever starts the page allows; each is loaded when it is first chosen, and then shared by all sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from ruac.calibrate.bounds import Guarantee
from ruac.errors import one_line
from ruac.model import RuacModel, weights_sha256
from ruac.onnx_backend import OnnxModel
from ruac.predictor import Predictor

OFFLINE = "where the hub is out of reach, start the page with --models and the folder of a model on this disk"


class SizedPredictor(Predictor):
    """One that tells how much it keeps of its picture."""

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for level in self._features.levels) if self._features else 0


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that is ready. name: as it was allowed; guarantee: of its calibration, None without one."""

    name: str
    model: RuacModel | OnnxModel
    sha256: str
    guarantee: Guarantee | None

    def predictor(self) -> SizedPredictor:
        """For one picture; the weights are shared."""
        return SizedPredictor(self.model)


class Models:
    """names: of all that may be loaded, each once; head, calibration, alpha: of the first."""

    def __init__(
        self,
        names: Sequence[str],
        device: str = "cpu",
        head: Path | None = None,
        calibration: Path | None = None,
        alpha: float | None = None,
    ):
        self.names = tuple(dict.fromkeys(names))
        self._device, self._head, self._calibration, self._alpha = device, head, calibration, alpha
        self._loaded: dict[str, Loaded] = {}
        self._lock = Lock()

    @property
    def first(self) -> str:
        return self.names[0]

    def get(self, name: str) -> Loaded:
        """Raises ValueError for a name that is not allowed or a model that cannot be used, FileNotFoundError where there is none."""
        # those that are loaded do not wait for one that is being fetched
        if name not in self._loaded:
            with self._lock:
                if name not in self._loaded:
                    self._loaded[name] = self._load(name)
        return self._loaded[name]

    def options(self, name: str) -> dict[str, Any]:
        """What a command of ruac needs to use that model as it is used here. Raises ValueError for a name that is not allowed."""
        if name not in self.names:
            raise ValueError(f"no model {name[:80]!r} here; there are {', '.join(self.names)}")
        own = {"head": self._head, "calibration": self._calibration, "alpha": self._alpha} if name == self.first else {}
        return {"model": name, "device": self._device, **own}

    def _load(self, name: str) -> Loaded:
        told = self.options(name)
        try:
            model = Predictor(name, self._device, told.get("head")).model
        except FileNotFoundError as error:
            if Path(name).exists():
                raise
            raise FileNotFoundError(f"{one_line(error)}; {OFFLINE}") from None
        sha256 = weights_sha256(model)
        return Loaded(name, model, sha256, Guarantee.of(name, sha256, told.get("calibration"), told.get("alpha")))
