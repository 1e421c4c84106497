"""The operator: tests against float64, and times against eager PyTorch, its compiler and the limit.

    python benchmarks/kernels.py [--only TEXT] [--minutes 7.5] [--plugin FILE --driver FILE]
    python benchmarks/kernels.py --table            # the stored runs as Markdown
    python benchmarks/kernels.py --write            # the same, into the documents

Needs PyTorch, and on a GPU Triton; without a GPU the tests and a few rows run on the CPU.
`--plugin` names libtaidpt_trt_plugin.so with kernels for this GPU, `--driver` the library that
drives it without TensorRT (docs/kernels.md). `--only tiles` measures tiles. PyTorch's sides compute
in the same type as ours with fp32 accumulation and keep intermediates in that type. "limit" is the
bare matrix product of all patches with all classes. "MaxSim" is the kernel of
late-interaction-kernels where that package is installed: a class's greatest similarity, which ours
becomes as the temperature grows.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import (
    RESULTS,
    ROOT,
    Left,
    NotRunError,
    Part,
    held,
    in_turns,
    main,
    marked,
    quantiles,
)

if importlib.util.find_spec("torch") is None:
    sys.exit("kernels: not run (PyTorch is not installed: pip install torch)")
import torch

from taidpt.kernels.local_similarity import chunked, local_similarity
from taidpt.kernels.local_similarity.inputs import Inputs

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
TEMPERATURE = 40.0
# Sizes of published models and odd neighbours; on a CPU a few of each.
PATCHES = (49, 50, 196, 197, 784) if GPU else (50,)
CLASSES = (1, 20, 80, 81, 4585, 20000) if GPU else (1, 81)
DIMS = (256, 512, 768, 1024, 1280) if GPU else (512,)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Similarities lie in [-1, 1] and are summed in fp32.
LIMIT = 1e-5
# Relative to the gradient's norm; weights' gradients are rounded to the patches' type.
GRADIENT_LIMITS = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
# A compilation by max-autotune takes about this long; with less left, and two minutes for what
# follows, it is not begun.
COMPILE_S = 45.0 + 120.0
# The share of the bare product's speed that is to be reached, by (B, P, C).
OF_LIMIT = {(64, 256, 20000): 0.65, (64, 196, 20000): 0.55}


@dataclass(frozen=True)
class Problem:
    """Random patches [B, P, D] and unit class embeddings [C, D]; bf16 on a GPU, fp32 on a CPU."""

    batch: int
    patches: int
    classes: int
    dim: int = 1024
    dtype: torch.dtype = torch.bfloat16 if GPU else torch.float32

    def __str__(self) -> str:
        return f"B{self.batch} P{self.patches} C{self.classes} D{self.dim}"

    def tensors(self, with_gradient: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """The patches and the bank, which may want a gradient."""
        generator = torch.Generator(DEVICE).manual_seed(self.patches + self.classes + self.dim)
        shape = (self.batch, self.patches, self.dim)
        patches = torch.randn(shape, generator=generator, device=DEVICE).to(self.dtype)
        bank = torch.randn(self.classes, self.dim, generator=generator, device=DEVICE)
        bank = torch.nn.functional.normalize(bank, dim=-1).to(self.dtype)
        return patches, bank.requires_grad_(with_gradient)

    def mask(self) -> torch.Tensor:
        """True where a patch counts, [B, P]; at one size an image has no patch."""
        generator = torch.Generator(DEVICE).manual_seed(self.classes)
        mask = torch.rand(self.batch, self.patches, generator=generator, device=DEVICE) > 0.3
        mask[0] = self.classes != 20
        return mask


def ours(patches: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """The operator on values that are finite."""
    return local_similarity(patches, bank, TEMPERATURE, finite_checked=True)


def eager(patches: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """As one writes it in PyTorch: [B, P, C] several times over."""
    unit = torch.nn.functional.normalize(patches, dim=-1)
    similarity = unit @ bank.T
    return (torch.softmax(TEMPERATURE * similarity, dim=1) * similarity).sum(1)


def median_ms(sides: dict[str, Callable[[], object]]) -> dict[str, dict[str, float]]:
    """p20, p50, p80 of each side in milliseconds, in turns; on a GPU timed by its events."""
    if not GPU:
        return in_turns(sides, 10)
    from triton.testing import do_bench

    samples: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(3):
        for name, work in sides.items():
            samples[name] += do_bench(work, warmup=10, rep=40, return_mode="all")
    return {name: quantiles(values) for name, values in samples.items()}


def extra_memory(work: Callable[[], object]) -> int:
    """Bytes allocated at the peak beyond what was there before; the result counts. 0 on a CPU."""
    if not GPU:
        return 0
    work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = work()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before


def graphed(work: Callable[[], object]) -> Callable[[], object]:
    """The call as one CUDA graph's replay, after a warm-up on another stream."""
    if not GPU:
        return work
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def truth(patches: torch.Tensor, bank: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Similarities in float64, [B, C]."""
    return chunked.forward(Inputs(patches.double(), bank.double(), TEMPERATURE, mask)).result


# Tests


def judged(errors: dict[str, float], limit: float, cases: int | None = None) -> dict[str, Any]:
    """A test's result from the largest error of each case; NaN fails."""
    failed = [f"{name}: {error:.1e}" for name, error in errors.items() if not error <= limit]
    count, worst = len(errors), max(errors.values(), default=0.0)
    counts = {"cases": cases or count, "run": count}
    return {**counts, "worst": worst, "limit": limit, "failed": failed}


def cross_product(left: Left) -> dict[str, Any]:
    """Every P x C x D x type, with a mask in every second case, against float64."""
    groups = list(itertools.product(PATCHES, DTYPES))
    until, errors = time.time() + min(90.0, left() - 10), {}
    # on a GPU in several processes: compiling takes longer than running
    workers = min(8, max(1, (os.cpu_count() or 2) // 2)) if GPU else 1
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for found in pool.map(cross_group, groups, itertools.repeat(until)):
            errors |= found
    return judged(errors, LIMIT, len(groups) * len(CLASSES) * len(DIMS))


def cross_group(group: tuple[int, torch.dtype], until: float) -> dict[str, float]:
    """The largest error of each C x D at one P and type, as far as time allows."""
    errors = {}
    for index, (classes, dim) in enumerate(itertools.product(CLASSES, DIMS)):
        problem = Problem(2, group[0], classes, dim, group[1])
        rows, bank = problem.tensors()
        mask = problem.mask() if index % 2 else None
        if time.time() < until:
            found = local_similarity(rows, bank, TEMPERATURE, mask).double()
            error = (found - truth(rows, bank, mask)).abs().max()
            errors[f"{problem} {group[1]}"] = float(error)
    return errors


def gradients(left: Left) -> dict[str, Any]:
    """Gradients of patches and bank, relative to their norms, against float64."""
    errors = {}
    for (patches, classes), dtype in itertools.product(((20, 5000), (49, 81), (196, 80)), DTYPES):
        problem = Problem(2, patches, classes, 512, dtype)
        pairs = []
        for cast in (dtype, torch.float64):
            leaves = [tensor.to(cast).requires_grad_() for tensor in problem.tensors()]
            result = local_similarity(leaves[0], leaves[1], TEMPERATURE, problem.mask())
            direction = torch.cos(torch.arange(result.numel(), device=DEVICE)).view_as(result)
            pairs.append(torch.autograd.grad(result, leaves, direction.to(result.dtype)))
        for what, found, expected in zip(("patches", "bank"), *pairs, strict=True):
            error = float((found.double() - expected).norm() / expected.norm())
            # as a share of the type's limit, so that one limit holds for all
            errors[f"{problem} {dtype} {what}"] = error / GRADIENT_LIMITS[dtype]
    return judged(errors, 1.0)


def compiled_and_graphed(left: Left) -> dict[str, Any]:
    """torch.compile with gradients, opcheck, and a CUDA graph's replay give the plain result."""
    rows, bank = Problem(2, 49, 80, 512, torch.float32).tensors(with_gradient=True)
    plain = local_similarity(rows, bank, TEMPERATURE)
    compiled = torch.compile(ours, fullgraph=True)(rows, bank)
    pairs = {"compiled": (compiled, plain)}
    gradient, expected = (torch.autograd.grad(y.sum(), bank)[0] for y in (compiled, plain))
    pairs["compiled, gradient"] = (gradient, expected)
    torch.library.opcheck(
        torch.ops.taidpt.local_similarity.default, (rows, bank, TEMPERATURE, None, None, True)
    )
    if GPU:
        with torch.no_grad():
            output: list[torch.Tensor] = []
            graphed(lambda: output.append(ours(rows, bank)))()
        torch.cuda.synchronize()
        pairs["graph"] = (output[-1], plain)
    errors = {name: float((a - b).detach().abs().max()) for name, (a, b) in pairs.items()}
    return judged(errors, LIMIT)


def tests_of_the_repository(left: Left) -> dict[str, Any]:
    """pytest's tests that use a GPU, those of the C library included."""
    if not GPU or importlib.util.find_spec("pytest") is None:
        raise NotRunError("no GPU, or pytest is not installed")
    names = ("triton_cases", "test_native", "test_native_launch", "test_aot")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"tests/kernels/{name}.py" for name in names]
    limit = left() - 5
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise NotRunError(f"stopped by its limit after {limit:.0f} s") from None
    failed = [] if done.returncode == 0 else [(done.stdout + done.stderr)[-3000:]]
    summary = (done.stdout.strip().splitlines() or [""])[-1]
    return {"cases": 1, "run": 1, "summary": summary, "failed": failed}


def driven_plugin(plugin: Path | None, driver: Path | None) -> dict[str, Any]:
    """The TensorRT plugin's enqueue path, driven without TensorRT, against float64."""
    if plugin is None or driver is None or not GPU:
        raise NotRunError("needs a GPU, --plugin and --driver")
    drive, errors = ctypes.CDLL(str(driver.resolve())), {}
    drive.driven_open.restype = ctypes.c_void_p
    drive.driven_open.argtypes = [ctypes.c_char_p, ctypes.c_float, *[ctypes.c_int32] * 3]
    drive.driven_open.argtypes += [ctypes.POINTER(ctypes.c_int32)]
    drive.driven_enqueue.argtypes = [ctypes.c_void_p] * 4
    drive.driven_close.argtypes = [ctypes.c_void_p]
    drive.driven_error.restype = ctypes.c_char_p
    sizes = ((1, 49, 80, 1024), (8, 49, 1000, 1024), (1, 196, 80, 512), (3, 123, 123, 96))
    for size, half, masked in itertools.product(sizes, (False, True), (False, True)):
        problem = Problem(*size, torch.float16 if half else torch.float32)
        rows, bank = problem.tensors()
        mask = problem.mask() if masked else None
        # a mask is the fourth input: the class embeddings are the values before it
        inputs = [rows, bank, *([bank, mask] if mask is not None else [])]
        output = torch.full(size[::2], torch.nan, device=DEVICE)
        torch.cuda.synchronize()
        path, shape = str(plugin.resolve()).encode(), (ctypes.c_int32 * 4)(*size)
        handle = drive.driven_open(path, TEMPERATURE, half, False, masked, shape)
        if not handle:
            raise RuntimeError(drive.driven_error().decode())
        pointers = (ctypes.c_void_p * len(inputs))(*(each.data_ptr() for each in inputs))
        if drive.driven_enqueue(handle, pointers, output.data_ptr(), None) != 0:
            raise RuntimeError(drive.driven_error().decode())
        torch.cuda.synchronize()
        drive.driven_close(handle)
        error = (output.double() - truth(rows, bank, mask)).abs().nan_to_num(nan=torch.inf)
        errors[f"{problem} half {half} mask {masked}"] = float(error.max())
    return judged(errors, LIMIT)


# Rows


def ratios(times: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Times, and how many times as fast ours is as each rival."""
    middle = {name: each["p50"] for name, each in times.items()}
    result: dict[str, Any] = {"ms": times}
    if "limit" in middle:
        result["of_limit"] = middle["limit"] / middle["ours"]
    for other in ("eager", "compiled", "MaxSim"):
        if other in middle:
            result[f"times_{other}"] = middle[other] / middle["ours"]
    return result


def torch_compiled(left: Left) -> Any:
    """Eager PyTorch by its compiler at its most thorough, or None where time is short."""
    if not GPU or left() < COMPILE_S:
        return None
    torch._dynamo.reset()
    return torch.compile(eager, mode="max-autotune", dynamic=False, fullgraph=True)


def greatest_similarity() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None:
    """MaxSim of patches [B, P, D] and classes [C, D], [C, B]; None where it is not installed."""
    if importlib.util.find_spec("late_interaction_kernels") is None:
        return None
    from late_interaction_kernels import maxsim

    return lambda patches, bank: maxsim(bank[:, None], patches)


@torch.no_grad()
def forward(problem: Problem, left: Left, with_compiler: bool) -> dict[str, Any]:
    """Ours, eager, compiled, MaxSim and the bare product; memory beyond inputs and outputs."""
    patches, bank = problem.tensors()
    flat = patches.flatten(0, 1)
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(patches, bank),
        "eager": lambda: eager(patches, bank),
        "limit": lambda: flat @ bank.T,
    }
    compiled = torch_compiled(left) if with_compiler else None
    if compiled is not None:
        sides["compiled"] = lambda: compiled(patches, bank)
    greatest = greatest_similarity() if GPU else None
    if greatest is not None:
        sides["MaxSim"] = lambda: greatest(patches, bank)
    result = ratios(median_ms(sides))
    result["tflops"] = 2e-9 * flat.numel() * problem.classes / result["ms"]["ours"]["p50"]
    memory = {name: extra_memory(sides[name]) for name in ("ours", "eager")}
    output = 4 * problem.batch * problem.classes
    whole = patches.nbytes + bank.nbytes + output
    result["memory_bytes"] = memory
    result["memory_over_inputs_and_outputs"] = (memory["ours"] - output) / whole
    least = OF_LIMIT.get((problem.batch, problem.patches, problem.classes))
    if least is not None:
        result["targets"] = held(
            result,
            ("of_limit", ">=", least),
            ("times_compiled", ">=", 1.2),
            ("memory_over_inputs_and_outputs", "<=", 0.05),
        )
    return result


@torch.no_grad()
def latency(problem: Problem, left: Left) -> dict[str, Any]:
    """Batch 1 as CUDA graphs; max-autotune makes its own."""
    patches, bank = problem.tensors()
    sides = {"ours": graphed(lambda: ours(patches, bank))}
    sides["eager"] = graphed(lambda: eager(patches, bank))
    compiled = torch_compiled(left)
    if compiled is not None:
        for _ in range(3):
            compiled(patches, bank)
        sides["compiled"] = lambda: compiled(patches, bank)
    result = ratios(median_ms(sides))
    if GPU:
        _, kernels = gpu_kernels(lambda: ours(patches, bank))
        result["launches"] = len(kernels)
        targets = (("launches", "<=", 2), ("times_compiled", ">=", 1.0))
        result["targets"] = held(result, *targets)
    return result


def gpu_kernels(work: Callable[[], object], calls: int = 1) -> tuple[float, dict[str, float]]:
    """Milliseconds a call that kernels run for, in all and by their names."""
    from torch.profiler import ProfilerActivity, profile

    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        for _ in range(calls):
            work()
        torch.cuda.synchronize()
    kernels: dict[str, float] = {}
    for event in recorded.events():
        if event.device_type.name == "CUDA":
            spent = event.time_range.elapsed_us() / 1000 / calls
            kernels[event.name[:60]] = kernels.get(event.name[:60], 0.0) + spent
    return sum(kernels.values()), dict(sorted(kernels.items(), key=lambda pair: -pair[1]))


def tiles(problem: Problem, left: Left) -> dict[str, Any]:
    """The table's tiles beside their neighbours: values and times, fastest first."""
    if not GPU:
        raise NotRunError("needs a GPU")
    from triton.runtime.errors import OutOfResources

    from taidpt.kernels.local_similarity.tiles import Shape, choose
    from taidpt.kernels.local_similarity.triton_launch import launch_forward
    from taidpt.kernels.local_similarity.triton_operands import architecture_of, prepared

    patches, bank = problem.tensors()
    operands, expected = prepared(Inputs(patches, bank, TEMPERATURE)), truth(patches, bank, None)
    shape = Shape(problem.batch, problem.patches, problem.classes, problem.dim)
    chosen = choose(architecture_of(patches), shape)
    options = {
        chosen,
        *(replace(chosen, stages=stages) for stages in (2, 3, 4)),
        *(replace(chosen, warps=warps) for warps in (4, 8)),
        *(replace(chosen, block_d=chosen.block_d * n // 2) for n in (1, 4)),
        *(replace(chosen, block_c=chosen.block_c * n // 2) for n in (1, 4)),
        *(replace(chosen, images=n, block_p=p, tails=(0, 0)) for n, p in ((1, 64), (2, 64))),
    }
    times, errors = {}, {}
    for option in sorted(options, key=str):
        try:
            result = launch_forward(operands, tiles=option).result
        except OutOfResources:
            continue
        errors[str(option)] = float((result.double() - expected).abs().max())
        sides = {"ours": lambda option=option: launch_forward(operands, tiles=option)}
        times[str(option)] = median_ms(sides)["ours"]["p50"]
    result = judged(errors, LIMIT)
    return {**result, "ms": dict(sorted(times.items(), key=lambda pair: pair[1]))}


def parts(options: argparse.Namespace) -> Iterator[Part]:
    """Quick tests first, then rows with a target, the long tests, and the other rows."""
    from benchmarks import tuning

    targets = [Problem(64, patches, 20000) for patches in (256, 196)] if GPU else []
    sizes = itertools.product((20000, 4585, 1000), (64, 8, 1)) if GPU else [(1000, 1)]
    others = [Problem(batch, 196, classes) for classes, batch in sizes]
    yield Part("gradients", gradients)
    yield Part("compile, opcheck, graph", compiled_and_graphed, needs_s=30)
    for problem in targets:
        yield Part(f"forward {problem}", partial(forward, problem, with_compiler=True), "row", 70)
    for problem in (Problem(1, patches, 80) for patches in (49, 196)):
        yield Part(f"latency {problem}", partial(latency, problem), "row", 60)
    yield Part(f"tuning {tuning.TUNING}", partial(tuning.step, tuning.TUNING), "row", 30)
    yield Part("cross product", cross_product, needs_s=30)
    yield Part("plugin, driven", lambda left: driven_plugin(options.plugin, options.driver))
    for problem in others:
        if problem not in targets:
            yield Part(f"forward {problem}", partial(forward, problem, with_compiler=False), "row")
        yield Part(f"backward {problem}", partial(tuning.step, problem), "row")
    if "tiles" in options.only:
        for problem in (*targets, *others):
            yield Part(f"tiles {problem}", partial(tiles, problem))
    yield Part("pytest", tests_of_the_repository, needs_s=40)


# The stored runs as tables in the documents

DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "kernels.md")
BEGIN, END = "<!-- gpu-table: made by benchmarks/kernels.py -->", "<!-- end of gpu-table -->"
COLUMNS = (
    *("ours ms", "limit ms", "of limit", "× eager", "× compiled", "× MaxSim"),
    *("extra memory MB", "launches", "targets"),
)


def cells(row: dict[str, Any]) -> list[str]:
    """A row's texts in the order of COLUMNS; "–" where a column has no meaning for it."""
    times = {name: f"{entry['p50']:.3f}" for name, entry in row.get("ms", {}).items()}
    memory = row.get("memory_bytes", {}).get("ours")
    missed = [target["what"] for target in row.get("targets", ()) if not target["met"]]
    met = "missed: " + ", ".join(missed) if missed else "met"
    return [
        times.get("ours", "failed" if row.get("failed") else "not run"),
        times.get("limit", "–" if "ms" in row else "not run"),
        f"{row['of_limit']:.0%}" if "of_limit" in row else "–",
        f"{row['times_eager']:.2f}" if "times_eager" in row else "not run",
        f"{row['times_compiled']:.2f}" if "times_compiled" in row else "not run",
        f"{row['times_MaxSim']:.2f}" if "times_MaxSim" in row else "not run",
        "–" if memory is None else f"{memory / 2**20:.1f}",
        str(row.get("launches", "–")),
        met if "targets" in row else "–",
    ]


def markdown(records: list[dict[str, Any]]) -> str:
    """A table and the tests' verdicts for each device."""
    if not records:
        return "GPU benchmarks: not run; no machine with a GPU was at hand."
    return "\n\n".join(_one_device(record) for record in records)


def _one_device(record: dict[str, Any]) -> str:
    machine = record["machine"]
    head = (
        f"{machine['device']}, PyTorch {machine['torch']}, Triton {machine['triton']}, "
        f"{machine['date'][:10]}, bf16; commit {machine['commit'][:12]}:"
    )
    table = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    table += [f"| {row['name']} | {' | '.join(cells(row))} |" for row in record["rows"]]
    verdicts = []
    for name, result in record["tests"].items():
        state = "FAILED" if result.get("failed") else "passed"
        worst = f", largest error {result['worst']:.1e}" if "worst" in result else ""
        verdicts.append(
            f"- {name}: {state}, {result.get('run', 0)} of {result.get('cases', 0)}{worst}"
        )
        verdicts += [f"-   {failure}" for failure in result.get("failed", [])[:3]]
    verdicts += [f"- {each['name']}: not run, {each['why']}" for each in record["not_run"]]
    return "\n".join([head, "", *table, "", *verdicts])


def newest(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The latest stored run of each device, by its name."""
    records = [json.loads(path.read_text("utf-8")) for path in folder.glob("gpu-*.json")]
    records.sort(key=lambda record: str(record["machine"]["date"]))
    latest = {record["machine"]["device"]: record for record in records}
    return [latest[device] for device in sorted(latest)]


def replaced(document: str, table: str) -> str:
    """The document with this table between its marks; without marks as it was."""
    return marked(document, BEGIN, END, f"\n{table}\n") if BEGIN in document else document


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this program alone."""
    parser.add_argument("--plugin", type=Path, help="libtaidpt_trt_plugin.so")
    parser.add_argument("--driver", type=Path, help="libplugin_driver.so")
    parser.add_argument("--table", action="store_true", help="print the stored runs and stop")
    parser.add_argument("--write", action="store_true", help="put them into the documents and stop")


if __name__ == "__main__":
    if "--write" in sys.argv:
        for document in DOCUMENTS:
            text = replaced(document.read_text("utf-8"), markdown(newest()))
            document.write_text(text, "utf-8")
    elif "--table" in sys.argv:
        print(markdown(newest()))
    else:
        sys.exit(main(__file__, __doc__ or "", "gpu", lambda o: list(parts(o)), add_options))
