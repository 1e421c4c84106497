"""A graph for JetPack 5 (Xavier, TensorRT 8.5), which our Python package does not run on.

TensorRT 8.5 knows no model-local functions, no LayerNormalization, and opset 17 at most: functions
are inlined, norms are spelled out. It has weak typing, so trtexec's --fp16 chooses the precision.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from taidpt.export.graph_io import finish_graph, lower_opset
from taidpt.runtime.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["JETPACK5_FILE", "jetpack5_graph", "trtexec_line"]

JETPACK5_FILE = "model.jetpack5.onnx"
_OPSET = 17


def jetpack5_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """The whole graph, head included, in plain operators of opset 17.

    Raises:
        InputError: the graph is of a newer opset than can be lowered.
    """
    from onnx import inliner

    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    if opset > _OPSET + 1:
        raise InputError(f"a graph of opset {opset} cannot be lowered: export with --opset 17")
    plain = inliner.inline_local_functions(model)
    if opset == _OPSET + 1:
        plain = lower_opset(plain)
    plain = _with_types(plain)
    norms = [("", "LayerNormalization")]
    plain = inliner.inline_selected_functions(plain, norms, inline_schema_functions=True)
    for entry in [entry for entry in plain.opset_import if entry.domain != ""]:
        plain.opset_import.remove(entry)
    return finish_graph(plain)


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The types of all values, constants too: spelling a norm out asks for those of its inputs."""
    from onnx import helper, shape_inference

    typed = shape_inference.infer_shapes(model)
    known = {info.name for info in typed.graph.value_info}
    typed.graph.value_info.extend(
        helper.make_tensor_value_info(constant.name, constant.data_type, list(constant.dims))
        for constant in typed.graph.initializer
        if constant.name not in known
    )
    return typed


def trtexec_line(graph: Path, size: tuple[int, int], batch: tuple[int, int, int]) -> str:
    """What to run on the device."""
    shapes = [f"frames:{count}x{size[0]}x{size[1]}x3" for count in batch]
    names = ("--minShapes", "--optShapes", "--maxShapes")
    return shlex.join(
        [
            "/usr/src/tensorrt/bin/trtexec",
            f"--onnx={graph.name}",
            "--fp16",
            *(f"{name}={shape}" for name, shape in zip(names, shapes, strict=True)),
            f"--saveEngine={graph.stem}.engine",
        ]
    )
