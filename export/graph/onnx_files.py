"""What every ONNX graph needs: names, order, checks, files, sessions."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bundle.onnx_weights import check_external_data, data_name
from taidpt.runtime.errors import BackendError, InputError, TaidptError

if TYPE_CHECKING:
    import onnx
    import onnxruntime

__all__ = [
    "IR_VERSION",
    "OPSETS",
    "RAW_GLOBAL",
    "RAW_PATCHES",
    "RESIZE_PREFIX",
    "NodeAdder",
    "check_graph",
    "describe_opset",
    "finish_graph",
    "lower_opset",
    "one_line_on_disk",
    "open_session",
    "quiet_tools",
    "run_graph",
    "save_graph",
]

# Bytes of weights. Protobuf files end at 2 GB, and reading one takes three times its size. Larger
# graphs keep their weights in a file beside them, where each weight of more than a kilobyte begins
# on a page, so that it can be mapped into memory.
_LARGEST_FILE = 512_000_000
_SMALL = 1024
_PAGE = 4096
IR_VERSION = 10  # onnxruntime 1.23, the newest for Python 3.10 (JetPack 6), refuses 12 and newer
OPSETS = (17, 18, 19, 20)
_CHANGED_IN_18 = ("GroupNormalization", "LpPool", "Mish", "Pad", "Resize", "ScatterND")

# The encoder's outputs, and the head's inputs.
RAW_GLOBAL = "raw_global_feature"
RAW_PATCHES = "raw_patch_features"
# Prefix of nodes of a resize inside the graph, which counts grey levels and stays in fp32.
RESIZE_PREFIX = "encoder/resize/"

Arrays = Mapping[str, npt.NDArray[Any]]


def describe_opset(opset: int) -> int:
    """Return a supported opset unchanged; raise InputError for any other."""
    if opset not in OPSETS:
        raise InputError(f"opset {opset} is not one of {', '.join(map(str, OPSETS))}")
    return opset


class NodeAdder:
    """Adds nodes to a graph; each is named after its first output.

    Args:
        graph: changed in place.
        nodes: prefix of the nodes' names.
        values: prefix of the names of outputs and constants.
    """

    def __init__(self, graph: onnx.GraphProto, nodes: str, values: str = "") -> None:
        self.graph, self._nodes, self._values = graph, nodes, values

    def constant(self, name: str, value: npt.NDArray[Any] | np.generic) -> str:
        """Store an array in the graph; its name there."""
        from onnx import numpy_helper

        array = numpy_helper.from_array(np.asarray(value), f"{self._values}{name}")
        self.graph.initializer.append(array)
        return str(array.name)

    def node(self, op: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        """Add a node; the name of its first output."""
        from onnx import helper

        names = [f"{self._values}{output}" for output in outputs]
        name = f"{self._nodes}{outputs[0]}"
        self.graph.node.append(helper.make_node(op, list(inputs), names, name=name, **attributes))
        return names[0]


@contextmanager
def quiet_tools() -> Iterator[None]:
    """Silence logs, warnings and output of tools that change graphs; exceptions pass."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def check_graph(model: onnx.ModelProto) -> None:
    """Run ONNX's full check: structure, types and shapes of all nodes.

    Graphs with external weights are checked when `save_graph` writes them.
    """
    import onnx
    from onnx.external_data_helper import uses_external_data

    beside = any(map(uses_external_data, model.graph.initializer))
    if not beside and model.ByteSize() < onnx.checker.MAXIMUM_PROTOBUF:
        onnx.checker.check_model(model, full_check=True)


def lower_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite an opset 18 graph in opset 17, in place.

    Of the operators in encoders, opset 18 changed two: reductions take their axes as an input, and
    Split has the number of its outputs as an attribute.

    Raises:
        BackendError: an operator cannot be written in opset 17.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0].t
    for node in model.graph.node:
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum":
            axes = numpy_helper.to_array(constants[node.input[1]]) if len(node.input) > 1 else None
            del node.input[1:]
            _drop_attribute(node, "noop_with_empty_axes")
            if axes is not None:
                node.attribute.append(helper.make_attribute("axes", axes.tolist()))
        elif node.op_type == "Split":
            _drop_attribute(node, "num_outputs")
        elif node.op_type in _CHANGED_IN_18:
            raise BackendError(f"{node.op_type} cannot be written in opset 17; use --opset 18")
    model.opset_import[0].version = 17
    return model


