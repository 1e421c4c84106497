"""Every GPU test and benchmark of the operator, in one run under eight minutes.

    python benchmarks/gpu_suite.py [--output FOLDER] [--minutes 7.5]

Needs PyTorch and Triton; the package itself is found beside this file. Results go to
benchmarks/results/ as JSON whose name is the device and the date; a short table comes last. What
there was no time for is named as not run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# A compilation by max-autotune takes about this long; with less left it is not begun.
_COMPILE_S = 45.0
_MEMORY_SLACK = 0.05


class Suite:
    """Runs parts until the time is up and keeps what they gave."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.tests: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.not_run: list[str] = []

    def left(self) -> float:
        """Seconds until the end."""
        return self.deadline - time.monotonic()

    def part(self, name: str, needs_s: float, work: Callable[[], Any]) -> Any:
        """The part's result; a failure is kept as text, so that the others still run."""
        if self.left() < needs_s:
            self.not_run.append(name)
            return None
        started = time.monotonic()
        try:
            result = work()
        except Exception as error:  # one part's failure must not take the rest of the lease
            result = {"failed": [f"{type(error).__name__}: {error}"[:2000]]}
        print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)
        return result

    def test(self, name: str, needs_s: float, work: Callable[[], Any]) -> None:
        """A test part."""
        result = self.part(name, needs_s, work)
        if result is not None:
            self.tests[name] = result

    def row(self, name: str, needs_s: float, work: Callable[[], Any]) -> None:
        """A benchmark part: one row of the table."""
        result = self.part(name, needs_s, work)
        if result is not None:
            self.rows.append({"name": name, **result})


def main() -> int:
    """Exit code: 0 all that ran passed (or there is no GPU), 1 a test failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--minutes", type=float, default=7.5)
    options = parser.parse_args()
    missing = _missing()
    if missing:
        print(f"GPU suite: not run ({missing})")
        return 0
    suite = Suite(60 * options.minutes)
    _tests_first(suite)
    _benchmarks(suite)
    _tests_last(suite)
    record = {"machine": _machine(), "tests": suite.tests, "rows": suite.rows}
    record["not_run"] = suite.not_run
    options.output.mkdir(parents=True, exist_ok=True)
    device = record["machine"]["device"].lower().replace(" ", "-")
    path = options.output / f"gpu-{device}-{datetime.date.today().isoformat()}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    from benchmarks.gpu_table import test_lines, text_table

    print(f"\n{path}\n" + "\n".join(test_lines(record)) + "\n\n" + text_table(record))
    return 1 if any(result.get("failed") for result in suite.tests.values()) else 0


def _missing() -> str:
    try:
        import torch
        import triton  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    return "" if torch.cuda.is_available() else "torch sees no CUDA device"


def _machine() -> dict[str, Any]:
    import torch
    import triton

    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    major, minor = torch.cuda.get_device_capability()
    return {
        "device": torch.cuda.get_device_name(),
        "architecture": 10 * major + minor,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "commit": commit or "unknown",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _tests_first(suite: Suite) -> None:
    import torch

    from benchmarks import gpu_checks

    major, minor = torch.cuda.get_device_capability()
    begin = suite.left()
    suite.test(
        "cross product", 30, lambda: gpu_checks.cross_product(lambda: suite.left() - begin + 100)
    )
    suite.test("gradients", 30, gpu_checks.gradient_errors)
    suite.test("compile, opcheck, graph", 30, gpu_checks.in_graph_and_compiled)
    suite.test("tile candidates", 60, lambda: gpu_checks.candidate_errors(10 * major + minor))


def _tests_last(suite: Suite) -> None:
    from benchmarks import gpu_checks

    suite.test("pytest", 40, lambda: gpu_checks.pytest(ROOT, suite.left() - 5))


def _benchmarks(suite: Suite) -> None:
    from benchmarks.gpu_methods import Problem

    os.environ["TAIDPT_AUTOTUNE"] = "1"
    # what has a target comes first
    for problem in (Problem(64, 256, 20000), Problem(64, 196, 20000)):
        suite.row(_name("forward", problem), 70, lambda p=problem: _forward(p, suite))
    for patches in (49, 196):
        problem = Problem(1, patches, 80)
        suite.row(_name("latency", problem), 60, lambda p=problem: _latency(p, suite))
    problem = Problem(512, 20, 5000)
    suite.row(_name("tuning", problem), 30, lambda: _tuning(problem))
    reserve = 90  # for pytest
    for classes in (20000, 4585, 1000):
        for batch in (64, 8, 1):
            problem = Problem(batch, 196, classes)
            if (batch, classes) != (64, 20000):
                work = lambda p=problem: _forward(p, suite, compiled=False)  # noqa: E731
                suite.row(_name("forward", problem), reserve + 15, work)
            suite.row(_name("backward", problem), reserve + 15, lambda p=problem: _tuning(p))
    os.environ.pop("TAIDPT_AUTOTUNE")


def _name(what: str, problem: Any) -> str:
    return f"{what} B{problem.batch} P{problem.patches} C{problem.classes} D{problem.dim}"


def _compiled(suite: Suite, *, wanted: bool = True) -> Any:
    """PyTorch's compiler at its most thorough, or None where time is short."""
    import torch

    from benchmarks.gpu_methods import eager

    if not wanted or suite.left() < _COMPILE_S + 120:
        return None
    torch._dynamo.reset()
    return torch.compile(eager, mode="max-autotune", dynamic=False, fullgraph=True)


