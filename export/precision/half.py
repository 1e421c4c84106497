"""Low precision in the encoder's graph: fp16 and bf16 types; int8 and fp8 are in `quantise`.

The encoder alone is converted, before the head is added. Softmax, norms and means stay in fp32:
they overflow or lose most there, and cost little. The same strongly typed graph serves every
TensorRT from 10.3 on; TensorRT 11 has no other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from taidpt.export.graph.onnx_files import RESIZE_PREFIX, finish_graph
from taidpt.runtime.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "BOUNDS",
    "PRECISIONS",
    "QUANTISED",
    "RUNNABLE_ON_CPU",
    "bound_of",
    "check_precision",
    "runs_literally",
    "to_half",
]

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
QUANTISED = ("int8", "fp8")
# ONNX Runtime's CPU provider has no bf16 MatMul. fp8 runs there as Q/DQ nodes around fp32 products.
RUNNABLE_ON_CPU = ("fp32", "fp16", "int8", "fp8")
# Least centred cosine with PyTorch, for global features, patch features and scores. fp16 has
# ten bits behind the point and keeps fp32's bound. The others have seven or fewer: 0.98 is what a
# right fp8 graph of the toy world reaches on average (see `quantise`).
BOUNDS = {"fp32": 0.999, "fp16": 0.999, "bf16": 0.98, "int8": 0.98, "fp8": 0.98}

KEPT_IN_FP32 = (
    "Softmax",
    "LayerNormalization",
    "InstanceNormalization",
    "LpNormalization",
    "ReduceL2",
    "ReduceMean",
    "ReduceSum",
    "Pow",
    "Sqrt",
)
# ONNX has these in bf16 only from opset 22 on, which is newer than devices read.
WITHOUT_BF16 = ("Conv", "ConvTranspose", "AveragePool", "MaxPool", "GlobalAveragePool")


def check_precision(precision: str) -> str:
    """Return a known precision unchanged; raise InputError for any other."""
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    return precision


def bound_of(precision: str) -> float:
    """Least centred cosine that an engine or a graph of this precision must reach."""
    return BOUNDS[check_precision(precision)]


def runs_literally(precision: str, for_cpu: bool = False) -> bool:
    """Whether a check of this graph runs its Q/DQ nodes one by one, around products in fp32.

    That is TensorRT's arithmetic. ONNX Runtime's own int8 kernels saturate on CPUs without VNNI
    (a centred cosine of 0.59 instead of 0.998 on a small ViT), and version 1.32 fuses fp8 wrongly.
    A graph `for_cpu` is checked as its user runs it.
    """
    return precision in QUANTISED and not for_cpu


def to_half(encoder: onnx.ModelProto, precision: str, kept: Sequence[str] = ()) -> onnx.ModelProto:
    """The encoder with weights and activations in fp16 or bf16.

    Args:
        encoder: fp32, not changed.
        precision: "fp16" or "bf16".
        kept: names of further nodes to leave in fp32.
    Returns:
        A named, sorted and checked graph; its two outputs have the low type.
    """
    import onnx
    from onnxruntime.transformers import float16

    check_precision(precision)
    model = onnx.ModelProto()
    model.CopyFrom(encoder)
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *KEPT_IN_FP32]
    if precision == "bf16":
        blocked += WITHOUT_BF16
        _require_products(encoder)
    converted = float16.convert_float_to_float16(
        model, op_block_list=blocked, node_block_list=[*kept, *_resize_nodes(encoder)]
    )
    if precision == "bf16":
        _widen_to_bf16(converted, encoder)
    return finish_graph(converted)


def _resize_nodes(encoder: onnx.ModelProto) -> list[str]:
    return [node.name for node in encoder.graph.node if node.name.startswith(RESIZE_PREFIX)]


def _require_products(encoder: onnx.ModelProto) -> None:
    ops = [node.op_type for node in encoder.graph.node]
    if ops.count("Conv") > ops.count("MatMul") + ops.count("Gemm"):
        raise InputError(
            "bf16: this encoder is made of convolutions, which ONNX has in bf16 only from opset 22 "
            "on; use fp16"
        )


def _widen_to_bf16(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Turn every fp16 into bf16. Weights come from their fp32 originals: fp16 may clip them."""
    from onnx import TensorProto

    low, wanted = TensorProto.FLOAT16, TensorProto.BFLOAT16
    originals = {tensor.name: tensor for tensor in original.graph.initializer}
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == low:
            tensor.CopyFrom(_bf16_tensor(originals.get(tensor.name, tensor)))
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.elem_type == low:
            value.type.tensor_type.elem_type = wanted
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == low:
                attribute.i = wanted
            if attribute.name == "value" and attribute.t.data_type == low:
                attribute.t.CopyFrom(_bf16_tensor(attribute.t))


def _bf16_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A tensor in bf16, rounded to nearest even."""
    from onnx import TensorProto, numpy_helper

    values: Any = numpy_helper.to_array(tensor).astype(np.float32)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    rounded_tensor = TensorProto(name=tensor.name, data_type=TensorProto.BFLOAT16, dims=tensor.dims)
    rounded_tensor.raw_data = rounded.astype("<u2").tobytes()
    return rounded_tensor
