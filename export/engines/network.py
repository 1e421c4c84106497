"""Read a graph with TensorRT's parser and the plugins of the user's library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from taidpt.runtime.backends.plugin_library import PLUGIN_VARIABLE
from taidpt.runtime.errors import EngineNotBuiltError
from taidpt.runtime.optional import optional_packages

__all__ = ["network_flags", "parse_graph"]

_STRONGLY_TYPED_ALWAYS = 11  # TensorRT 11 has no other networks, and ignores the flag
_PLUGIN_WINS = (10, 7)  # older parsers prefer a node's function to its plugin


def network_flags(trt: Any) -> int:
    """Flags of a strongly typed network."""
    if trt.__name__ == "tensorrt" and _version(trt)[0] >= _STRONGLY_TYPED_ALWAYS:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def parse_graph(trt: Any, parser: Any, network: Any, graph: Path, plugins: Path | None) -> None:
    """Parse a graph into a network. The parser must exist until the engine is built.

    Args:
        trt: the package.
        parser, network: a parser and its empty network.
        graph: an ONNX file whose external data was checked.
        plugins: the library whose plugins are registered, or None.
    Raises:
        EngineNotBuiltError: the parser refuses the graph, or uses none of the plugins.
        MissingDependencyError: this TensorRT needs a graph without functions, and onnx is missing.
    """
    if plugins is not None and trt.__name__ == "tensorrt" and _version(trt) < _PLUGIN_WINS:
        parsed = parser.parse(_without_functions(graph), os.fspath(graph))
    else:
        parsed = parser.parse_from_file(os.fspath(graph))
    if not parsed:
        first = " ".join(str(parser.get_error(0)).split())[:300] if parser.num_errors else ""
        raise EngineNotBuiltError(f"{graph}: TensorRT cannot read the graph: {first}")
    if plugins is not None and not _has_plugin(network):
        raise EngineNotBuiltError(
            f"{graph}: TensorRT {trt.__version__} uses no plugin of {plugins} for it; unset "
            f"{PLUGIN_VARIABLE} to build the engine without plugins"
        )


def _without_functions(graph: Path) -> bytes:
    purpose = "removing functions from a graph for the plugins of TensorRT before 10.7"
    with optional_packages(purpose, advice=f"unset {PLUGIN_VARIABLE}"):
        import onnx
    model = onnx.load(graph, load_external_data=False)
    del model.functions[:]
    return bytes(model.SerializeToString())


def _has_plugin(network: Any) -> bool:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return any(layer.type.name.startswith("PLUGIN") for layer in layers)


def _version(trt: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in str(trt.__version__).split(".")[:2])
