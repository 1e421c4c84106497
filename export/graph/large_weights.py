"""Graphs in memory whose large weights stay in the data file beside them.

A protobuf holds weights two or three times over while it is read, changed and written. So an
export keeps them in a file from the moment they leave PyTorch, and only copies them file to file.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taidpt.runtime.bundle.onnx_weights import data_name

if TYPE_CHECKING:
    import onnx

__all__ = [
    "hide_matrices",
    "lies_beside",
    "move_weights",
    "put_back",
    "read_stub",
    "read_weights",
    "return_memory",
    "save_program",
    "weight_bytes",
]

_LARGE = 1 << 20  # bytes; smaller weights stay in the graph while it is worked on
_SMALL = 1024  # bytes; smaller weights never leave it
_PAGE = 4096  # a weight begins at a multiple of it in the file, so that it can be mapped
_TAKE_MATRICES = ("MatMul", "Gemm")


def save_program(program: Any, path: Path) -> None:
    """Optimise and write what PyTorch exported, with its large weights beside it.

    Args:
        program: a `torch.onnx.ONNXProgram`, not optimised yet; it is left without weights.
        path: the graph's file.
    """
    import onnx_ir

    # onnxscript's rules hold on to the last graph that they matched, and so to its weights
    held = list(program.model.graph.initializers.values())
    program.optimize()
    model = program.model
    _fold_transposes(model.graph)
    onnx_ir.save(model, path, external_data=data_name(path.name), size_threshold_bytes=_LARGE)
    for value in (*held, *model.graph.initializers.values()):
        value.const_value = None


def _fold_transposes(graph: Any) -> None:
    """Write large matrices transposed where a Transpose takes them: nothing folds it later."""
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
    """The transposed matrix, made when it is written and not kept."""
    import onnx_ir

    def make() -> Any:
        return onnx_ir.tensor(np.ascontiguousarray(tensor.numpy().T))

    rows, columns = tensor.shape.numpy()
    return onnx_ir.LazyTensor(make, dtype=tensor.dtype, shape=onnx_ir.Shape([columns, rows]))


def read_stub(path: Path) -> onnx.ModelProto:
    """A graph whose weights beside it are only named."""
    import onnx

    return onnx.load(path, load_external_data=False)


def lies_beside(tensor: onnx.TensorProto) -> bool:
    """Whether a weight is only named in its graph."""
    return bool(tensor.data_location == tensor.EXTERNAL)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the weights that lie beside a graph."""
    return sum(
        int(_place(tensor)["length"]) for tensor in model.graph.initializer if lies_beside(tensor)
    )


def read_weights(model: onnx.ModelProto, folder: Path) -> None:
    """Read all weights that lie in `folder` into the graph."""
    from onnx.external_data_helper import load_external_data_for_model

    load_external_data_for_model(model, str(folder))


def hide_matrices(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Make inputs of the matrices that lie beside a graph and are only multiplied by."""
    from onnx import TensorProto, helper

    graph = model.graph
    seen = {
        name for node in graph.node if node.op_type not in _TAKE_MATRICES for name in node.input
    }
    hidden = []
    for tensor in list(graph.initializer):
        if lies_beside(tensor) and len(tensor.dims) == 2 and tensor.name not in seen:
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


def move_weights(model: onnx.ModelProto, folder: Path, target: Path) -> None:
    """Write all but the smallest weights into one file, `target`, and only name them in the graph.

    Args:
        model: changed in place.
        folder: where the weights lie that it only names now.
        target: the file; its folder is to be the graph's.
    """
    with target.open("wb") as out:
        for tensor in model.graph.initializer:
            if not lies_beside(tensor) and len(tensor.raw_data) < _SMALL:
                continue
            out.write(bytes(-out.tell() % _PAGE))
            start = out.tell()
            for block in _blocks(tensor, folder):
                out.write(block)
            tensor.ClearField("raw_data")
            _name_place(tensor, target.name, start, out.tell() - start)


def _name_place(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    from onnx import StringStringEntryProto

    place = {"location": location, "offset": str(offset), "length": str(length)}
    del tensor.external_data[:]
    tensor.external_data.extend(StringStringEntryProto(key=key, value=place[key]) for key in place)
    tensor.data_location = tensor.EXTERNAL


def _place(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _blocks(tensor: onnx.TensorProto, folder: Path) -> Iterator[bytes]:
    if not lies_beside(tensor):
        yield tensor.raw_data
        return
    place = _place(tensor)
    left = int(place["length"])
    with (folder / place["location"]).open("rb") as source:
        source.seek(int(place.get("offset", "0")))
        while left:
            block = source.read(min(left, _LARGE))
            if not block:
                raise OSError(f"the weights in {place['location']} are cut off")
            yield block
            left -= len(block)


def return_memory() -> None:
    """Give memory that was freed back to the system; C libraries keep much of it for later."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)
