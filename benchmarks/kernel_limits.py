"""The forward operator against the limits of one GPU: tiles, host time, copies by descriptors.

    python benchmarks/kernel_limits.py [--only TEXT] [-o FILE] [--table] [--write]

For each problem many tiles are timed as replays of a CUDA graph, with the second-level cache
emptied before each, beside the bare matrix product and eager PyTorch. A result names the share of
the dense bf16 peak and of the memory's bandwidth. Results are stored as they come. Needs a GPU,
PyTorch and Triton.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import triton
import triton.language as tl

from benchmarks.harness import RESULTS, ROOT, marked
from benchmarks.kernels import TEMPERATURE, Problem, eager, graphed, ours, truth
from taidpt.kernels.local_similarity import PreparedLocalSimilarity
from taidpt.kernels.local_similarity.inputs import Inputs
from taidpt.kernels.local_similarity.tiles import Shape, Tiles, choose, tails
from taidpt.kernels.local_similarity.triton_launch import launch_forward
from taidpt.kernels.local_similarity.triton_operands import architecture_of, prepared

# NVIDIA's data sheet of the H100 and H200 (SXM): dense bf16, and bytes a second of each memory.
PEAK_FLOPS = 989e12
BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12}
PROBLEMS = (
    Problem(1, 49, 80),
    Problem(1, 196, 80),
    Problem(1, 196, 1000),
    Problem(1, 196, 4585),
    Problem(1, 49, 20000),
    Problem(1, 196, 20000),
    Problem(8, 196, 1000),
    Problem(8, 196, 20000),
    Problem(64, 196, 20000),
    Problem(64, 256, 20000),
)
# Differences of similarities in [-1, 1], summed in fp32.
LIMIT = 1e-5
HOPPER = 90
DOCUMENT = ROOT / "docs" / "kernels.md"
BEGIN, END = "<!-- limits-table: made by benchmarks/kernel_limits.py -->", "<!-- end of limits -->"


def outlines(problem: Problem) -> list[tuple[int, int, int]]:
    """Class rows, images and patch columns that are tried."""
    if problem.batch == 64:
        return [(128, 2, 128), (128, 1, 128), (128, 4, 64), (64, 1, 256)]
    if problem.batch == 8:
        return [(128, 1, 128), (128, 2, 128), (64, 1, 128), (64, 1, 256), (64, 2, 64)]
    if problem.classes <= 80:
        return [(16, 1, width) for width in (16, 32, 64, 128, 256) if width < 2 * problem.patches]
    widths = (64, 128, 256) if problem.patches > 64 else (32, 64)
    return [(row, 1, width) for row in (32, 64, 128) for width in widths]


def candidates(problem: Problem, architecture: int) -> list[Tiles]:
    """The table's tiles first, then others."""
    shape = Shape(problem.batch, problem.patches, problem.classes, problem.dim)
    found = [choose(architecture, shape)]
    large, small = problem.batch == 64, problem.classes <= 80
    # one launch is what counts where little is to do, else copies that run ahead
    fused = (True,) if small else (False,) if problem.batch > 1 else (False, True)
    depths = ((64, 4), (128, 3)) if small else ((64, 3), (64, 4)) if large else ((64, 4),)
    for block_c, images, block_p in outlines(problem):
        size = block_c * images * block_p
        blocks = -(-problem.patches // block_p)
        for splits in {1, blocks} if problem.batch == 1 else {1}:
            cut = tails(problem.patches, block_p, images) if splits == 1 and blocks > 1 else (0, 0)
            for fuse in fused:
                for block_d, stages in depths:
                    if (block_c + images * block_p) * block_d * 2 * stages > 220 * 1024:
                        continue
                    warps = 4 if size <= 64 * 128 else 8
                    plain = (block_c, images, block_p, block_d, warps, stages, cut, splits)
                    groups = (4, 8, 16) if large and stages == 3 else (8,)
                    found += [Tiles(*plain, group=group, fuse_length=fuse) for group in groups]
    return list(dict.fromkeys(found))


def compiled_one(job: tuple[Problem, Tiles]) -> str | None:
    """Compile into Triton's cache; what failed, in a word."""
    problem, tiles = job
    patches, bank = problem.tensors()
    try:
        launch_forward(prepared(Inputs(patches, bank, TEMPERATURE)), tiles=tiles)
        torch.cuda.synchronize()
    except Exception as error:  # a tile that the compiler refuses is no candidate
        return type(error).__name__
    return None


def time_ms(work: Callable[[], object], rep: int = 25) -> float:
    """The median of a call, the second-level cache emptied before each."""
    from triton.testing import do_bench

    return float(do_bench(work, warmup=5, rep=rep, return_mode="median"))


def shares(problem: Problem, ms: float) -> dict[str, float]:
    """Milliseconds as shares of peak and bandwidth: patches, bank and result moved once."""
    cells = problem.batch * problem.patches
    flops = 2 * cells * problem.classes * problem.dim
    moved = 2 * problem.dim * (cells + problem.classes) + 4 * problem.batch * problem.classes
    name = torch.cuda.get_device_name()
    bandwidth = next((rate for part, rate in BANDWIDTH.items() if part in name), float("nan"))
    return {
        "ms": ms,
        "of_peak": flops / (ms / 1e3) / PEAK_FLOPS,
        "of_bandwidth": moved / (ms / 1e3) / bandwidth,
    }


@torch.no_grad()
def tiles_of(problem: Problem, seconds: float) -> dict[str, Any]:
    """The tiles of one problem, fastest first, beside the product and eager PyTorch."""
    patches, bank = problem.tensors()
    operands, expected = prepared(Inputs(patches, bank, TEMPERATURE)), truth(patches, bank, None)
    until = time.monotonic() + seconds
    times, wrong, left_out = {}, {}, 0
    options = candidates(problem, architecture_of(patches))
    for tiles in options:
        if time.monotonic() > until:
            left_out += 1
            continue
        try:
            result = launch_forward(operands, tiles=tiles).result
            error = float((result.double() - expected).abs().max())
            replay = graphed(lambda tiles=tiles: launch_forward(operands, tiles=tiles))
            times[str(tiles)] = time_ms(replay)
        except Exception as error_:  # shared memory exceeded
            left_out += 1
            print(f"  {tiles}: {type(error_).__name__}")
            continue
        if not error <= LIMIT:
            wrong[str(tiles)] = error
    flat = patches.flatten(0, 1)
    table = times[str(options[0])]
    best = min(times, key=lambda name: times[name])
    return {
        "problem": str(problem),
        "table": {"tiles": str(options[0]), **shares(problem, table)},
        "best": {"tiles": best, **shares(problem, times[best])},
        "product": shares(problem, time_ms(graphed(lambda: flat @ bank.T))),
        "eager_ms": time_ms(graphed(lambda: eager(patches, bank))),
        "fastest": dict(sorted(times.items(), key=lambda pair: pair[1])[:12]),
        "tried": len(times),
        "left_out": left_out,
        "wrong": wrong,
    }


def host_us(work: Callable[[], object], calls: int = 300) -> float:
    """Host time a call in microseconds, the median of five rounds that each begin idle."""
    rounds = []
    for _ in range(6):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(calls):
            work()
        rounds.append((time.perf_counter() - began) / calls * 1e6)
        torch.cuda.synchronize()
    return sorted(rounds[1:])[2]


@torch.no_grad()
def host_time(problem: Problem) -> dict[str, Any]:
    """Host time a call: ordinary, launches alone, prepared ahead, in a caller's graph."""
    patches, bank = problem.tensors()
    operands = prepared(Inputs(patches, bank, TEMPERATURE))
    call = PreparedLocalSimilarity(patches, bank, TEMPERATURE)
    expected = truth(patches, bank, None)
    call.result.zero_()
    error = float((call().double() - expected).abs().max())
    replay = graphed(call)
    call.result.zero_()
    replay()
    torch.cuda.synchronize()
    graph_error = float((call.result.double() - expected).abs().max())
    ways: dict[str, Callable[[], object]] = {
        "local_similarity": lambda: ours(patches, bank),
        "launch_forward": lambda: launch_forward(operands),
        "prepared": call,
        "caller's graph": replay,
        "eager": lambda: eager(patches, bank),
    }
    return {
        "problem": str(problem),
        "host_us": {name: host_us(work) for name, work in ways.items()},
        "launches": len(call._launches),
        "errors": {"prepared": error, "graph": graph_error},
    }


@triton.jit
def _by_descriptors(  # type: ignore[no-untyped-def]
    x_desc,
    t_desc,
    inverse_ptr,
    out_ptr,
    factor,
    B,
    P,
    C,
    D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
):
    """One image's patches, at most BLOCK_P of them, and BLOCK_C classes, copied by descriptors."""
    class_blocks = tl.cdiv(C, BLOCK_C)
    program = tl.program_id(0)
    wave = program // (GROUP * class_blocks)
    group_size = tl.minimum(B - wave * GROUP, GROUP)
    inner = program % (GROUP * class_blocks)
    image = wave * GROUP + inner % group_size
    first = (inner // group_size) * BLOCK_C
    products = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    for start in range(0, D, BLOCK_D):
        t = t_desc.load([first, start])
        x = x_desc.load([image * P, start])
        products = tl.dot(t, x.T, products)
    lane = tl.arange(0, BLOCK_P)
    inverse = tl.load(inverse_ptr + image * P + lane, mask=lane < P, other=0.0)
    logits = products * (inverse * factor)[None, :]
    logits = tl.where((lane < P)[None, :], logits, float("-inf"))
    peak = tl.max(logits, axis=1)
    weights = tl.exp2(logits - peak[:, None])
    seen = tl.where((lane < P)[None, :], logits, 0.0)
    result = tl.sum(weights * seen, axis=1) / tl.sum(weights, axis=1) / factor
    classes = first + tl.arange(0, BLOCK_C)
    tl.store(out_ptr + image * C + classes, result, mask=classes < C)


@torch.no_grad()
def descriptors(problem: Problem) -> dict[str, Any]:
    """The same problem with tiles copied by the GPU's copy engine (TMA), in several shapes."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    from taidpt.kernels.local_similarity.triton_operands import inverse_lengths

    patches, bank = problem.tensors()
    flat = patches.flatten(0, 1)
    expected = truth(patches, bank, None)
    inverse = inverse_lengths(patches)
    result = torch.empty(problem.batch, problem.classes, device="cuda")
    block_p = triton.next_power_of_2(problem.patches)
    times = {}
    for block_c, block_d, stages, warps, group in (
        (128, 64, 3, 8, 8),
        (128, 64, 4, 8, 8),
        (128, 64, 4, 8, 16),
        (128, 32, 4, 8, 8),
        (64, 64, 4, 4, 8),
        (64, 64, 4, 8, 8),
        (64, 128, 3, 4, 8),
        (256, 64, 3, 8, 8),
    ):
        if (block_c + block_p) * block_d * 2 * stages > 220 * 1024:
            continue
        name = f"{block_c} x {block_p} x {block_d}, {stages} stages, {warps} warps, group {group}"
        try:
            x_desc = TensorDescriptor.from_tensor(flat, [block_p, block_d])
            t_desc = TensorDescriptor.from_tensor(bank, [block_c, block_d])

            def work(
                x: Any = x_desc,
                t: Any = t_desc,
                sizes: tuple[int, ...] = (block_c, block_d, stages, warps, group),
            ) -> None:
                c, d, stages, warps, group = sizes
                grid = (-(-problem.classes // c) * problem.batch,)
                _by_descriptors[grid](
                    x, t, inverse, result, TEMPERATURE * 1.4426950408889634,
                    problem.batch, problem.patches, problem.classes, problem.dim,
                    BLOCK_C=c, BLOCK_P=block_p, BLOCK_D=d, GROUP=group,
                    num_warps=warps, num_stages=stages,
                )  # fmt: skip

            work()
            error = float((result.double() - expected).abs().max())
            times[name] = {**shares(problem, time_ms(work)), "error": error}
        except Exception as error_:
            times[name] = {"refused": f"{type(error_).__name__}: {error_}"[:300]}
    return {"problem": str(problem), "descriptors": times}


def line(entry: dict[str, Any]) -> str:
    """One row of the printed table."""
    if "best" in entry:
        parts = [f"{entry['problem']:28}"]
        for name in ("table", "best", "product"):
            row = entry[name]
            of = f"{row['of_peak']:5.1%} peak {row['of_bandwidth']:5.1%} bandwidth"
            parts.append(f"{name} {row['ms'] * 1e3:8.1f} us ({of})")
        extra = f" WRONG {entry['wrong']}" if entry["wrong"] else ""
        return "  ".join(parts) + f"\n    best: {entry['best']['tiles']}{extra}"
    return json.dumps(entry)


def _reads_again(tiles: str) -> bool:
    """Whether tiles were timed before their kernel had to load patches twice."""
    rows = re.search(r"block_c=(\d+)", tiles)
    return rows is not None and int(rows[1]) >= 64 and "fuse_length=True" in tiles


def _row(entry: dict[str, Any]) -> str:
    batch, patches, classes, dim = map(int, re.findall(r"\d+", entry["problem"]))
    right = {
        name: ms
        for name, ms in entry["fastest"].items()
        if name not in entry["wrong"] and not _reads_again(name)
    }
    times = {entry["table"]["tiles"]: entry["table"]["ms"], **right}
    now = times.get(str(choose(HOPPER, Shape(batch, patches, classes, dim))))
    fastest = min(times.values())
    # shares go as the inverse of time
    peak, bandwidth = (
        entry["table"][name] * entry["table"]["ms"] for name in ("of_peak", "of_bandwidth")
    )
    product = entry["product"]
    cells = [
        entry["problem"],
        f"{entry['table']['ms'] * 1e3:.1f}",
        "not run" if now is None else f"{now * 1e3:.1f}",
        f"{fastest * 1e3:.1f}",
        *(("", "") if now is None else (f"{peak / now:.1%}", f"{bandwidth / now:.1%}")),
        f"{product['ms'] * 1e3:.1f}",
        f"{product['of_peak']:.1%}",
        f"{entry['eager_ms'] * 1e3:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _note(entry: dict[str, Any]) -> str:
    if "host_us" in entry:
        ways = ", ".join(f"{name} {us:.1f}" for name, us in entry["host_us"].items())
        return f"- host time a call of {entry['problem']}, in us: {ways}"
    measured = [each for each in entry["descriptors"].values() if "ms" in each]
    best = min(measured, key=lambda each: float(each["ms"]))
    return (
        f"- tiles copied by descriptors (TMA), {entry['problem']}: {best['ms'] * 1e3:.1f} us, "
        f"{best['of_peak']:.1%} of peak"
    )


def markdown(record: dict[str, Any]) -> str:
    """Times and shares of each problem, then host times and descriptors."""
    facts = record["machine"]
    columns = (
        *("", "tiles then, us", "tiles now, us", "fastest tried, us"),
        *("of peak", "of bandwidth", "product, us", "product of peak", "eager, us"),
    )
    problems = [entry for entry in record["rows"] if "fastest" in entry]
    lines = [
        f"{facts['gpu']}, PyTorch {facts['torch']}, Triton {facts['triton']}, bf16:",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *map(_row, problems),
        "",
        *(_note(entry) for entry in record["rows"] if "fastest" not in entry),
    ]
    return "\n".join(lines)


def stored() -> str:
    """The newest stored record as a table."""
    newest = max(RESULTS.glob("limits-*.json"), key=lambda path: path.stem[-10:])
    return markdown(json.loads(newest.read_text("utf-8")))


def replaced(document: str) -> str:
    """The document with the newest table between its marks."""
    return marked(document, BEGIN, END, f"\n{stored()}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="problems and parts whose name holds this")
    parser.add_argument("-o", type=Path, help="where the results are stored, as JSON")
    parser.add_argument("--seconds", type=float, default=6.0, help="of tiles a problem")
    parser.add_argument("--table", action="store_true", help="print the stored run and stop")
    parser.add_argument("--write", action="store_true", help="put it into the document and stop")
    options = parser.parse_args()
    if options.table:
        print(stored())
        return
    if options.write:
        DOCUMENT.write_text(replaced(DOCUMENT.read_text("utf-8")), "utf-8")
        return
    if not torch.cuda.is_available():
        sys.exit("kernel_limits: not run (no GPU)")
    facts = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    facts |= {"triton": triton.__version__, "python": platform.python_version()}
    record: dict[str, Any] = {"machine": facts, "rows": []}

    def add(entry: dict[str, Any]) -> None:
        record["rows"].append(entry)
        print(line(entry), flush=True)
        if options.o:
            options.o.write_text(json.dumps(record, indent=1) + "\n", "utf-8")

    chosen = [problem for problem in PROBLEMS if options.only in f"tiles {problem}"]
    jobs = [(problem, tiles) for problem in chosen for tiles in candidates(problem, HOPPER)]
    began = time.monotonic()
    workers = max(1, min(14, (os.cpu_count() or 2) - 2))
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        refused = [word for word in pool.map(compiled_one, jobs) if word]
    print(f"{len(jobs)} kernels compiled in {time.monotonic() - began:.0f} s", refused, flush=True)
    for problem in PROBLEMS[:2]:
        if options.only in f"host {problem}":
            add(host_time(problem))
    for problem in PROBLEMS[-2:]:
        if options.only in f"descriptors {problem}":
            add(descriptors(problem))
    for problem in chosen:
        add(tiles_of(problem, options.seconds))


if __name__ == "__main__":
    main()
