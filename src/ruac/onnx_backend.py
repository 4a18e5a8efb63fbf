"""An exported model in place of a `RuacModel`, for `Predictor`: run by onnxruntime, on its own kernels or OpenVINO's."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.distribution import MaskDistribution
from ruac.errors import one_line
from ruac.export.bundle import DECODER, ENCODER, Bundle, is_exported, read
from ruac.families.inputs import pad_to_square, stretch_to_square
from ruac.features import NO_POINT, Frame, ImageFeatures, Prompts
from ruac.loading import UNTRAINED
from ruac.model import Answer, ranked_tokens

__all__ = ["PROVIDERS", "OnnxModel", "is_exported", "open_session"]

# of a backend: onnxruntime's name for it, and the package that has it
PROVIDERS = {
    "onnx": ("CPUExecutionProvider", "'ruac[onnx]'"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
}
LEVELS = ("fine", "middle", "coarse")


def open_session(graph: bytes, backend: str = "onnx") -> Any:
    """An onnxruntime.InferenceSession with as many threads as torch has.

    Raises ValueError without onnxruntime, without that backend's kernels, and for a graph that cannot be run.
    """
    provider, package = PROVIDERS[backend]
    try:
        import onnxruntime
    except ImportError:
        raise ValueError("onnxruntime is not installed: pip install 'ruac[onnx]'") from None
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"backend {backend}: this onnxruntime has no {provider}: pip install {package}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    # threads that wait busily would take the cores from the other graph's and from torch's
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(graph, options, providers=[provider])
    except Exception as error:  # noqa: BLE001  of kinds that onnxruntime does not document
        raise ValueError(f"onnxruntime cannot run the graph ({one_line(error)}); export the model again") from None


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """config: of the folder; encoder, decoder: sessions. What `Predictor` asks of a `RuacModel`, with the same meaning."""

    config: Bundle
    encoder: Any
    decoder: Any

    device = torch.device("cpu")

    @staticmethod
    def open(folder: Path, backend: str = "onnx") -> OnnxModel:
        """A folder that `ruac export` wrote. Warns when the model has no trained head.

        Raises FileNotFoundError, and ValueError for a folder or a backend that cannot be used.
        """
        bundle, graphs = read(folder)
        if not bundle.head_trained:
            warnings.warn(UNTRAINED.format(folder), stacklevel=2)
        encoder, decoder = (open_session(graphs[name], backend) for name in (ENCODER, DECODER))
        return OnnxModel(bundle, encoder, decoder)

    @property
    def sha256(self) -> str:
        """See `Bundle.sha256`."""
        return self.config.sha256

    @property
    def side(self) -> int:
        return self.config.side

    @property
    def grid(self) -> int:
        return self.config.grid

    def prepare(self, image: Tensor) -> tuple[Tensor, Frame]:
        """uint8 RGB [3, height, width] to uint8 [3, S, S] and where the image lies there."""
        if self.config.fit == "stretch":
            return stretch_to_square(image, self.side)
        return pad_to_square(image, self.side, self.side // self.grid, self.config.grey)

    def encode(self, pixels: Tensor, frames: tuple[Frame, ...]) -> ImageFeatures:
        """uint8 [B, 3, S, S]; the positions are in the decoder."""
        levels = self.encoder.run(list(LEVELS), {"pixels": pixels.contiguous().numpy()})
        return ImageFeatures(tuple(map(torch.from_numpy, levels)), frames, torch.empty(0))

    def answer(self, image: ImageFeatures, prompts: Prompts, multimask_output: bool) -> Answer:
        """See `RuacModel.answer`; an earlier mask of zeros alone counts as none."""
        outputs = ("mean", "variance", "gain", "iou", "object_score", "chosen")
        found = dict(zip(outputs, self.decoder.run(list(outputs), decoder_inputs(image, prompts, self.grid)), strict=True))
        iou = torch.from_numpy(found["iou"])
        index = ranked_tokens(iou) if multimask_output else torch.from_numpy(found["chosen"])[:, None]  # (P, M)
        mean, variance, gain = (torch.from_numpy(found[name]) for name in ("mean", "variance", "gain"))
        row = torch.arange(len(iou))[:, None]
        distribution = MaskDistribution(mean[row, index], variance[row, index], gain[row, index][..., None, None])
        return Answer(distribution, iou[row, index], torch.from_numpy(found["object_score"]))


def decoder_inputs(image: ImageFeatures, prompts: Prompts, grid: int) -> dict[str, np.ndarray]:
    """What the decoder's graph takes for P objects of one image: at least one point each, if only one that says nothing."""
    points, labels = prompts.points[0], prompts.labels[0]
    if not labels.shape[1]:
        points, labels = F.pad(points, (0, 0, 0, 1)), F.pad(labels, (0, 1), value=NO_POINT)
    masks = torch.zeros(len(labels), grid, grid) if prompts.mask_logits is None else prompts.mask_logits[0]
    levels = {name: level.numpy() for name, level in zip(LEVELS, image.levels, strict=True)}
    return levels | {
        "points": points.float().numpy(),
        "labels": labels.to(torch.int32).numpy(),
        "mask_input": masks.float().numpy(),
    }
