"""Which sets belong together in a summary."""

from __future__ import annotations

from typing import Any

ZERO_SHOT = "zero-shot"
GROUPS = {
    "ecssd": "near-source",
    "bsds500": "near-source",
    "aerial_roads": "stress",
    "crackforest": "stress",
    "retina_vessels": "stress",
}
MEANING = {
    "near-source": "the kind of picture that the embedded model nano was trained on",
    "stress": "thin networks, where a click says little",
    ZERO_SHOT: "all others, none of which nano was trained on",
}


def group_of(name: str, meta: dict[str, Any]) -> str:
    """What the set's meta.json names as its "group", else what GROUPS says, else zero-shot."""
    return str(meta.get("group", GROUPS.get(name, ZERO_SHOT)))
