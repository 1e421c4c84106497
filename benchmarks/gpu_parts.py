"""What the GPU suite runs, a process of its own: `python -m benchmarks.gpu_parts SECONDS DONE…`.

Prints `BEGIN name` before and `END {json}` after each part, so that whoever started it knows which
part took it down. Parts named on the command line are left out. What targets are, is held here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import gpu_checks
from benchmarks.gpu_methods import Problem, eager, extra_memory, graphed, median_ms, ours
from taidpt.kernels.local_similarity.tiles import Shape

__all__ = ["CUDA_IS_LOST", "parts"]

ROOT = Path(__file__).resolve().parent.parent
# Exit code: a part left the device unusable for this process.
CUDA_IS_LOST = 75
# A compilation by max-autotune takes about this long; with less left it is not begun.
_COMPILE_S = 45.0
# Share of the bare matrix product's speed that is to be reached, by (B, P, C).
_OF_LIMIT = {(64, 256, 20000): 0.65, (64, 196, 20000): 0.55}
# Bytes for each of B x C that a tuning step may take: similarities, log denominators and their
# gradient in fp32, and a chunk's gradient of ten times as many products in bf16.
_TUNING_BYTES = 32
# Kept for the tests at the end.
_RESERVE_S = 60.0

CLASSES = (20000, 4585, 1000)
BATCHES = (64, 8, 1)

Left = Callable[[], float]


@dataclass(frozen=True)
class Part:
    """A test ("test") or a row of the table ("row").

    Attributes:
        needs_s: with less time left it is not begun.
        work: gives the part's result.
    """

    name: str
    kind: str
    needs_s: float
    work: Callable[[], dict[str, Any]]


def parts(left: Left) -> list[Part]:
    """All of them: quick tests first, then what has a target, the full tests, and the rest."""
    return [
        *_first_tests(),
        *_targets(left),
        _cross_product(left),
        *_further_rows(left),
        _pytest(left),
    ]


def _first_tests() -> list[Part]:
    major, minor = torch.cuda.get_device_capability()
    return [
        Part("gradients", "test", 20, gpu_checks.gradient_errors),
        Part("compile, opcheck, graph", "test", 30, gpu_checks.in_graph_and_compiled),
        Part(
            "tile candidates",
            "test",
            40,
            lambda: gpu_checks.candidate_errors(10 * major + minor, _shapes(), 90),
        ),
    ]


def _shapes() -> list[Shape]:
    """What the benchmarks will tune tiles for."""
    sizes = {(64, 256, 20000), (1, 49, 80), (1, 196, 80), (512, 20, 5000)}
    sizes |= {(batch, 196, classes) for batch in BATCHES for classes in CLASSES}
    return [Shape(*size, 1024) for size in sorted(sizes)]


def _targets(left: Left) -> list[Part]:
    rows = [
        _row("forward", Problem(64, patches, 20000), 70, _forward, left) for patches in (256, 196)
    ]
    rows += [_row("latency", Problem(1, patches, 80), 60, _latency, left) for patches in (49, 196)]
    return [*rows, _row("tuning", Problem(512, 20, 5000), 30, _tuning, left)]


def _further_rows(left: Left) -> list[Part]:
    rows = []
    for classes in CLASSES:
        for batch in BATCHES:
            problem = Problem(batch, 196, classes)
            if (batch, classes) != (64, 20000):
                rows.append(_row("forward", problem, _RESERVE_S + 15, _forward_briefly, left))
            rows.append(_row("backward", problem, _RESERVE_S + 15, _tuning, left))
    return rows


def _cross_product(left: Left) -> Part:
    work = lambda: gpu_checks.cross_product(min(90.0, left() - 10))  # noqa: E731
    return Part("cross product", "test", 30, work)


def _pytest(left: Left) -> Part:
    return Part("pytest", "test", 40, lambda: gpu_checks.pytest(ROOT, left() - 5))


def _row(
    what: str,
    problem: Problem,
    needs_s: float,
    work: Callable[[Problem, Left], dict[str, Any]],
    left: Left,
) -> Part:
    name = f"{what} B{problem.batch} P{problem.patches} C{problem.classes} D{problem.dim}"
    return Part(name, "row", needs_s, lambda: work(problem, left))


def run(part: Part, left: Left) -> dict[str, Any]:
    """The part's result, or why there is none."""
    if left() < part.needs_s:
        return {"not_run": "no time was left"}
    os.environ["TAIDPT_AUTOTUNE"] = "1" if part.kind == "row" else "0"
    try:
        return part.work()
    except Exception as error:  # one part's failure must not take the rest of the lease
        return {"failed": [f"{type(error).__name__}: {error}"[:2000]]}


def main() -> int:
    """0 all parts were tried; CUDA_IS_LOST where another process has to go on."""
    deadline, done = time.monotonic() + float(sys.argv[1]), set(sys.argv[2:])

    def left() -> float:
        return deadline - time.monotonic()

    for part in parts(left):
        if part.name in done:
            continue
        print(f"BEGIN {part.name}", flush=True)
        started = time.monotonic()
        result = run(part, left)
        seconds = round(time.monotonic() - started, 1)
        answer = {"name": part.name, "kind": part.kind, "seconds": seconds, "result": result}
        print(f"END {json.dumps(answer)}", flush=True)
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError:  # an illegal access stays with the process
            return CUDA_IS_LOST
    return 0


