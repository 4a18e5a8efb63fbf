"""ruac: Segment Anything with a pixel-wise uncertainty you can trust.

    from ruac import Predictor

    predictor = Predictor("nano")
    predictor.set_image("photo.jpg")
    prediction = predictor.predict(point_coords=[[320, 240]])
    prediction.masks, prediction.uncertainty  # [1, height, width]: bool, and bits from 0 (certain) to 1 (a coin toss)

Letters in the shapes of this package: B images, P prompts (objects) an image, K mask tokens (candidate masks), N clicks an
object, M masks returned, C decoder channels, D width of a mask token, H and W the decoder's output grid (h and w in results),
S the side of the square network input. Images have [height, width]; points are (x, y) in their pixels, (0, 0) being the centre
of the first.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ruac.adapter import load_head, save_head
    from ruac.loading import load
    from ruac.predictor import Prediction, Predictor
    from ruac.video.predictor import VideoPredictor

__all__ = ["Prediction", "Predictor", "VideoPredictor", "__version__", "load", "load_head", "save_head"]
__version__ = version("ruac")

_HOMES = {
    "Predictor": "ruac.predictor",
    "Prediction": "ruac.predictor",
    "VideoPredictor": "ruac.video.predictor",
    "load": "ruac.loading",
    "load_head": "ruac.adapter",
    "save_head": "ruac.adapter",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: only when asked for, so that `ruac --help` answers at once
    if name not in _HOMES:
        raise AttributeError(f"module 'ruac' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
