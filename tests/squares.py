"""A made-up set of pictures of two squares each, for tests of the evaluation."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_set(root: Path, images: int = 3) -> Path:
    """Pictures of two squares each, one of them with an ignored stripe."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(images):
        ids = np.zeros((40, 56), np.uint8)
        ids[4 + i : 20, 5:25], ids[22:36, 30:50] = 1, 9
        ids[:, 52:] = 255
        picture = rng.integers(0, 120, (40, 56, 3)) + 130 * (ids > 0)[..., None]
        Image.fromarray(picture.astype(np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(ids).save(root / "masks" / f"{i}.png")
    return root
