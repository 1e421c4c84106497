"""int8 against fp32 on the CPU: RN50's encoder, random weights, ONNX Runtime, one run for both.

    python benchmarks/int8_speed.py [--model RN50-quickgelu] [--threads 1] [--repeats 20]

The int8 graph is made as by `taidpt-export BUNDLE --engine int8 --flavour cpu`, with no layer put
back. Both sessions take turns in one process; medians are compared. Target: at least 2.8 times as
fast where the CPU has AVX-512 VNNI.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from precisions import random_bundle

from taidpt.export.graph.from_bundle import encoder_of
from taidpt.export.graph.onnx_files import open_session
from taidpt.export.parity.reference_pictures import frame_maker
from taidpt.export.precision.activation_ranges import calibration_frames
from taidpt.export.precision.quantise import Quantiser, scheme_for
from taidpt.runtime import Bundle
from taidpt.toyworld import assets

TARGET = 2.8
WARM_UP = 3


def sessions(model: str, threads: int) -> tuple[dict[str, onnxruntime.InferenceSession], int]:
    """The encoder at fp32 and at int8, and its side in pixels."""
    with tempfile.TemporaryDirectory() as name:
        bundle = Bundle.load(random_bundle(Path(name), model))
        encoder, spec = encoder_of(bundle), bundle.manifest.input
    frames = calibration_frames(assets.path("demo.mp4"), frame_maker(spec))[:16]
    low = Quantiser(encoder, frames, scheme_for("int8", for_cpu=True), "MinMax").quantise()
    graphs = {"fp32": encoder, "int8": low}
    return {name: open_session(graph, threads) for name, graph in graphs.items()}, spec.height


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="RN50-quickgelu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    sides, size = sessions(options.model, options.threads)
    vnni = "avx512_vnni" in Path("/proc/cpuinfo").read_text("ascii")
    print(f"{options.model}, random weights, {options.threads} threads, ", end="")
    print(f"onnxruntime {onnxruntime.__version__}, AVX-512 VNNI: {'yes' if vnni else 'no'}")
    generator = np.random.default_rng(0)
    ratios = []
    for batch in (1, 8):
        frames = generator.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        times: dict[str, list[float]] = {name: [] for name in sides}
        for index in range(WARM_UP + options.repeats):
            for name, session in sides.items():
                start = time.perf_counter()
                session.run(None, {"frames": frames})
                if index >= WARM_UP:
                    times[name].append((time.perf_counter() - start) * 1e3)
        middle = {name: statistics.median(values) for name, values in times.items()}
        ratios.append(middle["fp32"] / middle["int8"])
        print(
            f"batch {batch}: fp32 {middle['fp32']:.1f} ms, int8 {middle['int8']:.1f} ms, "
            f"{ratios[-1]:.2f} times as fast"
        )
    print(f"target: at least {TARGET}; {'met' if min(ratios) >= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
