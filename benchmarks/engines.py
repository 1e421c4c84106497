"""A bundle on one device against ONNX Runtime on the CPU: engines, banks, swaps, and their times.

    python benchmarks/engines.py [--device tensorrt-rtx] [--precision fp16] [--library FILE]

`--device` is one of tensorrt-rtx, tensorrt, cuda and cpu; the bundle is RN50's with random weights
and 80 tags, on the CPU the toy world's. Whether a TensorRT engine runs at all on this GPU is tried
first: where TensorRT refuses, its own words stand in place of every part that needs an engine.
`--library` names libtaidpt_trt_plugin.so or libtaidpt.so with kernels for this GPU: the runtime's
CUDA calls are then tried without TensorRT. With TAIDPT_PLUGIN set, engines hold the plugin.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt

from benchmarks.banks import random_bank
from benchmarks.harness import (
    Left,
    NotRunError,
    Part,
    held,
    in_turns,
    main,
    quantiles,
    timed_ms,
    work_folder,
)
from benchmarks.tagger_overhead import make_bundle
from taidpt.export.engines.in_bundle import add_engine
from taidpt.export.precision.request import EngineOptions, EngineRequest
from taidpt.export.replace_head import replace_head
from taidpt.progress import SilentProgress
from taidpt.runtime import Bundle, ClassBank, Tagger

TOP_K = 20
COUNTS = (20, 80, 320, 1000, 5000, 8192)  # an engine takes 1 to 8,192 tags
SWAPPED = 1000
SWAP_TARGET_MS = 5.0
# The same engine on the same numbers: what a swap may change in a score.
SAME = 1e-5
# For which GPUs an engine may be built; "none" is every one that TensorRT-RTX supports.
TARGETS = ("none", "current", "sm_80", "sm_89", "sm_120")
QUIET = SilentProgress()


@dataclasses.dataclass(frozen=True)
class Subject:
    """The device under test and its precision."""

    device: str
    precision: str

    def bundle(self, kind: str) -> Path:
        """RN50's bundle: "constant", "input" (bank as input), "best" (only TOP_K scores out)."""
        path = work_folder() / f"{kind}.taidpt"
        if (path / "manifest.json").is_file():
            return path
        if kind == "constant":
            model = "toyworld" if self.device == "cpu" else "RN50-quickgelu"
            return Path(shutil.copytree(make_bundle(work_folder(), 80, model), path))
        top_k = TOP_K if kind == "best" else None
        return replace_head(self.bundle("constant"), path, "input", top_k, QUIET).path

    def engine(self, kind: str) -> tuple[Path, dict[str, Any]]:
        """A bundle for the device, and how its engine was built and verified."""
        if not self.device.startswith("tensorrt"):
            return self.bundle(kind), {}
        refused = work_folder() / "refused"
        if refused.is_file():
            raise NotRunError(f"{self.device} runs no engine on this GPU: {refused.read_text()}")
        path = work_folder() / f"{kind}-{self.precision}.taidpt"
        if not path.is_dir():
            shutil.copytree(self.bundle(kind), path)
        options = EngineOptions(self.precision, (1, 1, 8), 2 << 30, self.device)
        start = time.perf_counter()
        built = add_engine(path, EngineRequest(options, force=True), QUIET)
        report = json.loads(built.path.with_suffix(".parity.json").read_bytes())
        return path, {
            "graph_and_engine_s": round(time.perf_counter() - start, 2),
            "megabytes": round(built.path.stat().st_size / 1e6, 1),
            "verified": built.verified,
            "passed": report["passed"],
        }

    def load(self, kind: str) -> tuple[Tagger, dict[str, Any]]:
        """A tagger on the device, and how its engine was built."""
        path, facts = self.engine(kind)
        return Tagger.load(path, device=self.device), facts


