"""An existing bundle as the source of an export: its encoder, alone again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from taidpt.export.graph.onnx_files import RAW_GLOBAL, RAW_PATCHES
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.onnx_weights import check_external_data
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.optional import optional_packages

if TYPE_CHECKING:
    import onnx

__all__ = ["encoder_of", "fp32_bundle", "load_graph", "require_onnx"]


def require_onnx() -> None:
    """Say in one line that `onnx` is missing.

    Raises:
        MissingDependencyError: it is.
    """
    with optional_packages("changing a graph"):
        import onnx  # noqa: F401


def fp32_bundle(path: Path) -> Bundle:
    """A bundle of which other precisions and engines can be made, with all its hashes checked.

    Raises:
        BundleError: a file is damaged, or the graph is of another name.
        InputError: no such bundle, or its graph is not fp32.
    """
    bundle = Bundle.load(path).require_whole()
    own = bundle.manifest.provenance.get("precision", "fp32")
    if own != "fp32":
        raise InputError(
            f"{path}: its graph is {own} already; other precisions and engines are made from an "
            "fp32 bundle"
        )
    return bundle


def load_graph(path: Path) -> onnx.ModelProto:
    """Read a graph with its external data, which must lie beside it.

    Raises:
        BundleError: it is damaged or no valid graph, or its data leads out of its folder.
    """
    import onnx

    check_external_data(path)
    try:
        onnx.checker.check_model(path, full_check=True)
        model = onnx.load(path)
    except Exception as error:  # protobuf and onnx raise many kinds for damaged files
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"{path}: not a readable graph ({reason}); export it again") from None
    return model


def encoder_of(bundle: Bundle) -> onnx.ModelProto:
    """The encoder of a bundle's graph, as it was before the head was added.

    Raises:
        BundleError: the graph was not written by this exporter.
    """
    import onnx

    path = bundle.file(bundle.manifest.graph.file)
    model = load_graph(path)
    graph = model.graph
    nodes = [node for node in graph.node if node.name.startswith("encoder/")]
    made = {name for node in nodes for name in node.output}
    if not {RAW_GLOBAL, RAW_PATCHES} <= made:
        raise BundleError(f"{path}: holds no encoder that can be taken out; export it again")
    needed = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    known = {value.name: value for value in graph.value_info}
    outputs = [_output(known, name, bundle) for name in (RAW_GLOBAL, RAW_PATCHES)]
    frames = [value for value in graph.input if value.name == bundle.manifest.input.name]
    alone = onnx.helper.make_graph(nodes, "taidpt", frames, outputs, weights)
    alone.value_info.extend(value for name, value in known.items() if name in made)
    return onnx.helper.make_model(
        alone,
        opset_imports=[entry for entry in model.opset_import if entry.domain == ""],
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
    )


def _output(
    known: dict[str, onnx.ValueInfoProto], name: str, bundle: Bundle
) -> onnx.ValueInfoProto:
    import onnx

    if name in known:
        return known.pop(name)
    info = bundle.manifest.model
    patches = info.grid[0] * info.grid[1]
    shapes: dict[str, list[int | str]] = {
        RAW_GLOBAL: ["batch", info.embed_dim],
        RAW_PATCHES: ["batch", patches, info.embed_dim],
    }
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shapes[name])
