"""`ruac export`: a model for onnxruntime, in a folder that Predictor opens without its weights in torch.

What needs torch is imported by the functions that use it, so that help and misspelt commands are answered at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ruac.errors import WorkError
from ruac.export.bundle import DECODER, ENCODER, Bundle, require_place, sha256, write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ruac.model import RuacModel

CALIBRATED_ON, CHECKED_ON = 32, 6  # pictures


def export(
    model: str = "nano",
    format: Literal["onnx"] = "onnx",
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    calibration_images: Path | None = None,
    head: Path | None = None,
    out: Path = Path("exported"),
) -> None:
    """Write a model as ONNX graphs: pictures to features, and features with prompts to masks and their uncertainty.

    <out>/encoder.onnx and <out>/decoder.onnx run wherever ONNX does; <out>/ruac-onnx.json says what they take. Use the folder as
    --model, or in Python as Predictor("<out>"). Both graphs are compared with torch on real pictures first, and nothing is
    written when they deviate; how much they do is printed, and stands in ruac-onnx.json.

    Example: ruac export --precision int8 --calibration-images photos --out exported

    Args:
        model: nano, a folder or a hub id (owner/name) of RUAC or of a SAM 2, or a file of original SAM 2 weights.
        format: onnx.
        precision: fp32; fp16, weights stored in half precision, for half the size; int8, an encoder that computes in 8 bits, which
            makes nano's faster still.
        calibration_images: Folder of pictures like yours: int8 needs them, and the comparison uses some. Without it, RUAC_DATA/train
            is used where it is, and for other precisions a photograph that comes with matplotlib.
        head: A head trained for that model, as a file.
        out: Folder for the result; an exported model that is there is replaced.

    Raises:
        ValueError: For a model that cannot be exported, and int8 without pictures.
        FileNotFoundError: When there is no such model or folder of pictures.
        WorkError: When the graphs do not answer as torch does.
    """
    require_place(out)
    files = picture_files(calibration_images, precision)

    from ruac.export.check import compare, deviations
    from ruac.loading import load
    from ruac.onnx_backend import OnnxModel, open_session

    loaded = load(model, head=head)
    pictures = [picture_of(file) for file in files]
    try:
        from ruac.export.graphs import to_onnx
        from ruac.export.precision import lowered

        graphs = lowered(to_onnx(loaded), precision, (prepared(loaded, image) for image in pictures))
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'ruac[onnx]'") from None
    bundle = bundle_of(loaded, model, precision, graphs)
    exported = OnnxModel(bundle, open_session(graphs[ENCODER]), open_session(graphs[DECODER]))
    bundle.check.update(compare(loaded, exported, pictures[:: max(1, len(pictures) // CHECKED_ON)]))
    if wrong := deviations(bundle.check, precision):
        raise WorkError(f"{model}: not written, since in {precision} it does not answer as torch does: {'; '.join(wrong)}")
    write(out, bundle, graphs)
    size = sum(map(len, graphs.values())) / 1e6
    print(f"{out}: {size:.1f} MB in {precision}, beside torch on {bundle.check['pictures']} pictures: {words(bundle.check)}")


def bundle_of(loaded: RuacModel, model: str, precision: str, graphs: Mapping[str, bytes]) -> Bundle:
    """What is to be said of a model's graphs, before they have been checked."""
    from importlib.metadata import version

    from ruac.export.graphs import OPSET
    from ruac.model import weights_sha256

    fit, grey = fitting(loaded)
    return Bundle(
        model=model,
        model_sha256=weights_sha256(loaded),
        precision=precision,
        side=loaded.side,
        grid=loaded.grid,
        fit=fit,
        grey=grey,
        quality=loaded.config.quality,
        head_trained=loaded.config.head_trained,
        opset=OPSET,
        files={name: sha256(content) for name, content in graphs.items()},
        check={},
        ruac=version("ruac"),
    )


def picture_files(folder: Path | None, precision: str) -> list[Path]:
    """Real pictures, evenly over a folder's. Raises FileNotFoundError, and ValueError for a folder without any."""
    from ruac.data.folder import IMAGE_SUFFIXES

    if folder is None:
        default = Path(os.environ.get("RUAC_DATA", "../shared/data")) / "train"
        if not default.is_dir():
            if precision == "int8":
                raise ValueError("int8 needs real pictures to find the ranges with: name a folder with --calibration-images")
            from matplotlib import cbook

            return [Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))]
        folder = default
    if not folder.is_dir():
        raise FileNotFoundError(f"--calibration-images {folder}: no such folder")
    # the masks of a data set are pictures, too
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.parent.name != "masks")
    if not files:
        raise ValueError(f"--calibration-images {folder}: no picture in it")
    step = len(files) / CALIBRATED_ON
    return files if step <= 1 else [files[int(i * step)] for i in range(CALIBRATED_ON)]


def picture_of(file: Path) -> NDArray[np.uint8]:
    """Raises ValueError."""
    from ruac.data.image import read_image

    return read_image(file)


def prepared(model: RuacModel, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the encoder takes, [1, 3, S, S]."""
    import torch

    return model.prepare(torch.from_numpy(image).permute(2, 0, 1))[0][None].contiguous().numpy()


def fitting(model: RuacModel) -> tuple[str, int]:
    """How a family makes a square of a picture, seen from a black one that is wide: `Bundle.fit` and `Bundle.grey`."""
    import torch

    square, frame = model.prepare(torch.zeros(3, 32, 64, dtype=torch.uint8))
    return ("stretch", 0) if frame.inside == (model.side, model.side) else ("pad", int(square[0, -1, -1]))


def words(check: dict[str, float]) -> str:
    """The figures of `compare` for people."""
    return (
        f"probabilities differ by {check['largest_probability']:.1g} at most and {check['mean_probability']:.1g} on average, "
        f"masks have a mean IoU of {check['mask_iou']:.4f} with torch's"
    )