def frames_of(bundle: Bundle, count: int) -> npt.NDArray[np.uint8]:
    """Random frames of the model's size, [count, H, W, 3]."""
    shape = (count, *bundle.manifest.input.frame_shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def differences(
    found: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, npt.NDArray[Any]]
) -> dict[str, float]:
    """The largest absolute difference of each output; NaN counts as infinite."""
    pairs = {name: (found[name].astype(np.float64), values) for name, values in expected.items()}
    return {
        name: float(np.nan_to_num(np.abs(left - right), nan=np.inf).max())
        for name, (left, right) in pairs.items()
    }


def target_runs(subject: Subject, target: str, left: Left) -> dict[str, Any]:
    """A small graph built for a target, loaded and run three times: which step TensorRT refuses."""
    if not subject.device.startswith("tensorrt"):
        raise NotRunError("not a TensorRT device")
    from taidpt.export.engines.builder import build_engine
    from taidpt.runtime.backends.cuda_driver import CudaDriver
    from taidpt.runtime.backends.engine_files import EngineFile
    from taidpt.runtime.backends.engine_runner import EngineRunner
    from taidpt.runtime.backends.tensorrt_library import import_tensorrt, load_engine
    from taidpt.runtime.storage.json_reader import JsonReader

    graph, weights = work_folder() / f"small-{target}.onnx", small_weights()
    save_product(graph, weights)
    named = None if target == "none" else target
    options = EngineOptions("fp32", (1, 1, 4), 1 << 28, subject.device, named)
    step, runner = "build", None
    try:
        built = build_engine(graph, options, graph.with_suffix(".log"))
        step = "deserialise"
        file = EngineFile("small", JsonReader(dict(built.key), "small"))
        engine = load_engine(import_tensorrt(subject.device), built.data, file)
        step, cuda = "run", CudaDriver()
    except Exception as error:
        refused = f"refused: {step}: {type(error).__name__}: {error}"[:1500]
        if step == "run":
            raise
        if target == "none":
            (work_folder() / "refused").write_text(refused)
        return {"refused": refused}
    try:
        runner = EngineRunner(engine, cuda, "frames", (len(weights),), {})
        part: Any = np.random.default_rng(1).standard_normal((4, len(weights)), np.float32)
        outputs = [runner.run(part)["scores"] for _ in ("first", "records a graph", "the graph")]
        worst = max(float(np.abs(scores - part @ weights).max()) for scores in outputs)
        failed = [] if worst < 0.1 else [f"wrong by {worst}"]
        return {"difference": worst, "uses_cuda_graphs": runner.uses_graphs, "failed": failed}
    finally:
        if runner is not None:
            runner.close()
        cuda.close()


def small_weights() -> npt.NDArray[Any]:
    """A random matrix, [64, 32] float32."""
    return np.random.default_rng(0).standard_normal((64, 32), np.float32)


