"""int8 and fp8 by ONNX Runtime's static quantisation: Q/DQ nodes around products of the encoder.

The head comes later and stays fp32. Weights are symmetric, with a scale per channel for int8.

For TensorRT, activations are symmetric (it has no zero point) and biases stay in floating point (it
reads no int32 DequantizeLinear). Only inputs of products are rounded, not their outputs, so each
activation is rounded once instead of twice. For ONNX Runtime on the CPU, activations are unsigned,
as its VNNI kernels need them, and whole chains of operators stay in eight bits. Weights have seven
bits there: without VNNI the sum of two products of eight bits saturates (a small ViT reached a
centred cosine of 0.939 instead of 0.998).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from taidpt.export.graph.onnx_files import RESIZE_PREFIX, finish_graph, quiet_tools
from taidpt.export.precision.activation_ranges import Frames, activation_ranges
from taidpt.export.precision.cpu_graph import (
    is_pool,
    is_slow_in_int8,
    pools_before,
    rewrite_for_cpu,
)
from taidpt.progress import Progress, SilentProgress
from taidpt.runtime.errors import BackendError

if TYPE_CHECKING:
    import onnx

__all__ = ["METHODS", "QuantisationScheme", "Quantiser", "scheme_for"]

METHODS = ("Percentile", "MinMax")
_PRODUCTS = ("Conv", "MatMul", "Gemm")
# ONNX Runtime itself keeps eight bits through Add and AveragePool where both sides have them.
_CHAINED = ("Relu",)
_LARGEST_FP8 = 448.0  # of E4M3FN


@dataclass(frozen=True)
class QuantisationScheme:
    """How a precision is quantised.

    Attributes:
        low: ONNX Runtime's name of the weights' and activations' type.
        for_cpu: unsigned activations and chains of operators, for ONNX Runtime's CPU provider.
    """

    low: str = "QInt8"
    for_cpu: bool = False

    @property
    def ops(self) -> tuple[str, ...]:
        """Operators that may be quantised."""
        return (*_PRODUCTS, *_CHAINED) if self.for_cpu else _PRODUCTS

    @property
    def is_fp8(self) -> bool:
        """Whether values are small floats instead of whole numbers."""
        return self.low == "QFLOAT8E4M3FN"


def scheme_for(precision: str, for_cpu: bool = False) -> QuantisationScheme:
    """The scheme of "int8" or "fp8"."""
    if precision == "fp8":
        return QuantisationScheme("QFLOAT8E4M3FN")
    return QuantisationScheme(for_cpu=for_cpu)


class Quantiser:
    """Quantises one encoder, with one set of calibration frames, as often as needed."""

    def __init__(
        self,
        encoder: onnx.ModelProto,
        frames: Frames,
        scheme: QuantisationScheme,
        method: str = METHODS[0],
        progress: Progress | None = None,
    ) -> None:
        """Calibrate.

        Args:
            encoder: fp32, not changed.
            frames: uint8 [N, *frame shape].
            scheme: int8 or fp8, for TensorRT or the CPU.
            method: how ranges follow from values, one of `METHODS`; fp8 always takes "MinMax".
            progress: told about the calibration.
        Raises:
            BackendError: ONNX Runtime cannot calibrate this encoder.
        """
        self.scheme = scheme
        self.method = "MinMax" if scheme.is_fp8 else method
        with _quiet_tool(f"calibrate this encoder for {scheme.low}"):
            self.encoder = _prepared(encoder, scheme)
            self._ranges = activation_ranges(
                self.encoder,
                frames,
                self.method,
                scheme.ops,
                not scheme.for_cpu,
                progress or SilentProgress(),
            )
        self._overrides = _fp8_scales(self.encoder, self._ranges) if scheme.is_fp8 else {}
        self.weights = dict(_worthwhile(self.encoder, scheme))
        """Number of weights of each product that may be quantised."""

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products that may be quantised, in the graph's order."""
        return tuple(self.weights)

    def quantise(self, kept: Sequence[str] = (), only: Sequence[str] = ()) -> onnx.ModelProto:
        """The encoder with Q/DQ nodes.

        Args:
            kept: products that stay in fp32.
            only: products to quantise; empty means all but those of `kept`.
        """
        import onnx
        from onnxruntime import quantization as ort
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        scheme = self.scheme
        low = ort.QuantType[scheme.low]
        model = onnx.ModelProto()
        model.CopyFrom(self.encoder)
        excluded = [*kept, *self._never()]
        options: dict[str, Any] = {
            "ActivationSymmetric": not scheme.for_cpu,
            "WeightSymmetric": True,
            "QuantizeBias": scheme.for_cpu,
            "TensorQuantOverrides": dict(self._overrides),
        }
        if not scheme.for_cpu:
            options["OpTypesToExcludeOutputQuantization"] = list(_PRODUCTS)
        with _quiet_tool(f"quantise this encoder to {scheme.low}"):
            quantizer = QDQQuantizer(
                model,
                per_channel=not scheme.is_fp8,
                reduce_range=scheme.for_cpu,
                weight_qType=low,
                activation_qType=ort.QuantType.QUInt8 if scheme.for_cpu else low,
                tensors_range=self._ranges,
                nodes_to_quantize=list(only),
                nodes_to_exclude=[*excluded, *pools_before(self.encoder.graph, excluded)],
                op_types_to_quantize=list(scheme.ops),
                extra_options=options,
            )
            quantizer.quantize_model()
        return finish_graph(quantizer.model.model)

    def _never(self) -> list[str]:
        """Products that gain nothing, and for the CPU also those that take raw pixels."""
        graph = self.encoder.graph
        skipped = [
            node.name
            for node in graph.node
            if node.op_type in _PRODUCTS and node.name not in self.weights and not is_pool(node)
        ]
        return skipped if not self.scheme.for_cpu else [*skipped, *_on_pixels(graph)]


