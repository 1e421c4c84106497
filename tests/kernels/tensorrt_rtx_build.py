"""`PLUGIN MODEL`: parse a model with TensorRT-RTX, print its layers, build an engine for sm_86."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import Any


def link_unversioned_libraries() -> None:
    """The parser opens unversioned names, which the wheels lack; link them beside the libraries."""
    for package in ("tensorrt_rtx_libs", "tensorrt_rtx_cu13_libs", "tensorrt_rtx"):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        for folder in spec.submodule_search_locations:
            for library in Path(folder).glob("libtensorrt*.so.1"):
                with contextlib.suppress(FileExistsError):
                    library.with_suffix("").symlink_to(library.name)


def main(plugin: str, model: str) -> None:
    """Print `layers: …` and `engine bytes: …`; any failure ends with an exception."""
    link_unversioned_libraries()
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    if Path(plugin).is_file():
        ctypes.CDLL(plugin)
        trt.get_plugin_registry().load_library(plugin)
    network: Any = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(Path(model).read_bytes()):
        raise RuntimeError("\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    kinds = [network.get_layer(i).type.name for i in range(network.num_layers)]
    print("layers:", *sorted(kinds, key=lambda kind: kind != "PLUGIN_V3"))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        sizes = [
            (size if size > 0 else least)
            for size, least in zip(tensor.shape, (1, 49, 1), strict=False)
        ]
        most = [
            (size if size > 0 else most)
            for size, most in zip(tensor.shape, (8, 196, 1), strict=False)
        ]
        profile.set_shape(tensor.name, sizes, sizes, most)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("the builder made no engine")
    print("engine bytes:", engine.nbytes)


if __name__ == "__main__":
    main(*sys.argv[1:3])