def _drop_attribute(node: onnx.NodeProto, name: str) -> None:
    for item in [item for item in node.attribute if item.name == name]:
        node.attribute.remove(item)


def finish_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Strip what differs from run to run, set version and producer, name, sort and check.

    Exporters leave source paths and stack traces in the metadata of nodes; a bundle has none.
    Every node needs a unique name: converters skip or damage unnamed nodes without an error.

    Args:
        model: changed in place, and returned.
    """
    import onnx_ir
    from onnx_ir.passes import Sequential
    from onnx_ir.passes.common import NameFixPass, TopologicalSortPass

    from taidpt import __version__

    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del item.metadata_props[:]
        item.doc_string = ""
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    model.ir_version = IR_VERSION
    model.producer_name = "taidpt"
    model.producer_version = __version__
    graph.name = "taidpt"
    ordered = Sequential(NameFixPass(), TopologicalSortPass())(onnx_ir.from_proto(model)).model
    nodes = [onnx_ir.to_proto(node) for node in ordered.graph]  # nodes alone: weights are large
    del graph.node[:]
    graph.node.extend(nodes)
    check_graph(model)
    return model


@contextmanager
def one_line_on_disk(target: str | Path) -> Iterator[None]:
    """Turn errors of the system (a full disk, a lost mount) into one line.

    Raises:
        InputError: names the bundle and the reason. Bundles are replaced whole or not at all.
    """
    try:
        yield
    except (TaidptError, BrokenPipeError):
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{target}: cannot be written: {reason}; nothing was changed") from error


def save_graph(model: onnx.ModelProto, path: Path, folder: Path | None = None) -> None:
    """Write a graph; weights beyond half a gigabyte go into `NAME.onnx.data` beside it.

    Existing files are replaced, never written into: they may be links.

    Args:
        model: the graph; external weights that fit into the file are read into it.
        path: its file.
        folder: where the external weights of `model` are.
    """
    import onnx
    import onnx_ir
    from onnx.external_data_helper import load_external_data_for_model

    beside = path.with_name(data_name(path.name))
    for old in (path, beside):
        old.unlink(missing_ok=True)
    if folder is not None:
        stub = folder / path.name
        stub.write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(stub), full_check=True)  # reads no weights
    weights = onnx_ir.from_proto(model)
    onnx_ir.external_data.set_base_dir(weights.graph, folder or path.parent)
    sizes = [value.const_value.nbytes for value in weights.graph.initializers.values()]
    if sum(sizes) >= _LARGEST_FILE:
        onnx_ir.save(
            weights,
            path,
            external_data=beside.name,
            size_threshold_bytes=_SMALL,
            alignment=_PAGE,
            align_threshold=_SMALL,
        )
        onnx.checker.check_model(str(path), full_check=True)
        return
    if folder is not None:
        load_external_data_for_model(model, str(folder))
    path.write_bytes(model.SerializeToString(deterministic=True))


def open_session(
    model: onnx.ModelProto | str | Path,
    threads: int | None = None,
    literal: bool = False,
    lean: bool = False,
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU for a graph in memory or in a file.

    Args:
        model: with its head, or an encoder.
        threads: of one operator; None takes all cores.
        literal: run every node on its own, without fusions; see `runs_literally`.
        lean: keep no second copy of the weights, reordered for speed.
    """
    from taidpt.runtime.backends.onnx_runtime import import_onnxruntime, quiet_options

    ort = import_onnxruntime()
    options = quiet_options(ort)
    if threads is not None:
        options.intra_op_num_threads = threads
    if literal:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if lean:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if isinstance(model, (str, Path)):
        check_external_data(Path(model))
        source: str | bytes = str(model)
    else:
        source = model.SerializeToString()
    session: onnxruntime.InferenceSession = ort.InferenceSession(
        source, options, providers=["CPUExecutionProvider"]
    )
    return session


def run_graph(
    model: onnx.ModelProto | str | Path, inputs: Arrays, lean: bool = False
) -> dict[str, npt.NDArray[Any]]:
    """Run a graph once on the CPU; every output by its name. `lean` as for `open_session`."""
    session = open_session(model, lean=lean)
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, dict(inputs))
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