def _forward_briefly(problem: Problem, left: Left) -> dict[str, Any]:
    """Without PyTorch's compiler, which would take most of the time."""
    return _forward(problem, left, compiled=False)


def _compiled(left: Left, *, wanted: bool = True) -> Any:
    """PyTorch's compiler at its most thorough, or None where time is short."""
    if not wanted or left() < _COMPILE_S + 120:
        return None
    torch._dynamo.reset()
    return torch.compile(eager, mode="max-autotune", dynamic=False, fullgraph=True)


def _forward(problem: Problem, left: Left, compiled: bool = True) -> dict[str, Any]:
    patches, bank = problem.tensors()
    flat = patches.flatten(0, 1)
    methods: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(patches, bank),
        "eager": lambda: eager(patches, bank),
        "limit": lambda: torch.matmul(flat, bank.T),
    }
    with torch.no_grad():
        torch_compiled = _compiled(left, wanted=compiled)
        if torch_compiled is not None:
            methods["compiled"] = lambda: torch_compiled(patches, bank)
        times = median_ms(methods)
        memory = {name: extra_memory(methods[name]) for name in ("ours", "eager")}
    output = problem.batch * problem.classes * 4
    whole = 2 * (patches.numel() + bank.numel()) + output
    result = _ratios(problem, times)
    result["memory_bytes"] = memory
    result["memory_over_inputs_and_outputs"] = (memory["ours"] - output) / whole
    least = _OF_LIMIT.get((problem.batch, problem.patches, problem.classes))
    if least is not None:
        result["targets"] = _held(
            result,
            ("of_limit", ">=", least),
            ("times_compiled", ">=", 1.2),
            ("memory_over_inputs_and_outputs", "<=", 0.05),
        )
    return result


def _held(result: dict[str, Any], *targets: tuple[str, str, float]) -> list[dict[str, Any]]:
    """Each target with what was measured; what was not measured is not met."""
    held = []
    for name, relation, bound in targets:
        value = result.get(name)
        met = value is not None and (value >= bound if relation == ">=" else value <= bound)
        held.append({"what": f"{name} {relation} {bound:g}", "value": value, "met": met})
    return held


def _ratios(problem: Problem, times: dict[str, dict[str, float]]) -> dict[str, Any]:
    middle = {name: time["p50"] for name, time in times.items()}
    result: dict[str, Any] = {"ms": times}
    if "limit" in middle:
        result["of_limit"] = middle["limit"] / middle["ours"]
        result["tflops"] = problem.flops / middle["ours"] / 1e9
    for other in ("eager", "compiled"):
        if other in middle:
            result[f"times_{other}"] = middle[other] / middle["ours"]
    return result


def _latency(problem: Problem, left: Left) -> dict[str, Any]:
    """Batch 1 under CUDA graphs: max-autotune brings its own."""
    patches, bank = problem.tensors()
    with torch.no_grad():
        methods: dict[str, Callable[[], object]] = {
            "ours": graphed(lambda: ours(patches, bank)),
            "eager": graphed(lambda: eager(patches, bank)),
        }
        compiled = _compiled(left)
        if compiled is not None:
            for _ in range(3):
                compiled(patches, bank)
            methods["compiled"] = lambda: compiled(patches, bank)
        result = _ratios(problem, median_ms(methods))
        result["launches"] = _launches(lambda: ours(patches, bank))
    result["targets"] = _held(result, ("launches", "<=", 2), ("times_compiled", ">=", 1.0))
    return result


def _launches(method: Callable[[], object]) -> int:
    method()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        method()
    return sum(
        "kernel" in event.name and event.device_type.name == "CUDA" for event in recorded.events()
    )


def _tuning(problem: Problem, left: Left) -> dict[str, Any]:
    """Forward and backward with the bank's gradient alone, as tuning on texts wants it."""
    patches, bank = problem.tensors(with_gradient=True)

    def step(method: Callable[..., torch.Tensor]) -> object:
        return torch.autograd.grad(method(patches, bank).float().sum(), bank)[0]

    methods: dict[str, Callable[[], object]] = {
        "ours": lambda: step(ours),
        "eager": lambda: step(eager),
    }
    result = _ratios(problem, median_ms(methods))
    memory = {name: extra_memory(method) for name, method in methods.items()}
    result["memory_bytes"] = memory
    own = memory["ours"] - 2 * bank.numel()
    result["bytes_for_each_of_BC"] = own / (problem.batch * problem.classes)
    if (problem.batch, problem.patches) == (512, 20):
        result["targets"] = _held(
            result, ("times_eager", ">=", 2.0), ("bytes_for_each_of_BC", "<=", _TUNING_BYTES)
        )
    return result


if __name__ == "__main__":
    sys.exit(main())