def _prepared(encoder: onnx.ModelProto, scheme: QuantisationScheme) -> onnx.ModelProto:
    """The encoder with the type of every tensor, in an opset that has the low type."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

    model = save_and_reload_model_with_shape_infer(encoder)
    if scheme.is_fp8 and model.opset_import[0].version < 19:
        from onnxruntime.quantization.quantize import update_opset_version

        model = update_opset_version(model, QuantType[scheme.low])
    if scheme.for_cpu:
        rewrite_for_cpu(model)
    return model


def _worthwhile(encoder: onnx.ModelProto, scheme: QuantisationScheme) -> Iterator[tuple[str, int]]:
    """Products that are worth quantising, and how many weights each has.

    Left out: products of two activations (attention); stacks of matrices, for which ONNX Runtime
    has no kernel with a scale per channel; the resize, which counts grey levels; for TensorRT,
    products of one row per picture, which cost little time and, at the end of the encoder, much
    accuracy. On a CPU their fp32 weights are a tenth of the time of a single picture. Left out
    there: convolutions that are slower in int8. Pools go with the convolutions around them.
    """
    graph = encoder.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    values = (*graph.value_info, *graph.output)
    known = {value.name: value.type.tensor_type.shape for value in values}
    for node in graph.node:
        weights = [shapes[name] for name in node.input[:2] if name in shapes]
        if node.op_type not in _PRODUCTS or node.name.startswith(RESIZE_PREFIX) or not weights:
            continue
        rows = len(known[node.output[0]].dim) if node.output[0] in known else 0
        one_row = node.op_type != "Conv" and rows == 2 and not _is_flattened(known, node)
        slow = is_pool(node) or is_slow_in_int8(node, weights[0])
        if len(weights[0]) in (2, 4) and not (slow if scheme.for_cpu else one_row):
            yield node.name, math.prod(weights[0])


def _is_flattened(known: dict[str, Any], node: onnx.NodeProto) -> bool:
    """Whether the rows of [rows, D] are pictures × positions, so that their number is not N."""
    first = known[node.output[0]].dim[0]
    return bool(first.dim_param and any(sign in first.dim_param for sign in "*+"))


def _on_pixels(graph: onnx.GraphProto) -> Iterator[str]:
    pixels = {graph.input[0].name}
    for node in graph.node:
        if node.op_type not in _PRODUCTS and pixels & set(node.input):
            pixels.update(node.output)
            yield node.name


def _fp8_scales(encoder: onnx.ModelProto, ranges: Any) -> dict[str, list[dict[str, Any]]]:
    """Scales that map the largest value to fp8's largest, as TensorRT's own tools choose them.

    ONNX Runtime's rule matches standard deviations and clips values beyond 4.5 of them. On the toy
    world it gave a mean centred cosine of 0.75; this rule gives 0.98.
    """
    from ml_dtypes import float8_e4m3fn
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType

    largest = {
        name: float(np.abs(np.asarray(data.range_value, np.float64)).max())
        for name, data in ranges.items()
    }
    weights = {name for node in encoder.graph.node for name in node.input[1:2]}
    for tensor in encoder.graph.initializer:
        if tensor.name in weights and len(tensor.dims) > 1:
            largest[tensor.name] = float(np.abs(numpy_helper.to_array(tensor)).max())
    smallest = float(np.finfo(np.float32).tiny) * _LARGEST_FP8
    return {
        name: [
            {
                "quant_type": QuantType.QFLOAT8E4M3FN,
                "scale": np.array(max(value, smallest) / _LARGEST_FP8, np.float32),
                "zero_point": np.zeros((), float8_e4m3fn),
            }
        ]
        for name, value in largest.items()
    }


@contextlib.contextmanager
def _quiet_tool(task: str) -> Iterator[None]:
    """Silence ONNX Runtime's tools, and turn their many kinds of errors into one of ours."""
    try:
        with quiet_tools():
            yield
    except (KeyboardInterrupt, OSError):
        raise
    except Exception as error:  # plain ValueErrors, KeyErrors and worse
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BackendError(f"ONNX Runtime cannot {task}: {reason}") from error
