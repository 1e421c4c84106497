"""The plugin on a GPU, driven as TensorRT does by a small library, without TensorRT.

Every case is compared with the definition in float64 on the same, already rounded, numbers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rtx_work import Work, library, milliseconds

from taidpt.kernels.local_similarity import local_similarity, naive
from taidpt.runtime.backends.cuda_driver import CudaDriver
from tests.kernels.cases import TOLERANCES, Case, Inputs, make_inputs

__all__ = ["CASES", "alone", "difference_of", "judged", "name_of"]

# (B, P, C, D): few and many classes, odd sizes, D no multiple of 64
_SIZES = (
    (1, 49, 80, 1024),
    (8, 49, 1000, 1024),
    (1, 196, 80, 512),
    (3, 123, 123, 96),
    (2, 1, 1, 8),
)
_OPTIONS = ((False, False), (False, True), (True, False), (True, True))
CASES = [
    Case(*sizes, dtype, masked, valued)
    for sizes in _SIZES
    for dtype in (torch.float32, torch.float16)
    for masked, valued in _OPTIONS
]
_TIMED = (Case(1, 49, 80, 1024, torch.float16), Case(8, 49, 1000, 1024, torch.float16))
_REPEATS = 50


def alone(work: Work) -> dict[str, Any]:
    """What TensorRT asks of a plugin, asked by a small library: values, and a recorded graph."""
    driver = _declared(ctypes.CDLL(str(library("driver"))))
    torch.zeros(1, device="cuda")
    cuda = CudaDriver()
    try:
        stream = cuda.create_stream()
        found = {name_of(case): _drive(driver, case, cuda, stream) for case in CASES}
        times = {name_of(case): _drive_timed(driver, case, cuda, stream) for case in _TIMED}
    finally:
        cuda.close()
    return {**judged(found), "cases": len(found), "largest_difference": found, "ms": times}


def _declared(driver: ctypes.CDLL) -> ctypes.CDLL:
    driver.driven_open.restype = ctypes.c_void_p
    driver.driven_open.argtypes = [
        ctypes.c_char_p, ctypes.c_float, *[ctypes.c_int32] * 3, ctypes.POINTER(ctypes.c_int32),
    ]  # fmt: skip
    driver.driven_enqueue.argtypes = [ctypes.c_void_p] * 4
    driver.driven_close.argtypes = [ctypes.c_void_p]
    driver.driven_error.restype = ctypes.c_char_p
    return driver


@contextlib.contextmanager
def _driven(driver: ctypes.CDLL, case: Case, inputs: Inputs) -> Iterator[Callable[..., None]]:
    """A function that enqueues the case: output, stream."""
    sizes = (ctypes.c_int32 * 4)(case.batch, case.patches, case.classes, case.dim)
    half = case.dtype == torch.float16
    path = os.fsencode(library("plugin"))
    handle = driver.driven_open(path, inputs.temperature, half, case.valued, case.masked, sizes)
    if not handle:
        raise RuntimeError(driver.driven_error().decode())
    tensors = [inputs.patches, inputs.class_embeddings]
    if case.valued or case.masked:
        tensors.append(inputs.class_embeddings if inputs.values is None else inputs.values)
    if inputs.mask is not None:
        tensors.append(inputs.mask)
    addresses = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))

    def enqueue(output: torch.Tensor, stream: int) -> None:
        if driver.driven_enqueue(handle, addresses, output.data_ptr(), stream) != 0:
            raise RuntimeError(driver.driven_error().decode())

    try:
        yield enqueue
    finally:
        driver.driven_close(handle)


def _on_gpu(case: Case) -> Inputs:
    inputs = make_inputs(case)
    moved = Inputs(
        inputs.patches.cuda(),
        inputs.class_embeddings.cuda(),
        inputs.temperature,
        None if inputs.mask is None else inputs.mask.cuda(),
        None if inputs.values is None else inputs.values.cuda(),
    )
    torch.cuda.synchronize()
    return moved


def _drive(driver: ctypes.CDLL, case: Case, cuda: CudaDriver, stream: int) -> float:
    """The largest difference of a call and of a graph of it, both into poisoned memory."""
    inputs = _on_gpu(case)
    outputs = torch.full((2, case.batch, case.classes), torch.nan, device="cuda")
    torch.cuda.synchronize()
    with _driven(driver, case, inputs) as enqueue:
        enqueue(outputs[0], stream)
        with cuda.capture(stream) as made:
            enqueue(outputs[1], stream)
        cuda.launch(made[0], stream)
        cuda.wait(stream)
        cuda.drop_graph(made[0])
    return max(difference_of(output, inputs) for output in outputs)


def _drive_timed(driver: ctypes.CDLL, case: Case, cuda: CudaDriver, stream: int) -> dict[str, Any]:
    """Graphs of the plugin, of the Triton operator and of PyTorch's own operations, in turn."""
    inputs = _on_gpu(case)
    output = torch.empty((case.batch, case.classes), device="cuda")
    with _driven(driver, case, inputs) as enqueue:
        with cuda.capture(stream) as made:
            enqueue(output, stream)

        def launch() -> None:
            cuda.launch(made[0], stream)
            cuda.wait(stream)

        sides = {
            "plugin": launch,
            "Triton operator": _replay(lambda: local_similarity(*inputs[:3], finite_checked=True)),
            "PyTorch's operations": _replay(lambda: naive.local_similarity(*inputs[:3])),
        }
        times = milliseconds(sides, _REPEATS)
        cuda.drop_graph(made[0])
    return times


def _replay(work: Callable[[], Any]) -> Callable[[], None]:
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


def difference_of(output: Any, inputs: Inputs) -> float:
    """From the definition in float64, over 1 + its size; NaN counts as infinite."""
    doubles = [
        value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for value in inputs
    ]
    expected = naive.local_similarity(*doubles)  # type: ignore[arg-type]
    found = torch.as_tensor(output, device=expected.device).double()
    error = (found - expected).abs() / (1 + expected.abs())
    return float(error.nan_to_num(nan=torch.inf).max())


def judged(found: dict[str, float]) -> dict[str, Any]:
    atol, _ = TOLERANCES["forward", torch.float16, "triton"]
    wrong = [f"{name}: {value:.2e}" for name, value in found.items() if not value <= atol]
    return {"bound": atol, **({"failed": wrong} if wrong else {})}


def name_of(case: Case) -> str:
    kind = str(case.dtype).removeprefix("torch.")
    options = f"{', mask' * case.masked}{', values' * case.valued}"
    return f"B{case.batch} P{case.patches} C{case.classes} D{case.dim} {kind}{options}"