def _forward(problem: Any, suite: Suite, compiled: bool = True) -> dict[str, Any]:
    import torch

    from benchmarks.gpu_methods import eager, extra_memory, median_ms, ours

    patches, bank = problem.tensors()
    flat = patches.flatten(0, 1)
    methods: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(patches, bank),
        "eager": lambda: eager(patches, bank),
        "limit": lambda: torch.matmul(flat, bank.T),
    }
    with torch.no_grad():
        torch_compiled = _compiled(suite, wanted=compiled)
        if torch_compiled is not None:
            methods["compiled"] = lambda: torch_compiled(patches, bank)
        times = median_ms(methods)
        memory = {name: extra_memory(methods[name]) for name in ("ours", "eager")}
    output = problem.batch * problem.classes * 4
    whole = 2 * (patches.numel() + bank.numel()) + output
    result = _ratios(problem, times)
    result["memory_bytes"] = memory
    result["memory_over_inputs_and_outputs"] = (memory["ours"] - output) / whole
    result["memory_target"] = _MEMORY_SLACK
    return result


def _ratios(problem: Any, times: dict[str, dict[str, float]]) -> dict[str, Any]:
    middle = {name: time["p50"] for name, time in times.items()}
    result: dict[str, Any] = {"ms": times}
    if "limit" in middle:
        result["of_limit"] = middle["limit"] / middle["ours"]
        result["tflops"] = problem.flops / middle["ours"] / 1e9
    for other in ("eager", "compiled"):
        if other in middle:
            result[f"times_{other}"] = middle[other] / middle["ours"]
    return result


def _latency(problem: Any, suite: Suite) -> dict[str, Any]:
    """Batch 1 under CUDA graphs: max-autotune brings its own."""
    import torch

    from benchmarks.gpu_methods import eager, graphed, median_ms, ours

    patches, bank = problem.tensors()
    with torch.no_grad():
        methods: dict[str, Callable[[], object]] = {
            "ours": graphed(lambda: ours(patches, bank)),
            "eager": graphed(lambda: eager(patches, bank)),
        }
        compiled = _compiled(suite)
        if compiled is not None:
            for _ in range(3):
                compiled(patches, bank)
            methods["compiled"] = lambda: compiled(patches, bank)
        result = _ratios(problem, median_ms(methods))
        result["launches"] = _launches(lambda: ours(patches, bank))
    return result


def _launches(method: Callable[[], object]) -> int:
    from torch.profiler import ProfilerActivity, profile

    method()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        method()
    return sum(
        "kernel" in event.name and event.device_type.name == "CUDA" for event in recorded.events()
    )


def _tuning(problem: Any) -> dict[str, Any]:
    """Forward and backward with the bank's gradient alone, as tuning on texts wants it."""
    import torch

    from benchmarks.gpu_methods import eager, extra_memory, median_ms, ours

    patches, bank = problem.tensors(with_gradient=True)

    def step(method: Callable[..., torch.Tensor]) -> object:
        return torch.autograd.grad(method(patches, bank).float().sum(), bank)[0]

    methods: dict[str, Callable[[], object]] = {
        "ours": lambda: step(ours),
        "eager": lambda: step(eager),
    }
    result = _ratios(problem, median_ms(methods))
    result["memory_bytes"] = {name: extra_memory(method) for name, method in methods.items()}
    return result


if __name__ == "__main__":
    sys.exit(main())
