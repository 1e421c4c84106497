"""A graph for JetPack 5 (Xavier, TensorRT 8.5), which our Python package does not run on.

TensorRT 8.5 knows no model-local functions, no LayerNormalization, and opset 17 at most: functions
are inlined, norms are spelled out. It has weak typing, so trtexec's --fp16 chooses the precision.
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
    """Add a plain graph to a bundle, compared with PyTorch's stored answers like any other.

    Returns:
        The graph.
    Raises:
        InputError, BundleError: the bundle cannot be used for it.
        ParityError: it gives other scores, and `force` is False; nothing was changed.
    """
    bundle = fp32_bundle(path)
    graph = jetpack5_graph(load_graph(bundle.file(MODEL_FILE)))
    gate = PrecisionGate(bundle, "fp32")
    with BundleWriter(path, base=path) as writer:
        save_graph(graph, writer.path(JETPACK5_FILE))
        if not force:
            gate.require(gate.report(writer.folder / JETPACK5_FILE), None)
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


def trtexec_line(name: str, model: onnx.ModelProto, batch: tuple[int, int, int]) -> str:
    """What to run on the device, in the bundle's folder.

    Args:
        name: the graph's file.
        model: the graph.
        batch: least, usual and largest number of frames.
    """
    taken, given = (
        {v.name: tuple(dim.dim_value for dim in v.type.tensor_type.shape.dim) for v in side}
        for side in (model.graph.input, model.graph.output)
    )
    profile = profile_shapes(taken, given, batch)
    options = [
        f"{option}={','.join(f'{key}:' + 'x'.join(map(str, s[i])) for key, s in profile.items())}"
        for i, option in enumerate(("--minShapes", "--optShapes", "--maxShapes"))
    ]
    engine = name.removesuffix(".onnx") + ".engine"
    return shlex.join([_TRTEXEC, f"--onnx={name}", "--fp16", *options, f"--saveEngine={engine}"])
