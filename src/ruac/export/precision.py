"""Graphs in fewer bits: weights stored in half precision, or an encoder that computes in 8 bits."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruac.export.bundle import DECODER, ENCODER

LEAST_HALVED = 1024  # numbers of a weight: smaller ones, a head's among them, would save nothing
# ReLU6 is taken into the convolution before it, and a sum of 8-bit numbers stays one
QUANTISED = ["Conv", "Add", "Clip"]


def lowered(graphs: dict[str, bytes], precision: str, pixels: Iterable[NDArray[np.uint8]]) -> dict[str, bytes]:
    """The graphs in a precision of PRECISIONS. pixels: inputs [1, 3, S, S] of the encoder, real ones, to find the ranges with.

    int8: the encoder's convolutions; its other weights do not matter, and the decoder is as in fp16.
    """
    if precision == "fp32":
        return graphs
    encoder = quantised(graphs[ENCODER], pixels) if precision == "int8" else halved(graphs[ENCODER])
    return {ENCODER: encoder, DECODER: halved(graphs[DECODER])}


def halved(graph: bytes) -> bytes:
    """Weights stored in half precision and widened when the graph is loaded: half the size, the same computation in float32."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(graph)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= LEAST_HALVED:
            name, values = weight.name, numpy_helper.to_array(weight)
            largest = np.finfo(np.float16).max
            weight.CopyFrom(numpy_helper.from_array(values.clip(-largest, largest).astype(np.float16), f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.widened", to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    return model.SerializeToString()


def quantised(graph: bytes, pixels: Iterable[NDArray[np.uint8]]) -> bytes:
    """Static quantisation, signed weights by channel and unsigned activations by tensor, as pairs of QuantizeLinear and
    DequantizeLinear that an engine fuses.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    class Reader(_reader_class()):
        def __init__(self) -> None:
            self.left: Iterator[NDArray[np.uint8]] = iter(pixels)

        def get_next(self) -> dict[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride]  it may be None there, too
            found = next(self.left, None)
            return None if found is None else {"pixels": found}

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a preparation that the exporter has done
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / ENCODER
            quantize_static(
                onnx.load_from_string(graph),
                str(out),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTISED,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return out.read_bytes()
    finally:
        root.setLevel(level)


def _reader_class() -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    return CalibrationDataReader
