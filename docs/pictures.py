"""The pictures of the documentation, made from photographs that installed packages ship.

    python docs/pictures.py --out docs/pictures

One JSON object with the size of each file is the last line.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ruac.data.image import read_image
from ruac.output import Origin, render
from ruac.predictor import Prediction, Predictor, Prompt
from ruac.writing import write_whole

WIDTH = 1100  # of a picture, in pixels
CAT = "skimage", "data/chelsea.png"
HOPPER = "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    predictor = Predictor()
    pictures = {
        "one-click": overlay(predictor, CAT, Prompt([[220, 150]])),
        "clicks": np.hstack(
            [
                overlay(predictor, HOPPER, Prompt([[256, 230]])),
                overlay(predictor, HOPPER, Prompt([[256, 230], [223, 100]])),
            ]
        ),
        "maps": maps(predictor, CAT, Prompt([[220, 150]])),
    }
    print(json.dumps({name: save(out / f"{name}.webp", pixels) for name, pixels in pictures.items()}))
    return 0


def overlay(predictor: Predictor, photograph: tuple[str, str], prompt: Prompt) -> NDArray[np.uint8]:
    """What `ruac predict` writes as <name>.overlay.png, RGB."""
    pixels, answer = ask(predictor, photograph, prompt)
    files = render(pixels, prompt, answer, Origin(photograph[1], "nano", ""))
    return np.asarray(Image.open(io.BytesIO(files[".overlay.png"])).convert("RGB"))


def maps(predictor: Predictor, photograph: tuple[str, str], prompt: Prompt) -> NDArray[np.uint8]:
    """The maps of a prediction side by side, RGB."""
    pixels, answer = ask(predictor, photograph, prompt)
    panels = {
        "photograph and mask": (cv2.drawContours(pixels.copy(), contours(answer.masks[0]), -1, (0, 230, 255), 2), None),
        "probability": (answer.probability[0], 1.0),
        "uncertainty (bits)": (answer.uncertainty[0], 1.0),
        "expected error": (answer.expected_error[0], 0.5),
    }
    figure = Figure(figsize=(11, 2.6), dpi=100, layout="constrained")
    for axes, (title, (values, highest)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        shown = axes.imshow(values, cmap="cividis", vmin=0, vmax=highest)
        axes.set_title(title, fontsize=9)
        axes.axis("off")
        if highest is not None:
            figure.colorbar(shown, ax=axes, orientation="horizontal", shrink=0.8, ticks=(0, highest / 2, highest))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def ask(predictor: Predictor, photograph: tuple[str, str], prompt: Prompt) -> tuple[NDArray[np.uint8], Prediction]:
    package, name = photograph
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    pixels = read_image(Path(spec.origin).parent / name)
    predictor.set_image(pixels)
    return pixels, predictor.predict_many([prompt])[0]


def contours(mask: NDArray[np.bool_]) -> Sequence[NDArray]:
    return cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]


def save(path: Path, pixels: NDArray[np.uint8]) -> int:
    """Returns the bytes written."""
    picture = Image.fromarray(pixels)
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "webp", quality=75)
    write_whole(path, buffer.getvalue())
    return len(buffer.getvalue())


if __name__ == "__main__":
    sys.exit(main())
