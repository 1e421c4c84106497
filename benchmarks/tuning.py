"""A forward and backward pass of the operator: where its time goes, what other sizes would give.

    python benchmarks/tuning.py [--only TEXT] [--minutes 7.5]

For each problem: the time of ours and of eager PyTorch in turns, how long of it GPU kernels run,
how long a call takes to return, and memory; then with other sizes of a chunk of classes and other
tiles of the gradient's kernel. Needs PyTorch, and on a GPU Triton; without a GPU one small problem
is timed. tuning_step.py times the tuning loop's step on a CPU, tuning_scale.py at scale.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.harness import Left, Part, held, main
from benchmarks.kernels import (
    GPU,
    Problem,
    eager,
    extra_memory,
    gpu_kernels,
    median_ms,
    ours,
    ratios,
)

TUNING = Problem(512, 20, 5000) if GPU else Problem(64, 20, 100, 512)
PROBLEMS = (
    [TUNING, Problem(1, 196, 1000), Problem(64, 196, 4585), Problem(64, 196, 20000)]
    if GPU
    else [TUNING]
)
# Bytes for each of B x C that a tuning step may take: similarities, log denominators and their
# gradient in fp32, and a chunk's gradient of ten times as many products in bf16.
TUNING_BYTES = 32
# Around the chosen chunk of 64 MiB and the chosen tiles (rows, classes, features, warps, stages,
# rows of tiles that share classes); ptxas reports no spill for any of them on sm_90.
CHUNK_MIB = (16, 32, 48, 64, 112)
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


def step(problem: Problem, left: Left, *, in_detail: bool = False) -> dict[str, Any]:
    """Forward and backward for the bank's gradient alone, as tuning on texts computes it."""
    patches, bank = problem.tensors(with_gradient=True)

    def work(method: Callable[..., torch.Tensor]) -> object:
        return torch.autograd.grad(method(patches, bank).float().sum(), bank)[0]

    sides = {"ours": partial(work, ours), "eager": partial(work, eager)}
    result = ratios(median_ms(sides))
    if not GPU:
        return result
    memory = {name: extra_memory(side) for name, side in sides.items()}
    result["memory_bytes"] = memory
    own = memory["ours"] - bank.nbytes
    result["bytes_for_each_of_BC"] = own / (problem.batch * problem.classes)
    if in_detail:
        for name, side in sides.items():
            result[f"{name}_gpu_ms"], result[f"{name}_kernels"] = gpu_kernels(side, 5)
            result[f"{name}_host_ms"] = host_ms(side)
    if problem == TUNING:
        targets = (("times_eager", ">=", 2.0), ("bytes_for_each_of_BC", "<=", TUNING_BYTES))
        result["targets"] = held(result, *targets)
    return result


def host_ms(work: Callable[[], object], calls: int = 30) -> float:
    """Milliseconds that a call takes to return while the GPU works on its own."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(calls):
        work()
    spent = time.perf_counter() - started
    torch.cuda.synchronize()
    return 1000 * spent / calls


def changed(problem: Problem, values: dict[str, Any], left: Left) -> dict[str, Any]:
    """The same step with other constants of the backward pass."""
    from taidpt.kernels.local_similarity import triton_backward

    before = {name: getattr(triton_backward, name) for name in values}
    try:
        vars(triton_backward).update(values)
        return step(problem, left)
    finally:
        vars(triton_backward).update(before)


def parts(options: argparse.Namespace) -> Iterator[Part]:
    """What is, then chunks, then tiles."""
    for problem in PROBLEMS:
        yield Part(f"{problem} as it is", partial(step, problem, in_detail=True), "row", 5)
    if not GPU:
        return
    from taidpt.kernels.local_similarity.tiles import GradientTiles

    for mib in CHUNK_MIB:
        for problem in PROBLEMS[:1] + PROBLEMS[2:]:
            values: dict[str, Any] = {"_CHUNK_BYTES": mib << 20, "_CHUNK_BYTES_FOR_EACH": 0}
            yield Part(
                f"{problem} chunks of {mib} MiB", partial(changed, problem, values), "row", 5
            )
    for numbers in TILES:
        tiles = GradientTiles(*numbers)
        for problem in PROBLEMS:
            values = {"gradient_tiles": lambda *_, tiles=tiles: tiles}
            yield Part(f"{problem} tiles {numbers}", partial(changed, problem, values), "row", 5)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__ or "", "backward-parts", lambda o: list(parts(o))))
