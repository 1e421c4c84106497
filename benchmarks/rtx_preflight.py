"""Whether TensorRT-RTX runs at all on this GPU: a small graph, built, loaded and run by our code.

An engine is built for each target that may be named, and for none, which TensorRT-RTX takes as
every GPU that it supports. Which step failed, and its words, are the result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from rtx_work import FLAVOUR, Work

from taidpt.export.engines.builder import build_engine
from taidpt.export.precision.request import EngineOptions
from taidpt.runtime.backends.cuda_driver import CudaDriver
from taidpt.runtime.backends.engine_files import EngineFile
from taidpt.runtime.backends.engine_runner import EngineRunner
from taidpt.runtime.backends.tensorrt_library import import_tensorrt, load_engine
from taidpt.runtime.storage.json_reader import JsonReader

__all__ = ["measure", "small_graph"]

_REFUSALS = ("build", "deserialise")
_INPUT, _DIM, _TAGS = "frames", 64, 32
_MOST = 4


def measure(work: Work, target: str) -> dict[str, Any]:
    """Each step with its seconds, and the words of the one that did not work.

    What TensorRT-RTX itself refuses to build or load is "refused"; all else that goes wrong failed.
    """
    result: dict[str, Any] = {"steps": {}}
    outcome = "ran"
    try:
        _steps(work.folder, target, result)
    except Exception as error:
        step = result.get("step", "")
        kind = "refused" if step in _REFUSALS else "failed"
        outcome = f"{kind}: {step}: {type(error).__name__}: {error}"[:1500]
        result[kind] = [outcome] if kind == "failed" else outcome
    work.note("targets", {**(work.noted("targets") or {}), target: outcome})
    return result


def _steps(folder: Path, target: str, result: dict[str, Any]) -> None:
    graph = folder / f"small-{target}.onnx"
    weights = small_graph(graph)
    log = folder / f"small-{target}.log"
    options = EngineOptions(
        "fp32", (1, 1, _MOST), 1 << 28, FLAVOUR, None if target == "none" else target
    )
    with _step(result, _REFUSALS[0]):
        built = build_engine(graph, options, log)
    trt = import_tensorrt(FLAVOUR)
    with _step(result, "ask whether it is valid"):
        validity, diagnostics = trt.Runtime(trt.Logger()).get_engine_validity(built.data)
        result["validity"] = [str(validity), str(diagnostics)]
    with _step(result, "open the driver"):
        cuda = CudaDriver()
    try:
        with _step(result, _REFUSALS[1]):
            file = EngineFile("small", JsonReader(dict(built.key), "small"))
            engine = load_engine(trt, built.data, file)
        with _step(result, "lay out memory"):
            runner = EngineRunner(engine, cuda, _INPUT, (_DIM,), {})
        try:
            _run(runner, weights, result)
        finally:
            runner.close()
    finally:
        cuda.close()


def _run(runner: EngineRunner, weights: npt.NDArray[Any], result: dict[str, Any]) -> None:
    frames = np.random.default_rng(1).standard_normal((3 * _MOST, _DIM)).astype(np.float32)
    worst = 0.0
    for index, call in enumerate(("first run", "run that records a graph", "run of the graph")):
        part = frames[index * _MOST : (index + 1) * _MOST]
        with _step(result, call):
            found = runner.run(part)["scores"]  # type: ignore[arg-type]
        worst = max(worst, float(np.abs(found - part @ weights).max()))
    result["largest_difference"] = worst
    result["uses_cuda_graphs"] = runner.uses_graphs
    if not worst < 0.1:
        raise ValueError(f"wrong by {worst}")


@contextmanager
def _step(result: dict[str, Any], name: str) -> Iterator[None]:
    result["step"] = name
    start = time.perf_counter()
    yield
    result["steps"][name] = round(time.perf_counter() - start, 3)


def small_graph(path: Path) -> npt.NDArray[Any]:
    """Write a graph of one product; the matrix."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.random.default_rng(0).standard_normal((_DIM, _TAGS)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", [_INPUT, "W"], ["scores"])],
        "small",
        [helper.make_tensor_value_info(_INPUT, kind, ["N", _DIM])],
        [helper.make_tensor_value_info("scores", kind, ["N", _TAGS])],
        [onnx.numpy_helper.from_array(weights, "W")],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return weights