def save_product(path: Path, weights: npt.NDArray[Any]) -> None:
    """Write a graph of one product with a matrix."""
    import onnx

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["frames", "W"], ["scores"])],
        "small",
        [helper.make_tensor_value_info("frames", kind, ["N", weights.shape[0]])],
        [helper.make_tensor_value_info("scores", kind, ["N", weights.shape[1]])],
        [onnx.numpy_helper.from_array(weights, "W")],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def runner_without_tensorrt(library: Path | None, left: Left) -> dict[str, Any]:
    """The runtime's CUDA calls with our operator in the engine's place, against float64.

    Copies, pinned memory, the recorded graph, swapped banks and frames that lie on the GPU; it says
    nothing about TensorRT.
    """
    if library is None:
        raise NotRunError("--library names no library")
    import torch

    from taidpt.kernels.local_similarity import naive
    from taidpt.runtime.backends.buffers import TensorSpec
    from taidpt.runtime.backends.cuda_driver import CudaDriver
    from taidpt.runtime.backends.engine_runner import EngineRunner
    from tests.kernels.native_interface import Arguments, declared

    temperature, current = 40.0, -2
    native = declared(ctypes.CDLL(str(library.resolve())))
    torch.zeros(1, device="cuda")
    if native.taidpt_prepare(current) != 0:
        raise RuntimeError(native.taidpt_last_error().decode())
    shapes: dict[str, tuple[int, ...]] = {}
    addresses: dict[str, int] = {}

    def execute(stream: int) -> bool:
        x, t, y = (addresses[name] for name in ("frames", "bank", "scores"))
        (batch, patches, dim), count = shapes["frames"], shapes["bank"][0]
        sizes = (batch, patches, count, dim, temperature, 0, current, stream)
        arguments = Arguments(x, t, None, None, y, *sizes)
        return int(native.taidpt_local_similarity(ctypes.byref(arguments))) == 0

    def tensors(given: Mapping[str, tuple[int, ...]], context: Any) -> tuple[TensorSpec, ...]:
        shapes.update(given)
        out = (given["frames"][0], given["bank"][0])
        inputs = (TensorSpec(name, shape, np.float32, True) for name, shape in given.items())
        return (*inputs, TensorSpec("scores", out, np.float32, False))

    context = SimpleNamespace(
        set_tensor_address=lambda name, address: addresses.update({name: address}) is None,
        execute_async_v3=execute,
    )
    engine: Any = SimpleNamespace(
        scratch_bytes=4096,
        logger=SimpleNamespace(last_error=""),
        new_context=lambda scratch: context,
        batches=lambda name: (1, 8),
        tensors=tensors,
    )
    generator = np.random.default_rng(0)
    frames: Any = generator.standard_normal((8, 49, 1024), np.float32)
    banks = []
    for count in (1000, 1000, 80):
        rows = generator.standard_normal((count, 1024), np.float32)
        banks.append({"bank": rows / np.linalg.norm(rows, axis=1, keepdims=True)})

    def error(outputs: Mapping[str, Any], patches: Any, bank: Mapping[str, Any]) -> float:
        wide = [torch.from_numpy(array).double() for array in (patches, bank["bank"])]
        expected = naive.local_similarity(wide[0], wide[1], temperature).numpy()
        return differences({"scores": outputs["scores"]}, {"scores": expected})["scores"]

    found: dict[str, float] = {}
    cuda = CudaDriver()
    try:
        runner = EngineRunner(engine, cuda, "frames", (49, 1024), banks[0])
        for index, name in enumerate(("first run", "run that records", "run of the graph")):
            part = frames[index : index + 4]
            found[name] = error(runner.run(part), part, banks[0])
        swaps = [timed_ms(partial(runner.put, bank)) for bank in banks[1::-1] * 5]
        runner.put(banks[1])
        found["after a swap"] = error(runner.run(frames[:4]), frames[:4], banks[1])
        on_gpu = torch.from_numpy(frames).cuda().mul_(-1.0)
        stream = torch.cuda.current_stream().cuda_stream
        outputs = runner.run_device(on_gpu.data_ptr(), 8, stream)
        found["frames on the GPU"] = error(outputs, -frames, banks[1])
        times = in_turns({f"batch {n}": partial(runner.run, frames[:n]) for n in (1, 8)}, 30)
        runner.close()
    finally:
        cuda.close()
    failed = [f"{name}: {value:.1e}" for name, value in found.items() if not value < 1e-4]
    return {"differences": found, "swap_ms": quantiles(swaps), "ms": times, "failed": failed}


