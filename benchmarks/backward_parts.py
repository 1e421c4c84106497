"""Where a forward and backward pass spends its time, and what other constants would make of it.

    python benchmarks/backward_parts.py [--output FILE.json] [--seconds 80]

Needs PyTorch, Triton and a GPU, and finds the package beside itself. For each problem: the wall
time of ours and of eager PyTorch in turns, how long of it kernels run, how long a call takes to
return, and memory; then with other limits of a chunk of classes, and other tiles of the gradient's
kernel. Forward tiles are the table's. What there was no time for is named.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# batch, patches, classes
PROBLEMS = {
    "tuning B512 P20 C5000": (512, 20, 5000),
    "backward B1 P196 C1000": (1, 196, 1000),
    "backward B64 P196 C4585": (64, 196, 4585),
    "backward B64 P196 C20000": (64, 196, 20000),
}
# rows, classes, features, warps, stages, rows of tiles that share classes; none spills on sm_90
TILES = (
    (128, 128, 64, 8, 3, 8),
    (128, 128, 64, 8, 4, 8),
    (128, 128, 64, 8, 3, 16),
    (128, 128, 128, 8, 2, 8),
    (64, 256, 64, 8, 3, 8),
    (256, 64, 64, 8, 3, 8),
    (64, 128, 64, 4, 4, 8),
    (128, 64, 64, 4, 4, 8),
)
CHUNK_MIB = (16, 32, 48, 64, 112)
_CALLS = 30
_PROFILED = 5

Step = Callable[[], object]


def main() -> int:
    """Exit code: always 0; without a GPU nothing is measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, help="JSON of all that is printed")
    parser.add_argument("--seconds", type=float, default=80.0, help="begin nothing after so long")
    options = parser.parse_args()
    from benchmarks.gpu_suite import machine_facts, missing_here

    missing = missing_here()
    if missing:
        print(f"backward parts: not run ({missing})")
        return 0
    found: dict[str, Any] = {"machine": machine_facts(), "rows": []}
    print(found["machine"]["device"], flush=True)
    deadline = time.monotonic() + options.seconds
    for name, variant, measured in measures():
        row: dict[str, Any] = {"name": name, "variant": variant}
        if time.monotonic() > deadline:
            row["not_run"] = "no time was left"
        else:
            try:
                row |= measured()
            except Exception as error:  # one variant's failure must not take the rest
                row["failed"] = f"{type(error).__name__}: {error}"[:300]
        found["rows"].append(row)
        print(line(row), flush=True)
        if options.output:
            options.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


def measures() -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """Name, variant and work of every measure: what is, then chunks, then tiles."""
    from taidpt.kernels.local_similarity import triton_backward
    from taidpt.kernels.local_similarity.tiles import GradientTiles

    for name, sizes in PROBLEMS.items():
        yield name, "as it is", lambda sizes=sizes: whole(sizes)
    for mib in CHUNK_MIB:
        for name, sizes in PROBLEMS.items():
            if sizes[0] > 1:
                changed = {"_CHUNK_BYTES": mib << 20, "_CHUNK_BYTES_FOR_EACH": 0}
                yield name, f"chunks of {mib} MiB", _variant(triton_backward, changed, sizes)
    for numbers in TILES:
        tiles = GradientTiles(*numbers)
        changed = {"gradient_tiles": lambda *_, tiles=tiles: tiles}
        for name, sizes in PROBLEMS.items():
            yield name, f"tiles {numbers}", _variant(triton_backward, changed, sizes)


def _variant(
    module: Any, changed: dict[str, Any], sizes: tuple[int, int, int]
) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        before = {name: getattr(module, name) for name in changed}
        try:
            vars(module).update(changed)
            return briefly(sizes)
        finally:
            vars(module).update(before)

    return work


def _steps(sizes: tuple[int, int, int]) -> tuple[dict[str, Step], int]:
    """Forward and backward for the bank's gradient, ours and eager; that gradient's bytes."""
    import torch

    from benchmarks.gpu_methods import Problem, eager, ours

    patches, bank = Problem(*sizes).tensors(with_gradient=True)

    def step(method: Callable[..., torch.Tensor]) -> object:
        return torch.autograd.grad(method(patches, bank).float().sum(), bank)[0]

    return {"ours": lambda: step(ours), "eager": lambda: step(eager)}, 2 * bank.numel()


def whole(sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Everything of one problem with the constants as they are."""
    from benchmarks.gpu_methods import extra_memory, median_ms

    steps, bank_bytes = _steps(sizes)
    times = median_ms(steps)
    result: dict[str, Any] = {"ms": {name: time["p50"] for name, time in times.items()}}
    result["times_eager"] = result["ms"]["eager"] / result["ms"]["ours"]
    for name, step in steps.items():
        result[f"{name}_gpu_ms"], result[f"{name}_kernels"] = gpu_ms(step)
        result[f"{name}_host_ms"] = host_ms(step)
    memory = extra_memory(steps["ours"])
    result["extra_memory_bytes"] = memory
    result["bytes_for_each_of_BC"] = (memory - bank_bytes) / (sizes[0] * sizes[2])
    return result


def briefly(sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Ours alone: wall, GPU, memory."""
    from triton.testing import do_bench

    from benchmarks.gpu_methods import extra_memory

    steps, bank_bytes = _steps(sizes)
    step = steps["ours"]
    step()
    result: dict[str, Any] = {"ms": {"ours": do_bench(step, warmup=10, rep=40, quantiles=[0.5])}}
    result["ours_gpu_ms"], result["ours_kernels"] = gpu_ms(step)
    memory = extra_memory(step) - bank_bytes
    result["bytes_for_each_of_BC"] = memory / (sizes[0] * sizes[2])
    return result


def gpu_ms(step: Step) -> tuple[float, dict[str, float]]:
    """Milliseconds that kernels run for in one call, and those that take longest by their names."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        for _ in range(_PROFILED):
            step()
        torch.cuda.synchronize()
    kernels: dict[str, float] = {}
    for event in recorded.events():
        if event.device_type.name == "CUDA":
            spent = event.time_range.elapsed_us() / 1000 / _PROFILED
            kernels[event.name[:60]] = kernels.get(event.name[:60], 0.0) + spent
    longest = sorted(kernels.items(), key=lambda pair: -pair[1])[:6]
    return sum(kernels.values()), {name: round(spent, 4) for name, spent in longest}


def host_ms(step: Step) -> float:
    """Milliseconds that a call takes to return, the GPU left to work on its own."""
    import torch

    step()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(_CALLS):
        step()
    spent = time.perf_counter() - started
    torch.cuda.synchronize()
    return 1000 * spent / _CALLS


def line(row: dict[str, Any]) -> str:
    """A row in words; kernels of ours below it where everything was measured."""
    head = f"{row['name']:26} {row['variant']:30}"
    if "ms" not in row:
        return f"{head} {row.get('failed') or 'not run: ' + row['not_run']}"
    numbers = {f"{name} ms": value for name, value in row["ms"].items()}
    numbers |= {name: row[name] for name in row if name.endswith("_ms") or "eager" in name}
    numbers["bytes/BC"] = row["bytes_for_each_of_BC"]
    text = "  ".join(f"{n} {v:.3f}" for n, v in numbers.items() if isinstance(v, float))
    if row["variant"] != "as it is":
        return f"{head} {text}"
    kernels = "\n".join(f"    {spent:8.4f} {name}" for name, spent in row["ours_kernels"].items())
    return f"{head} {text}\n{kernels}"


if __name__ == "__main__":
    sys.exit(main())
