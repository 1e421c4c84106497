"""The GPU suite's tests: the full cross product, gradients, every candidate of the autotuner."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from taidpt.kernels.local_similarity import chunked, local_similarity
from taidpt.kernels.local_similarity.tiles import Shape, Tiles, candidates
from taidpt.kernels.local_similarity.triton_launch import launch_forward
from taidpt.kernels.local_similarity.triton_operands import prepared

__all__ = [
    "candidate_errors",
    "cross_product",
    "gradient_errors",
    "in_graph_and_compiled",
    "pytest",
]

PATCHES = (49, 50, 196, 197, 784)
CLASSES = (1, 20, 80, 81, 4585, 20000)
DIMS = (256, 512, 768, 1024, 1280)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LIMIT = 1e-5

# A case in words, and its largest error.
Error = tuple[str, float]


def _inputs(
    patches: int, classes: int, dim: int, dtype: torch.dtype, batch: int = 2
) -> tuple[Any, ...]:
    generator = torch.Generator("cuda").manual_seed(patches + classes + dim)
    rows = torch.randn(batch, patches, dim, generator=generator, device="cuda").to(dtype)
    bank = torch.randn(classes, dim, generator=generator, device="cuda")
    mask = torch.rand(batch, patches, generator=generator, device="cuda") > 0.3
    mask[0] = classes != 20  # at one size an image without any patch
    return rows, torch.nn.functional.normalize(bank, dim=-1).to(dtype), mask


def _truth(rows: torch.Tensor, bank: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return chunked.forward(rows.double(), bank.double(), 40.0, mask)[0]


def _in_processes(
    work: Callable[[Any, float], list[Error]], groups: list[Any], cases: int, seconds: float
) -> dict[str, Any]:
    """Groups of cases in several processes, since compiling takes longer than running."""
    until = time.time() + seconds
    workers = max(1, min(8, (os.cpu_count() or 2) // 2))
    found: list[Error] = []
    broken: list[str] = []
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(work, group, until) for group in groups]
        for group, future in zip(groups, futures, strict=True):
            try:
                found += future.result()
            except Exception as error:  # a process may die of its group; the others go on
                broken.append(f"{group}: {type(error).__name__}: {error}"[:500])
    worst = max((size for _, size in found), default=0.0)
    failed = [f"{case}: {size:.1e}" for case, size in found if not size <= LIMIT]
    return {
        "cases": cases,
        "run": len(found),
        "worst": worst,
        "limit": LIMIT,
        "failed": [*broken, *failed],
    }


def cross_product(seconds: float) -> dict[str, Any]:
    """Every P x C x D x type, masked and not in turn, against float64."""
    groups = list(itertools.product(PATCHES, DTYPES))
    cases = len(groups) * len(CLASSES) * len(DIMS)
    return _in_processes(_cross_group, groups, cases, seconds)


def _cross_group(group: tuple[int, torch.dtype], until: float) -> list[Error]:
    patches, dtype = group
    found = []
    for index, (classes, dim) in enumerate(itertools.product(CLASSES, DIMS)):
        if time.time() > until:
            break
        rows, bank, mask = _inputs(patches, classes, dim, dtype)
        given = mask if index % 2 else None
        error = (
            local_similarity(rows, bank, 40.0, given).double() - _truth(rows, bank, given)
        ).abs()
        found.append((f"P{patches} C{classes} D{dim} {dtype}", float(error.max())))
    return found


def candidate_errors(architecture: int, shapes: Sequence[Shape], seconds: float) -> dict[str, Any]:
    """Every tile choice that autotuning may make for these shapes, on smaller inputs.

    Triton keeps what it compiled, so that the benchmarks after it need not wait for the compiler.
    """
    found = {
        (shape.patches, tiles, shape.patches == 20)
        for shape in shapes
        for tiles in candidates(architecture, shape)
    }
    return _in_processes(_candidate_error, sorted(found, key=str), len(found), seconds)


def _candidate_error(group: tuple[int, Tiles, bool], until: float) -> list[Error]:
    from triton.runtime.errors import OutOfResources

    patches, tiles, keep_log_sum = group
    if time.time() > until:
        return []
    rows, bank, _ = _inputs(patches, 500, 1024, torch.bfloat16, batch=9)
    operands = prepared(rows, bank, 40.0, None, None)
    try:
        result = launch_forward(operands, tiles=tiles, keep_log_sum=keep_log_sum).result
    except OutOfResources:  # autotuning leaves it out
        return [(f"P{patches} {tiles}", 0.0)]
    error = float((result.double() - _truth(rows, bank, None)).abs().max())
    return [(f"P{patches} {tiles}", error)]


def gradient_errors() -> dict[str, Any]:
    """Gradients of X and T, relative to their norms, against float64."""
    limits = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
    worst, failed, count = 0.0, [], 0
    for (patches, classes), dtype in itertools.product(((20, 5000), (49, 81), (196, 80)), DTYPES):
        rows, bank, mask = _inputs(patches, classes, 512, dtype)
        pairs = []
        for cast in (dtype, torch.float64):
            leaves = [
                rows.detach().to(cast).requires_grad_(),
                bank.detach().to(cast).requires_grad_(),
            ]
            result = local_similarity(leaves[0], leaves[1], 40.0, mask)
            direction = torch.cos(torch.arange(result.numel(), device="cuda")).view_as(result)
            pairs.append(torch.autograd.grad(result, leaves, direction.to(result.dtype)))
        for found, expected in zip(*pairs, strict=True):
            count += 1
            error = float((found.double() - expected).norm() / expected.norm())
            worst = max(worst, error)
            if not error <= limits[dtype]:
                failed.append([patches, classes, str(dtype), error])
    return {"cases": count, "run": count, "worst": worst, "limit": 1e-2, "failed": failed}


def in_graph_and_compiled() -> dict[str, Any]:
    """torch.compile with gradients, opcheck, and a CUDA graph's replay give the plain result."""
    rows, bank, _ = _inputs(49, 80, 512, torch.float32)
    bank.requires_grad_()
    plain = local_similarity(rows, bank, 40.0)
    compiled = torch.compile(lambda x, t: local_similarity(x, t, 40.0), fullgraph=True)(rows, bank)
    expected = torch.autograd.grad(plain.sum(), bank)[0]
    errors = [float((compiled - plain).detach().abs().max())]
    errors.append(float((torch.autograd.grad(compiled.sum(), bank)[0] - expected).abs().max()))
    torch.library.opcheck(
        torch.ops.taidpt.local_similarity.default, (rows, bank, 40.0, None, None, True)
    )
    frozen = bank.detach()
    local_similarity(rows, frozen, 40.0, finite_checked=True)  # compiled before the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = local_similarity(rows, frozen, 40.0, finite_checked=True)
    graph.replay()
    torch.cuda.synchronize()
    errors.append(float((replayed - plain).detach().abs().max()))
    failed = [error for error in errors if not error <= LIMIT]
    return {"cases": 4, "run": 4, "worst": max(errors), "limit": LIMIT, "failed": failed}


def pytest(root: Path, timeout_s: float) -> dict[str, Any]:
    """The operator's test files that have something to say on a GPU, the C library's among them."""
    if importlib.util.find_spec("pytest") is None:
        return {"not_run": "pytest is not installed"}
    files = [
        f"tests/kernels/{name}.py"
        for name in ("triton_cases", "test_native", "test_native_launch", "test_aot")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return {"not_run": f"stopped by its limit after {timeout_s:.0f} s"}
    last = (done.stdout.strip().splitlines() or [done.stderr[-500:]])[-1]
    failed = [] if done.returncode == 0 else [(done.stdout + done.stderr)[-3000:]]
    return {"cases": 1, "run": 1, "summary": last, "failed": failed}