def whole_bundle(subject: Subject, left: Left) -> dict[str, Any]:
    """Differences from the CPU at several batches, tags that differ, times, and loading again."""
    gpu, result = subject.load("constant")
    with gpu, Tagger.load(subject.bundle("constant"), device="cpu") as cpu:
        frames = frames_of(gpu.bundle, 11)
        result["device"] = str(gpu.device)
        result["first_frames_ms"] = [timed_ms(lambda: gpu.tag(frames[0])) for _ in range(5)]
        # 11 goes in two parts: an engine takes 8 at most
        result["difference_by_batch"] = {
            str(n): differences(gpu.backend.run(frames[:n]), cpu.backend.run(frames[:n]))
            for n in (1, 3, 8, 11)
        }
        found, expected = (tagger.tag_batch(frames).scores for tagger in (gpu, cpu))
        # random weights spread scores little: at the median about half of the tags are on
        on, worst = float(np.median(expected)), float(np.abs(found - expected).max())
        flipped = (found > on) != (expected > on)
        result["spread_of_scores"] = float(expected.std())
        result["decided_otherwise"] = int(flipped.sum())
        wrong = int((flipped & (np.abs(expected - on) > worst)).sum())
        result["failed"] = [f"{wrong} tags flip away from the threshold"] if wrong else []
        large = np.resize(frames[0], (1080, 1920, 3))
        sides: dict[str, Callable[[], Any]] = {
            "backend, batch 1": lambda: gpu.backend.run(frames[:1]),
            "backend, batch 8": lambda: gpu.backend.run(frames[:8]),
            "tagger, batch 1": lambda: gpu.tag(frames[0]).tags,
            "tagger, 1080p": lambda: gpu.tag(large).tags,
        }
        result["ms"] = in_turns(sides, 20)
        result["ms"] |= in_turns({"CPU, batch 1": lambda: cpu.tag(frames[0]).tags}, 5)
        if "cpu" not in str(gpu.device):
            import torch

            on_gpu: Any = torch.from_numpy(frames[:3]).cuda()
            outputs = gpu.tag_batch(frames[:3]).outputs
            result["frames_on_the_gpu"] = differences(gpu.tag_batch(on_gpu).outputs, outputs)
    return result


def other_bank(bank: ClassBank) -> ClassBank:
    """The same rows in reverse order, under other names."""
    return dataclasses.replace(
        bank,
        names=tuple(f"other {index}" for index in range(len(bank.names))),
        global_embeddings=bank.global_embeddings[::-1].copy(),
        local_embeddings=bank.local_embeddings[::-1].copy(),
    )


def banks_by_size(subject: Subject, left: Left) -> dict[str, Any]:
    """Bank as input: differences from the CPU, swaps and first frames, by number of tags.

    Beside all scores, only the best TOP_K: whether the same tags come out, and what each takes.
    """
    gpu, result = subject.load("input")
    few, built = subject.load("best")
    result |= {"best": built, "by_tags": {}}
    with gpu, few, Tagger.load(subject.bundle("input"), device="cpu") as cpu:
        frames = frames_of(gpu.bundle, 4)
        for count in COUNTS:
            bank = random_bank(gpu, count)
            for tagger in (cpu, few):
                tagger.use_bank(bank)
            entry: dict[str, Any] = {"use_bank_ms": timed_ms(partial(gpu.use_bank, bank))}
            entry["first_frames_ms"] = [timed_ms(lambda: gpu.tag(frames[0])) for _ in range(5)]
            outputs = [tagger.tag_batch(frames).outputs for tagger in (gpu, cpu)]
            entry["difference"] = differences(*outputs)
            best = [[tag.name for tag in t.tag(frames[0]).top(TOP_K)] for t in (gpu, few)]
            entry["same_best"] = best[0] == best[1]
            sides = {"all": lambda: gpu.tag(frames[0]), "best": lambda: few.tag(frames[0])}
            result["by_tags"][str(count)] = entry | {"ms": in_turns(sides, 10)}
    return result


