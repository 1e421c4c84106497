"""A graph for JetPack 5 (Xavier, TensorRT 8.5), on which this Python package does not run.

Experimental: no engine was ever built from it on such a device. TensorRT 8.5 has no model-local
functions, no LayerNormalization, and at most opset 17, so functions and norms are inlined. It is
weakly typed: trtexec's --fp16 chooses the precision.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from taidpt.export.engines.profile import profile_shapes
from taidpt.export.graph.from_bundle import fp32_bundle, load_graph
from taidpt.export.graph.onnx_files import finish_graph, lower_opset, save_graph
from taidpt.export.precision.gate import PrecisionGate
from taidpt.runtime.bundle.bundle import MODEL_FILE, BundleWriter
from taidpt.runtime.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["JETPACK5_FILE", "add_jetpack5_graph", "jetpack5_graph", "trtexec_line"]

JETPACK5_FILE = "model.jetpack5.onnx"
_OPSET = 17
_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"


def add_jetpack5_graph(path: Path, force: bool = False) -> onnx.ModelProto:
    """Add a plain graph to a bundle, compared with PyTorch's stored outputs like any other.

    Returns:
        The graph.
    Raises:
        InputError, BundleError: the bundle cannot be used.
        ParityError: its outputs are out of bounds, and `force` is False; nothing was changed.
    """
    bundle = fp32_bundle(path)
    graph = jetpack5_graph(load_graph(bundle.file(MODEL_FILE)))
    gate = PrecisionGate(bundle, "fp32")
    with BundleWriter(path, base=path) as writer:
        save_graph(graph, writer.path(JETPACK5_FILE))
        if not force:
            gate.judge(writer.folder / JETPACK5_FILE)
        writer.commit()
    return graph


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
    """Add the types of all values, constants too: inlining a norm needs those of its inputs."""
    from onnx import helper, shape_inference

    typed = shape_inference.infer_shapes(model)
    known = {info.name for info in typed.graph.value_info}
    typed.graph.value_info.extend(
        helper.make_tensor_value_info(constant.name, constant.data_type, list(constant.dims))
        for constant in typed.graph.initializer
        if constant.name not in known
    )
    return typed


def trtexec_line(name: str, model: onnx.ModelProto, batch: tuple[int, int, int]) -> str:
    """The command to run on the device, in the bundle's folder.

    Args:
        name: the graph's file.
        model: the graph.
        batch: least, usual and largest number of frames.
    """
    input_shapes, output_shapes = (
        {v.name: tuple(dim.dim_value for dim in v.type.tensor_type.shape.dim) for v in side}
        for side in (model.graph.input, model.graph.output)
    )
    profile = profile_shapes(input_shapes, output_shapes, batch)
    options = [
        f"{option}={','.join(f'{key}:' + 'x'.join(map(str, s[i])) for key, s in profile.items())}"
        for i, option in enumerate(("--minShapes", "--optShapes", "--maxShapes"))
    ]
    engine = name.removesuffix(".onnx") + ".engine"
    return shlex.join([_TRTEXEC, f"--onnx={name}", "--fp16", *options, f"--saveEngine={engine}"])
