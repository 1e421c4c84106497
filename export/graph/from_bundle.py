"""An existing bundle as the source of an export: its encoder without the head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from taidpt.export.graph.onnx_files import RAW_GLOBAL, RAW_PATCHES, finish_graph
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.onnx_weights import check_external_data
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.optional import optional_packages

if TYPE_CHECKING:
    import onnx

__all__ = ["encoder_of", "fp32_bundle", "load_graph", "require_onnx"]


def require_onnx() -> None:
    """Check that the packages that change graphs are installed.

    Raises:
        MissingDependencyError: onnx or onnx_ir is missing.
    """
    with optional_packages("changing a graph"):
        import onnx  # noqa: F401
        import onnx_ir  # noqa: F401


def fp32_bundle(path: Path) -> Bundle:
    """Load a bundle from which other precisions and engines can be made, with all hashes checked.

    Raises:
        BundleError: a file is damaged.
        InputError: no such bundle, or its graph is not fp32.
    """
    bundle = Bundle.load(path).require_whole()
    own = bundle.manifest.provenance.get("precision", "fp32")
    if own != "fp32":
        raise InputError(
            f"{path}: its graph is {own}; other precisions and engines are made from an fp32 bundle"
        )
    return bundle


def load_graph(path: Path) -> onnx.ModelProto:
    """Read a graph with its external data, which must be in the same folder.

    Raises:
        BundleError: it is damaged or invalid, or its data is outside its folder.
    """
    import onnx

    check_external_data(path)
    try:
        onnx.checker.check_model(path, full_check=True)
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            onnx.numpy_helper.to_array(tensor)  # the check does not compare bytes with shapes
    except Exception as error:  # of many kinds, for damaged files
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"{path}: not a readable graph ({reason}); export it again") from None
    return model


def encoder_of(bundle: Bundle) -> onnx.ModelProto:
    """The encoder of a bundle's graph, as it was before the head was added.

    Raises:
        BundleError: the graph was not written by this exporter.
    """
    import onnx_ir

    path = bundle.file(bundle.manifest.graph.file)
    whole = onnx_ir.from_proto(load_graph(path))
    try:
        alone = onnx_ir.convenience.extract(
            whole.graph, [bundle.manifest.input.name], [RAW_GLOBAL, RAW_PATCHES]
        )
    except ValueError:
        raise BundleError(
            f"{path}: holds no encoder that can be taken out; export it again"
        ) from None
    info = bundle.manifest.model
    shapes: tuple[list[int | str], ...] = (
        ["batch", *bundle.manifest.global_shape],
        ["batch", bundle.manifest.patches, info.embed_dim],
    )
    for output, shape in zip(alone.outputs, shapes, strict=True):
        output.dtype = output.dtype or onnx_ir.DataType.FLOAT
        output.shape = output.shape or onnx_ir.Shape(shape)
    encoder: onnx.ModelProto = onnx_ir.to_proto(onnx_ir.Model(alone, ir_version=whole.ir_version))
    # onnx_ir states the types of weights twice, and converters change only one of them
    weights = {tensor.name for tensor in encoder.graph.initializer}
    typed = [value for value in encoder.graph.value_info if value.name not in weights]
    del encoder.graph.value_info[:]
    encoder.graph.value_info.extend(typed)
    return finish_graph(encoder)
