"""int8 against fp32 on the CPU: whole graphs, ONNX Runtime, one run for both.

    python benchmarks/int8_speed.py [--model RN50-quickgelu] [--threads 1] [--repeats 20] [--gate]

Weights are random, those of `toyworld` its own. The int8 graph is made as by `taidpt-export BUNDLE
--engine int8 --flavour cpu`: with `--gate` as many layers go back to fp32 as its gate needs, which
measures each layer and takes minutes; without, none. Both sessions take turns in one process;
medians are compared, and CPU seconds beside them, which other work on the machine changes less.
Target: at least 3 times as fast where the CPU has AVX-512 VNNI. `--profile` prints the operators of
both, by their share of the time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from precisions import random_bundle, toyworld_bundle

from taidpt.export.graph.onnx_files import open_session
from taidpt.export.parity.reference_pictures import frame_maker
from taidpt.export.precision.activation_ranges import calibration_frames
from taidpt.export.precision.conversion import convert
from taidpt.export.precision.gate import PrecisionGate
from taidpt.progress import SilentProgress
from taidpt.runtime import Bundle
from taidpt.runtime.bundle.bundle import MODEL_FILE
from taidpt.toyworld import assets

TARGET = 3.0
WARM_UP = 3
FRAMES = 16  # for calibration: speed does not depend on ranges


class NoGate(PrecisionGate):
    """Takes every graph."""

    def holds(self, graph: object) -> bool:
        return True


def make_graphs(model: str, gated: bool, folder: Path) -> tuple[Path, Path, int]:
    """Files of the fp32 and the int8 graph, and the side of their frames in pixels."""
    trained = model == "toyworld"
    bundle = Bundle.load(toyworld_bundle(folder) if trained else random_bundle(folder, model))
    spec = bundle.manifest.input
    frames = calibration_frames(assets.path("demo.mp4"), frame_maker(spec))
    gate = (PrecisionGate if gated else NoGate)(bundle, "int8", for_cpu=True)
    used = frames if gated else frames[:FRAMES]
    graph, notes = convert(bundle, used, gate, SilentProgress(), for_cpu=True)
    kept = notes["layers_in_fp32"]
    print(f"{len(kept)} of {notes['layers']} layers in fp32", end="")
    print(": " + ", ".join(layer["name"] for layer in kept) if kept else "")
    low = folder / "int8.onnx"
    onnx.save(graph, low)
    return bundle.file(MODEL_FILE), low, spec.height


def race(sides: dict[str, Any], frames: Any, repeats: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds of the clock and of the CPU, by side."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for index in range(WARM_UP + repeats):
        for name, session in sides.items():
            start, cpu = time.perf_counter(), time.process_time()
            session.run(None, {"frames": frames})
            found = time.perf_counter() - start, time.process_time() - cpu
            if index >= WARM_UP:
                times[name].append((found[0] * 1e3, found[1] * 1e3))
    return {
        name: (statistics.median(t for t, _ in runs), statistics.median(t for _, t in runs))
        for name, runs in times.items()
    }


def print_profile(graph: Path, threads: int, frames: Any, folder: Path) -> None:
    """The operators of a graph by their share of the time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    for _ in range(2 * WARM_UP):
        session.run(None, {"frames": frames})
    spent: Counter[str] = Counter()
    number: Counter[str] = Counter()
    events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    for event in events:
        if event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
            number[event["args"]["op_name"]] += 1
    for op, duration in spent.most_common(8):
        share = 100 * duration / spent.total()
        print(f"    {op:22}{number[op] // (2 * WARM_UP):5}{share:8.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="RN50-quickgelu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    vnni = "avx512_vnni" in Path("/proc/cpuinfo").read_text("ascii")
    print(f"{options.model}, {options.threads} threads, ", end="")
    print(f"onnxruntime {onnxruntime.__version__}, AVX-512 VNNI: {'yes' if vnni else 'no'}")
    generator = np.random.default_rng(0)
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fp32, int8, size = make_graphs(options.model, options.gate, folder)
        graphs = {"fp32": fp32, "int8": int8}
        sides = {side: open_session(graph, options.threads) for side, graph in graphs.items()}
        for batch in (1, 8):
            frames = generator.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
            found = race(sides, frames, options.repeats)
            (wall, cpu), (low_wall, low_cpu) = found["fp32"], found["int8"]
            ratios.append(wall / low_wall)
            print(
                f"batch {batch}: fp32 {wall:.1f} ms, int8 {low_wall:.1f} ms, {ratios[-1]:.2f} "
                f"times as fast; of the CPU {cpu / low_cpu:.2f}"
            )
            for side, graph in graphs.items() if options.profile else ():
                print(f"  {side}, batch {batch}")
                print_profile(graph, options.threads, frames, folder)
    print(f"target: at least {TARGET}; {'met' if min(ratios) >= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
