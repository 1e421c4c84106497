"""The runtime's own CUDA calls on a GPU without TensorRT: an engine that is our operator.

`EngineRunner` and `CudaDriver` are those that run TensorRT's engines. In an engine's place stands
the operator of the plugin's library: patches in, the bank as the other input, similarities out.
What holds here are copies, pinned memory, streams, the recorded graph, banks that are swapped and
frames that lie on the GPU already; it says nothing about TensorRT.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rtx_work import Work, library, milliseconds, timed

from taidpt.kernels.local_similarity import naive
from taidpt.runtime.backends.buffers import TensorSpec
from taidpt.runtime.backends.cuda_driver import CudaDriver
from taidpt.runtime.backends.engine_runner import EngineRunner

__all__ = ["Arguments", "measure"]

TEMPERATURE = 40.0
_PATCHES, _DIM, _MOST = 49, 1024, 8
_CURRENT = -2
_TOLERANCE = 1e-4


class Arguments(ctypes.Structure):
    """taidpt_local_similarity_args."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "t", "v", "mask", "y")),
        *((name, ctypes.c_int32) for name in ("batch", "patches", "classes", "dim")),
        ("temperature", ctypes.c_float),
        ("dtype", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("stream", ctypes.c_void_p),
    )


@dataclass
class _Context:
    """Has of an execution context what the runner calls."""

    library: ctypes.CDLL
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        batch, patches, dim = self.shapes["frames"]
        here = self.addresses
        arguments = Arguments(
            here["frames"], here["bank"], None, None, here["scores"], batch, patches,
            self.shapes["bank"][0], dim, TEMPERATURE, 0, _CURRENT, stream,
        )  # fmt: skip
        return int(self.library.taidpt_local_similarity(ctypes.byref(arguments))) == 0


class _Engine:
    """Has of a loaded engine what the runner asks."""

    scratch_bytes = 4096

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)
        self.library.taidpt_last_error.restype = ctypes.c_char_p
        if self.library.taidpt_prepare(_CURRENT) != 0:
            raise RuntimeError(self.error)

    @property
    def error(self) -> str:
        return bytes(self.library.taidpt_last_error()).decode()

    @property
    def logger(self) -> Any:
        return SimpleNamespace(last_error=self.error)

    def new_context(self, scratch: int) -> _Context:
        if scratch % 256:
            raise ValueError(f"scratch memory at {scratch:#x}")
        return _Context(self.library)

    def batches(self, name: str) -> tuple[int, int]:
        return 1, _MOST

    def tensors(
        self, shapes: Mapping[str, tuple[int, ...]], context: _Context
    ) -> tuple[TensorSpec, ...]:
        context.shapes.update(shapes)
        out = (shapes["frames"][0], shapes["bank"][0])
        return (
            *(TensorSpec(name, shape, np.float32, True) for name, shape in shapes.items()),
            TensorSpec("scores", out, np.float32, False),
        )


def measure(work: Work) -> dict[str, Any]:
    """Single calls, a graph, swaps, frames of PyTorch's, and memory at the end."""
    path = str(library("plugin"))
    torch.zeros(1, device="cuda")
    free = torch.cuda.mem_get_info()[0]
    cuda = CudaDriver()
    try:
        engine = _Engine(path)
        result = _run(engine, cuda)
    finally:
        cuda.close()
    torch.cuda.synchronize()
    result["megabytes_not_freed"] = round((free - torch.cuda.mem_get_info()[0]) / 1e6, 2)
    worst = max(result["largest_difference"].values())
    if not worst < _TOLERANCE:
        result["failed"] = [f"wrong by {worst}"]
    return result


def _run(engine: _Engine, cuda: CudaDriver) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    # the runner takes any type, though all bundles have bytes
    frames: Any = generator.standard_normal((_MOST, _PATCHES, _DIM)).astype(np.float32)
    banks = [_bank(generator, count) for count in (1000, 1000, 80)]
    found: dict[str, float] = {}
    runner = _runner(engine, cuda, banks[0])
    for index, name in enumerate(("first run", "run that records a graph", "run of the graph")):
        part = frames[index : index + 4]
        found[name] = _difference(runner.run(part), part, banks[0])
    result: dict[str, Any] = {
        "integrated": cuda.integrated,
        "uses_cuda_graphs": runner.uses_graphs,
        "largest_difference": found,
        "swap_of_1000_tags_ms": [timed(partial(runner.put, b)) for b in banks[1::-1] * 5],
    }
    runner.put(banks[1])
    found["after a swap"] = _difference(runner.run(frames[:4]), frames[:4], banks[1])
    on_gpu = torch.from_numpy(frames).cuda()
    torch.cuda.synchronize()
    result["device_of_its_address"] = cuda.device_of(on_gpu.data_ptr())
    for index in range(3):
        on_gpu.mul_(-1.0)  # in PyTorch's stream, which the runner has to wait for
        stream = torch.cuda.current_stream().cuda_stream
        outputs = runner.run_device(on_gpu.data_ptr(), _MOST, stream)
        expected = frames if index % 2 else -frames
        found[f"frames on the GPU, {index + 1}"] = _difference(outputs, expected, banks[1])
    sides = {f"batch {n}": partial(runner.run, frames[:n]) for n in (1, _MOST)}
    result["ms"] = milliseconds(sides, 30)
    runner.close()
    smaller = _runner(engine, cuda, banks[2])
    found["a bank of another size"] = _difference(smaller.run(frames[:1]), frames[:1], banks[2])
    smaller.close()
    return result


def _bank(generator: np.random.Generator, count: int) -> dict[str, npt.NDArray[Any]]:
    rows = generator.standard_normal((count, _DIM))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return {"bank": unit.astype(np.float32)}


def _runner(engine: _Engine, cuda: CudaDriver, bank: dict[str, Any]) -> EngineRunner:
    return EngineRunner(engine, cuda, "frames", (_PATCHES, _DIM), bank)  # type: ignore[arg-type]


def _difference(outputs: dict[str, Any], frames: Any, bank: dict[str, Any]) -> float:
    """From the definition in float64, on the GPU."""
    tensors = [torch.from_numpy(array).cuda().double() for array in (frames, bank["bank"])]
    expected = naive.local_similarity(tensors[0], tensors[1], TEMPERATURE).cpu().numpy()
    largest = float(np.abs(outputs["scores"] - expected).max())
    return math.inf if math.isnan(largest) else largest
