"""EdgeTAM: SAM 2's decoder on a RepViT encoder, which needs timm (`pip install ruac[edgetam]`)."""

from __future__ import annotations

from ruac.families.sam2 import Sam2


class EdgeTam(Sam2):
    """sam: transformers' `EdgeTamModel`."""
