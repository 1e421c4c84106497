"""int8 and fp8 by ONNX Runtime's static quantisation: Q/DQ nodes around products of the encoder.

The head comes later and stays fp32. Weights are symmetric, a scale a channel for int8. For
TensorRT, activations are symmetric (it knows no zero point), biases stay in floating point (it
reads no int32 DequantizeLinear), and only what goes into a product is rounded, not what comes out
of it, which rounds each activation once instead of twice. For ONNX Runtime on the CPU activations
are unsigned, as its VNNI kernels want them, and whole chains of operators stay in eight bits.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from taidpt.export.graph.onnx_files import RESIZE_PREFIX, finish_graph
from taidpt.export.precision.activation_ranges import Frames, activation_ranges
from taidpt.progress import Progress, SilentProgress
from taidpt.runtime.errors import BackendError

if TYPE_CHECKING:
    import onnx

__all__ = ["METHODS", "Quantiser", "Recipe", "recipe_for"]

METHODS = ("Percentile", "MinMax")
_PRODUCTS = ("Conv", "MatMul", "Gemm")
# ONNX Runtime itself carries eight bits on through Add and AveragePool where both sides have them.
_CHAINED = ("Relu",)
_LARGEST_FP8 = 448.0  # of E4M3FN


@dataclass(frozen=True)
class Recipe:
    """How a precision is quantised.

    Attributes:
        low: ONNX Runtime's name of the weights' and activations' type.
        for_cpu: unsigned activations and chains, for ONNX Runtime's CPU provider.
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


def recipe_for(precision: str, for_cpu: bool = False) -> Recipe:
    """The recipe of "int8" or "fp8"."""
    return Recipe("QFLOAT8E4M3FN") if precision == "fp8" else Recipe(for_cpu=for_cpu)


class Quantiser:
    """Quantises one encoder, with one set of calibration frames, as often as needed."""

    def __init__(
        self,
        encoder: onnx.ModelProto,
        frames: Frames,
        recipe: Recipe,
        method: str = METHODS[0],
        progress: Progress | None = None,
    ) -> None:
        """Calibrate.

        Args:
            encoder: fp32, not changed.
            frames: uint8 [N, *frame shape].
            recipe: int8 or fp8, for TensorRT or the CPU.
            method: how ranges follow from values, one of `METHODS`; fp8 takes the largest values.
            progress: told about the calibration.
        Raises:
            BackendError: ONNX Runtime cannot calibrate this encoder.
        """
        self.recipe = recipe
        self.method = "MinMax" if recipe.is_fp8 else method
        with _told(f"calibrate this encoder for {recipe.low}"):
            self.encoder = _prepared(encoder, recipe)
            self._ranges = activation_ranges(
                self.encoder,
                frames,
                self.method,
                recipe.ops,
                not recipe.for_cpu,
                progress or SilentProgress(),
            )
        self._overrides = _fp8_scales(self.encoder, self._ranges) if recipe.is_fp8 else {}
        self.weights = dict(_worthwhile(self.encoder))
        """Elements of each product's weights that may be quantised."""

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products that may be quantised, as they come."""
        return tuple(self.weights)

    def quantise(self, kept: Sequence[str] = (), only: Sequence[str] = ()) -> onnx.ModelProto:
        """The encoder with Q/DQ nodes.

        Args:
            kept: products to leave in fp32.
            only: products to quantise; empty means all worthwhile ones but those of `kept`.
        """
        import onnx
        from onnxruntime import quantization as ort
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        recipe = self.recipe
        low = ort.QuantType[recipe.low]
        model = onnx.ModelProto()
        model.CopyFrom(self.encoder)
        options: dict[str, Any] = {
            "ActivationSymmetric": not recipe.for_cpu,
            "WeightSymmetric": True,
            "QuantizeBias": recipe.for_cpu,
            "TensorQuantOverrides": dict(self._overrides),
        }
        if not recipe.for_cpu:
            options["OpTypesToExcludeOutputQuantization"] = list(_PRODUCTS)
        with _told(f"quantise this encoder to {recipe.low}"):
            quantizer = QDQQuantizer(
                model,
                per_channel=not recipe.is_fp8,
                reduce_range=False,
                weight_qType=low,
                activation_qType=ort.QuantType.QUInt8 if recipe.for_cpu else low,
                tensors_range=self._ranges,
                nodes_to_quantize=list(only),
                nodes_to_exclude=[*kept, *self._never()],
                op_types_to_quantize=list(recipe.ops),
                extra_options=options,
            )
            quantizer.quantize_model()
        return finish_graph(quantizer.model.model)

    def _never(self) -> list[str]:
        """Products that are not worth it, and on the CPU all that is done to raw pixels."""
        graph = self.encoder.graph
        skipped = [
            node.name
            for node in graph.node
            if node.op_type in _PRODUCTS and node.name not in self.weights
        ]
        return skipped if not self.recipe.for_cpu else [*skipped, *_on_pixels(graph)]


def _prepared(encoder: onnx.ModelProto, recipe: Recipe) -> onnx.ModelProto:
    """With the type of every tensor, which the tool needs, in an opset that knows the low type."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

    model = save_and_reload_model_with_shape_infer(encoder)
    if recipe.is_fp8 and model.opset_import[0].version < 19:
        from onnxruntime.quantization.quantize import update_opset_version

        model = update_opset_version(model, QuantType[recipe.low])
    return model


def _worthwhile(encoder: onnx.ModelProto) -> Iterator[tuple[str, int]]:
    """Products with weights that see many positions, and how many elements their weights have.

    Not those of two activations (attention), nor of a single row a picture, which cost little time
    and, at the end of the encoder, much accuracy; nor stacks of matrices, for which ONNX Runtime
    has no kernel with a scale a channel; nor the resize, which counts grey levels.
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
        if len(weights[0]) in (2, 4) and not one_row:
            yield node.name, math.prod(weights[0])


def _is_flattened(known: dict[str, Any], node: onnx.NodeProto) -> bool:
    """Whether rows of [rows, D] are pictures times positions: their number is then no plain N."""
    first = known[node.output[0]].dim[0]
    return bool(first.dim_param and any(sign in first.dim_param for sign in "*+"))


def _on_pixels(graph: onnx.GraphProto) -> Iterator[str]:
    pixels = {graph.input[0].name}
    for node in graph.node:
        if node.op_type not in _PRODUCTS and pixels & set(node.input):
            pixels.update(node.output)
            yield node.name


def _fp8_scales(encoder: onnx.ModelProto, ranges: Any) -> dict[str, list[dict[str, Any]]]:
    """Scales that put the largest value at fp8's largest, as TensorRT's own tools choose them.

    ONNX Runtime's own rule matches standard deviations and clips what lies beyond 4.5 of them:
    on the toy world it gave a mean centred cosine of 0.75, this one 0.98.
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
def _told(task: str) -> Iterator[None]:
    """The tool's chatter kept off the screen, its many kinds of errors as one of ours."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (KeyboardInterrupt, OSError):
        raise
    except Exception as error:  # plain ValueErrors, KeyErrors and worse
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BackendError(f"ONNX Runtime cannot {task}: {reason}") from error
    finally:
        logging.disable(previous)