def swaps(subject: Subject, left: Left) -> dict[str, Any]:
    """A bank of 1,000 tags swapped: to the same size, from a file, to another size."""
    gpu, result = subject.load("input")
    with gpu:
        frame = frames_of(gpu.bundle, 1)[0]
        one = random_bank(gpu, SWAPPED)
        other, smaller = other_bank(one), random_bank(gpu, SWAPPED // 2)
        path = work_folder() / "site.bank"
        other.save(path)
        for bank in (one, other):
            gpu.use_bank(bank)
            gpu.tag(frame)
        result["ms"] = {}
        pairs: dict[str, tuple[ClassBank | Path, ...]] = {
            "same size": (one, other), "from a file": (path,), "another size": (one, smaller),
        }  # fmt: skip
        for name, given in pairs.items():
            steps: dict[str, list[float]] = {"use_bank": [], "first frame": [], "later frame": []}
            for index in range(10):
                calls = (
                    partial(gpu.use_bank, given[index % len(given)]),
                    *[lambda: gpu.tag(frame)] * 2,
                )
                for times, call in zip(steps.values(), calls, strict=True):
                    times.append(timed_ms(call))
            result["ms"][name] = {step: quantiles(times) for step, times in steps.items()}
        gpu.use_bank(other)
        after = gpu.tag(frame).scores
    with Tagger.load(subject.engine("input")[0], device=subject.device) as fresh:
        fresh.use_bank(other)
        difference = float(np.abs(fresh.tag(frame).scores - after).max())
    result["difference_from_a_fresh_tagger"] = difference
    result["failed"] = [f"scores after a swap differ by {difference}"] * (difference > SAME)
    middle = {name: steps["use_bank"]["p50"] for name, steps in result["ms"].items()}
    names = ("same size", "from a file")
    result["targets"] = held(middle, *((name, "<=", SWAP_TARGET_MS) for name in names))
    return result


def swaps_from_a_thread(subject: Subject, left: Left) -> dict[str, Any]:
    """A thread that swaps all the time: each frame's scores are of the bank that it names."""
    gpu, result = subject.load("input")
    with gpu:
        frame = frames_of(gpu.bundle, 1)[0]
        one = random_bank(gpu, SWAPPED)
        banks = (one, other_bank(one), random_bank(gpu, SWAPPED // 2))
        expected = {}
        for bank in banks:
            gpu.use_bank(bank)
            expected[bank.names] = [gpu.tag(frame).scores for _ in range(3)][-1]
        stop, frames, mixed = threading.Event(), 0, 0

        def swap() -> None:
            for index in range(1_000_000):
                if stop.wait(0.002):
                    return
                gpu.use_bank(banks[index % len(banks)])

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            deadline = time.monotonic() + 2.0
            while time.monotonic() < deadline:
                tagged = gpu.tag(frame)
                near = expected[tagged.vocabulary.names]
                mixed += not np.allclose(tagged.scores, near, atol=SAME, rtol=0)
                frames += 1
        finally:
            stop.set()
            thread.join()
    failed = [f"{mixed} of {frames} frames have scores of another bank"] if mixed else []
    return {**result, "frames": frames, "failed": failed}


def parts(options: argparse.Namespace) -> Iterator[Part]:
    """Whether an engine runs at all, then what needs one."""
    subject = Subject(options.device, options.precision)
    for target in TARGETS if options.device == "tensorrt-rtx" else TARGETS[:1]:
        yield Part(f"engine for target {target}", partial(target_runs, subject, target), needs_s=3)
    yield Part("CUDA calls without TensorRT", partial(runner_without_tensorrt, options.library))
    yield Part("whole bundle", partial(whole_bundle, subject))
    yield Part("banks by size", partial(banks_by_size, subject))
    yield Part("swaps of a bank", partial(swaps, subject))
    yield Part("swaps from another thread", partial(swaps_from_a_thread, subject))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this program alone."""
    devices = ("tensorrt-rtx", "tensorrt", "cuda", "cpu")
    parser.add_argument("--device", choices=devices, default="cpu", help="[default: cpu]")
    parser.add_argument("--precision", default="fp16", help="of an engine [default: fp16]")
    parser.add_argument("--library", type=Path, help="libtaidpt.so or libtaidpt_trt_plugin.so")


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__ or "", "rtx", lambda o: list(parts(o)), add_options))
