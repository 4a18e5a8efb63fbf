"""Contact sheets of every attack on twelve photographs that installed packages ship.

    python benchmarks/attack_sheets.py --out docs/attacks [--quick]

The true masks are the embedded model's own, of the clicks below: what counts here is what the eye sees of the attack. One JSON object
with the largest changes is the last line.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from ruac.attack import ATTACKS
from ruac.attack.command import try_attack
from ruac.attack.sheet import draw_sheet
from ruac.data.image import read_image
from ruac.data.scenes import Scene, letterbox
from ruac.loading import load
from ruac.predictor import Predictor
from ruac.training.loop import resized
from ruac.writing import write_whole

SIDE = 256
# package, file in it, a click on the object in pixels of the original
PICTURES = [
    ("skimage", "data/astronaut.png", (220, 120)),
    ("skimage", "data/camera.png", (230, 250)),
    ("skimage", "data/chelsea.png", (220, 150)),
    ("skimage", "data/coffee.png", (300, 210)),
    ("skimage", "data/coins.png", (120, 190)),
    ("skimage", "data/rocket.jpg", (325, 200)),
    ("skimage", "data/horse.png", (200, 150)),
    ("skimage", "data/motorcycle_left.png", (350, 300)),
    ("skimage", "data/cell.png", (330, 270)),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (256, 230)),
    ("sklearn", "datasets/images/china.jpg", (320, 250)),
    ("sklearn", "datasets/images/flower.jpg", (320, 200)),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/attacks"))
    parser.add_argument("--quick", action="store_true", help="two pictures and two steps, under 50 s")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    pictures, steps = (PICTURES[:2], 2) if options.quick else (PICTURES, 50)
    model = load("nano").requires_grad_(False)
    scenes = [_scene(Predictor(model), *picture) for picture in pictures]
    small = resized(model, SIDE).eval().requires_grad_(False)
    options.out.mkdir(parents=True, exist_ok=True)
    figures = {}
    for kind in track([kind for kind in ATTACKS if kind != "none"], "attacking", console=Console(stderr=True)):
        # climbing with PGD is learning at every step: a tenth of the steps
        tried = try_attack(small, scenes, kind, "proper", max(1, steps // 10) if kind == "pgd" else steps, seed=0)
        buffer = io.BytesIO()
        Image.open(io.BytesIO(draw_sheet(tried))).convert("RGB").save(buffer, "webp", quality=70)
        write_whole(options.out / f"{kind}.webp", buffer.getvalue())
        figures[kind] = {name: round(float(values.max()), 3) for name, values in tried.attacked.magnitudes.items()}
    print(json.dumps({"pictures": len(pictures), "steps": steps, "largest": figures}))
    return 0


def _scene(predictor: Predictor, package: str, name: str, click: tuple[int, int]) -> Scene:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    pixels = read_image(Path(spec.origin).parent / name)
    predictor.set_image(pixels)
    mask = predictor.predict(point_coords=[click]).masks[0]
    return letterbox(pixels, mask.astype(np.uint8), SIDE)


if __name__ == "__main__":
    sys.exit(main())
