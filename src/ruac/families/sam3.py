"""SAM 3's tracker: SAM 2's decoder on another encoder. (SAM 3 itself is prompted by concepts, not by clicks.)"""

from __future__ import annotations

from ruac.families.sam2 import Sam2


class Sam3Tracker(Sam2):
    """sam: transformers' `Sam3TrackerModel`."""

    mean = spread = (0.5, 0.5, 0.5)
