"""Graphs in memory whose large weights stay in a data file beside them.

A protobuf needs two or three copies of its weights while it is read, changed and written. So an
export writes them to a file when they leave PyTorch, and copies them from file to file.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taidpt.runtime.bundle.onnx_weights import data_name

if TYPE_CHECKING:
    import onnx

__all__ = [
    "hide_matrices",
    "put_back",
    "return_memory",
    "save_program",
]

# Bytes. Smaller weights stay in the graph while it is worked on: an encoder has hundreds of them,
# which together are less than one large one.
_LARGE = 1 << 20
_TAKE_MATRICES = ("MatMul", "Gemm")


def save_program(program: Any, path: Path) -> None:
    """Optimise and write what PyTorch exported, with large weights in a file beside it.

    Args:
        program: a `torch.onnx.ONNXProgram`, not optimised yet; its weights are released.
        path: the graph's file.
    """
    import onnx_ir

    # onnxscript's rules keep a reference to the last graph that they matched, and so to its weights
    held = list(program.model.graph.initializers.values())
    program.optimize()
    model = program.model
    _fold_transposes(model.graph)
    onnx_ir.save(model, path, external_data=data_name(path.name), size_threshold_bytes=_LARGE)
    for value in (*held, *model.graph.initializers.values()):
        value.const_value = None


def _fold_transposes(graph: Any) -> None:
    """Replace the Transpose of a large matrix by the transposed matrix; no tool folds it later."""
    import onnx_ir

    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        tensor = source.const_value if source is not None and source.is_initializer() else None
        if source is None or tensor is None or len(tensor.shape) != 2 or tensor.nbytes < _LARGE:
            continue
        result = node.outputs[0]
        folded = onnx_ir.Value(
            name=result.name, shape=result.shape, type=result.type, const_value=_turned(tensor)
        )
        result.replace_all_uses_with(folded)
        graph.remove(node, safe=True)
        graph.register_initializer(folded)
        if not source.uses():
            del graph.initializers[source.name]


def _turned(tensor: Any) -> Any:
    """The transposed matrix, computed when it is written and then discarded."""
    import onnx_ir

    def make() -> Any:
        return onnx_ir.tensor(np.ascontiguousarray(tensor.numpy().T))

    rows, columns = tensor.shape.numpy()
    return onnx_ir.LazyTensor(make, dtype=tensor.dtype, shape=onnx_ir.Shape([columns, rows]))


def hide_matrices(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Turn external matrices that only products take into inputs, and return them."""
    from onnx import TensorProto, helper
    from onnx.external_data_helper import uses_external_data

    graph = model.graph
    seen = {
        name for node in graph.node if node.op_type not in _TAKE_MATRICES for name in node.input
    }
    hidden = []
    for tensor in list(graph.initializer):
        if uses_external_data(tensor) and len(tensor.dims) == 2 and tensor.name not in seen:
            kept = TensorProto()
            kept.CopyFrom(tensor)
            hidden.append(kept)
            graph.initializer.remove(tensor)
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(value)
    return hidden


def put_back(model: onnx.ModelProto, hidden: list[onnx.TensorProto]) -> None:
    """Undo `hide_matrices` on a graph that was changed since."""
    graph = model.graph
    names = {tensor.name for tensor in hidden}
    for value in [value for value in graph.input if value.name in names]:
        graph.input.remove(value)
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(tensor for tensor in hidden if tensor.name in used)


def return_memory() -> None:
    """Return freed memory to the system; the C library keeps much of it otherwise."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # glibc alone has malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
