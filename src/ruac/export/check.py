"""Do the graphs answer as torch does? The same prompts on real pictures, both ways, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ruac.features import Frame, Prompts
from ruac.model import RuacModel, chosen_token
from ruac.onnx_backend import OnnxModel, decoder_inputs

OUTPUTS = ("probability", "uncertainty", "iou", "chosen")
# least and largest by precision: of what a user sees, so that no exception for one model is needed
LIMITS: dict[str, dict[str, tuple[float, float]]] = {
    "fp32": {"largest_probability": (0, 1e-3), "largest_uncertainty": (0, 5e-3), "largest_iou": (0, 1e-3)},
    "fp16": {"mean_probability": (0, 2e-3), "mask_iou": (0.98, 1)},
    "int8": {"mean_probability": (0, 0.03), "mask_iou": (0.9, 1)},
}


def compare(model: RuacModel, exported: OnnxModel, images: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """How far an exported model is from the model in torch, over RGB pictures.

    largest_probability, mean_probability: difference of any mask's pixel; largest_uncertainty: in bits; largest_iou: of the predicted
    IoU; mask_iou: mean IoU of the masks that a person is shown with those of torch; pictures: how many.
    """
    found: list[list[float]] = []
    with torch.inference_mode():
        for image in images:
            prepared, frame = model.prepare(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))
            features, theirs = model.encode(prepared[None], (frame,)), exported.encode(prepared[None], (frame,))
            earlier: torch.Tensor | None = None
            for prompts in _conversation(frame):
                asked = prompts.with_mask(earlier)
                decoded = model.decode(features, asked)
                ours = model(decoded)
                outputs = exported.decoder.run(list(OUTPUTS), decoder_inputs(theirs, asked, exported.grid))
                probability, uncertainty, iou, chosen = map(torch.from_numpy, outputs)
                index = chosen_token(decoded, asked, model.stability)
                row = torch.arange(len(chosen))
                away = (ours.probability()[0] - probability).abs()
                here, there = ours.probability()[0][row, index[0, :, 0]] > 0.5, probability[row, chosen] > 0.5
                shared, either = (here & there).sum((-2, -1)), (here | there).sum((-2, -1))
                found.append(
                    [
                        float(away.max()),
                        float(away.mean()),
                        float((ours.entropy()[0] - uncertainty).abs().max()),
                        float((decoded.iou[0] - iou).abs().max()),
                        float(torch.where(either > 0, shared / either.clamp_min(1), 1.0).mean()),
                    ]
                )
                earlier = ours.prompt.gather(2, index[..., None, None].expand(-1, -1, -1, *ours.mean.shape[-2:]))[:, :, 0]
    table = np.array(found)
    return {
        "largest_probability": float(table[:, 0].max()),
        "mean_probability": float(table[:, 1].mean()),
        "largest_uncertainty": float(table[:, 2].max()),
        "largest_iou": float(table[:, 3].max()),
        "mask_iou": float(table[:, 4].mean()),
        "pictures": len(images),
    }


def deviations(check: dict[str, float], precision: str) -> list[str]:
    """What is beyond the limits of a precision, in words; nan is."""
    return [
        f"{name} is {check[name]:.2g}, not {f'at most {most:g}' if least == 0 else f'at least {least:g}'}"
        for name, (least, most) in LIMITS[precision].items()
        if not least <= check[name] <= most
    ]


def _conversation(frame: Frame) -> Iterator[Prompts]:
    """About three objects: a click; two; a box. Then again, with more clicks: their masks are to be given back."""
    height, width = frame.inside
    size = torch.tensor([width, height], dtype=torch.float32)
    places = torch.tensor(
        [[[0.5, 0.5], [0, 0]], [[0.3, 0.4], [0.8, 0.7]], [[0.25, 0.25], [0.75, 0.8]]],
    )
    labels = torch.tensor([[1, -1], [1, 0], [2, 3]])
    prompts = Prompts((places * size)[None], labels[None])
    yield prompts
    more = torch.tensor([[0.6, 0.5], [0.4, 0.4], [0.5, 0.4]])[:, None]
    yield prompts.with_points((more * size)[None], torch.tensor([[1], [0], [1]])[None])
