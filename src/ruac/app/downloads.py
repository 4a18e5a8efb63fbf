"""What can be taken away of an answer: the files of `ruac predict`, and the object as COCO has it."""

from __future__ import annotations

import base64
import json
from pathlib import PurePath
from typing import Any

from ruac.app.conversation import Conversation
from ruac.data.labels import encode
from ruac.data.layout import name_of
from ruac.exchange import coco
from ruac.exchange.labelset import LabelledObject, LabelSet, Picture
from ruac.output import BOUND_SUFFIXES, SUFFIXES, Origin, render
from ruac.predictor import Prediction

COCO = ".coco.json"
LABEL = "object"


def kinds(conversation: Conversation) -> list[str]:
    """Suffixes of the files that there are."""
    bound = BOUND_SUFFIXES if conversation.loaded.guarantee else ()
    return [*SUFFIXES, *bound, COCO]


def download(conversation: Conversation, kind: str) -> dict[str, str]:
    """A file for the browser, its content in base64. Raises ValueError before the first answer and for a kind that there is not."""
    if kind not in kinds(conversation):
        raise ValueError(f"no file {kind[:40]!r} to download")
    prediction, around = conversation.shown()
    loaded = conversation.loaded
    origin = Origin(conversation.name, loaded.name, loaded.sha256)
    files = render(conversation.image, conversation.told.prompt, prediction, origin, around)
    files[COCO] = _coco(prediction, json.loads(files[".json"]))
    return {
        "name": f"{name_of(PurePath(conversation.name).stem)}{kind}",
        "type": "image/png" if kind.endswith(".png") else "application/json",
        "content": base64.b64encode(files[kind]).decode("ascii"),
    }


def _coco(prediction: Prediction, known: dict[str, Any]) -> bytes:
    """known: of the object, as `ruac predict` writes it."""
    near = known["mean_uncertainty"]
    facts = {
        **{name: known[name] for name in ("score", "expected_iou", "object_score")},
        "mean_uncertainty": near["image"] if near["band"] is None else near["band"],
        "next_click": known["next_click"],
    }
    thing = LabelledObject.of_mask(LABEL, encode(prediction.masks[0]), facts)
    seen = Picture(known["image"], (known["height"], known["width"]), (thing,))
    info = {name: known[name] for name in ("model", "model_sha256", "ruac")}
    return coco.write(LabelSet((seen,), (LABEL,), info))
