"""The plugin in engines of TensorRT-RTX: heads of one node, and a whole bundle.

Every case is compared with the definition in float64 on the same, already rounded, numbers.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from banks import random_bank
from rtx_plugin import CASES, difference_of, judged, name_of
from rtx_work import FLAVOUR, NotRunError, Work, differences, frames_of, library, milliseconds

from taidpt.export.engines.network import network_flags, parse_graph
from taidpt.runtime import Tagger
from taidpt.runtime.backends.cuda_driver import CudaDriver
from taidpt.runtime.backends.engine_files import EngineFile
from taidpt.runtime.backends.engine_runner import EngineRunner
from taidpt.runtime.backends.plugin_library import PLUGIN_VARIABLE, load_plugins
from taidpt.runtime.backends.tensorrt_library import import_tensorrt, load_engine
from taidpt.runtime.storage.json_reader import JsonReader
from tests.kernels.cases import Case, Inputs, make_inputs
from tests.kernels.test_onnx import head_model

__all__ = ["cases", "latency"]

# each built with the plugin and with the function
IN_ENGINES = [case for case in CASES if case.batch in (3, 8)]
_REPEATS = 50


@contextlib.contextmanager
def _plugin_named() -> Iterator[None]:
    os.environ[PLUGIN_VARIABLE] = str(library("plugin"))
    try:
        yield
    finally:
        del os.environ[PLUGIN_VARIABLE]


def cases(work: Work) -> dict[str, Any]:
    """Heads of one node, as engines with the plugin and with the function, by our runner."""
    work.require_rtx()
    library("plugin")
    trt = import_tensorrt(FLAVOUR)
    found: dict[str, float] = {}
    functions: dict[str, float] = {}
    layers: set[str] = set()
    cuda = CudaDriver()
    try:
        for case in IN_ENGINES:
            path = work.folder / "head.onnx"
            inputs = make_inputs(case)
            onnx.save(head_model(inputs, bank_dtype=case.dtype), path)
            with _plugin_named():
                engine, kinds = _build(trt, path, case, plugin=True)
                found[name_of(case)] = _run(trt, engine, case, inputs, cuda)
            layers |= kinds
            engine, _ = _build(trt, path, case, plugin=False)
            functions[name_of(case)] = _run(trt, engine, case, inputs, cuda)
    finally:
        cuda.close()
    if not any(kind.startswith("PLUGIN") for kind in layers):
        raise NotRunError("the engines hold no plugin")
    return {**judged(found), "largest_difference": found, "of_the_function": functions}


def _build(trt: Any, path: Path, case: Case, plugin: bool) -> tuple[bytes, set[str]]:
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    model = onnx.load(path)
    if not plugin:  # once it is registered, the parser takes the plugin wherever a node names it
        for node in model.graph.node:
            kept = [item for item in node.attribute if not item.name.startswith("plugin_")]
            del node.attribute[:]
            node.attribute.extend(kept)
        onnx.save(model, path)
    parse_graph(trt, parser, network, path, load_plugins(trt) if plugin else None)
    kinds = {network.get_layer(index).type.name for index in range(network.num_layers)}
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = (case.batch, case.patches, *tensor.shape[2:])
        profile.set_shape(tensor.name, (1, *shape[1:]), shape, shape)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("the builder made no engine")
    return bytes(engine), kinds


def _run(trt: Any, data: bytes, case: Case, inputs: Inputs, cuda: CudaDriver) -> float:
    """The largest difference of three runs: calls, the recording, and the graph."""
    engine = load_engine(trt, data, EngineFile("head", JsonReader({}, "head")))
    rest = {} if inputs.mask is None else {"mask": inputs.mask.numpy()}
    runner = EngineRunner(engine, cuda, "X", (case.patches, case.dim), rest)
    try:
        frames: Any = inputs.patches.numpy()
        outputs = [runner.run(frames)["Y"] for _ in range(3)]
        if not runner.uses_graphs:
            print(f"{name_of(case)}: no CUDA graph", file=sys.stderr)
    finally:
        runner.close()
    return max(difference_of(output, inputs) for output in outputs)


def latency(work: Work) -> dict[str, Any]:
    """A whole bundle's engine with the plugin and with the function, in turn, by number of tags."""
    work.require_rtx()
    plain, built = work.engine("input", "fp16")
    with _plugin_named():
        named, built_with = work.engine("input", "fp16", "-plugin")
        result: dict[str, Any] = {"engines": [built, built_with], "by_tags": {}}
        taggers = [Tagger.load(path, device=FLAVOUR) for path in (plain, named)]
        try:
            function, plugin = taggers
            frames = frames_of(function.bundle, 8)
            for count in (80, 1000, 8192):
                bank = random_bank(function, count)
                for tagger in taggers:
                    tagger.use_bank(bank)
                found, expected = (
                    tagger.tag_batch(frames).outputs for tagger in (plugin, function)
                )
                result["by_tags"][str(count)] = {
                    "difference": differences(found, expected),
                    **{
                        f"batch {batch}": milliseconds(
                            {
                                "function": partial(function.tag_batch, frames[:batch]),
                                "plugin": partial(plugin.tag_batch, frames[:batch]),
                            },
                            _REPEATS,
                        )
                        for batch in (1, 8)
                    },
                }
        finally:
            for tagger in taggers:
                tagger.close()
    return result
