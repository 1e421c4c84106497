"""A whole stream against its slowest stage: decoding and inference alone, and together.

    python benchmarks/pipeline.py BUNDLE [--video FILE] [--repeats 5] [--json FILE]

Each stage is limited to one thread, alone and together, so it needs two free cores: with fewer the
stages share what there is. The ways take turns; rates are medians. Target: the whole stream at
0.9 times the slower of decoding and inference, or more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from taidpt.runtime import Tagger, open_source
from taidpt.runtime.stream import StreamSettings

TARGET = 0.9
FRAMES = 150


def make_video(path: Path) -> Path:
    """720p of moving noise and gradients, H.264."""
    generator = np.random.default_rng(0)
    grid = generator.integers(0, 256, (45, 80, 3), dtype=np.uint8)
    picture = np.kron(grid, np.ones((16, 16, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 720, 1280, "yuv420p"
        stream.options = {"preset": "veryfast"}
        for index in range(FRAMES):
            moved = np.ascontiguousarray(np.roll(picture, 4 * index, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())
    return path


def rate(work: Callable[[], int]) -> float:
    begun = time.perf_counter()
    return work() / (time.perf_counter() - begun)


def main() -> None:
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = arguments.video or make_video(Path(folder) / "moving.mp4")
        found = measure(arguments.bundle, video, arguments.repeats)
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    for name, value in medians.items():
        print(f"{name:<28}{value:9.1f} frames a second")
    slower = min(medians["decode"], medians["inference"])
    print(f"whole / slower stage: {medians['whole stream'] / slower:.2f} (target {TARGET})")
    print(f"whole / one after another: {medians['whole stream'] / medians['no overlap']:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(medians, indent=1))


def measure(bundle: Path, video: Path, repeats: int) -> dict[str, list[float]]:
    """Frames a second of each way, the ways taking turns."""
    with Tagger.load(bundle, device="cpu", threads=1) as tagger:
        spec = tagger.bundle.manifest.input
        frame = np.random.default_rng(0).integers(
            0, 256, (1, spec.height, spec.width, 3), dtype=np.uint8
        )

        def infer() -> int:
            for _ in range(FRAMES):
                tagger.backend.run(frame)
            return FRAMES

        def decode() -> int:
            return sum(1 for _ in open_video(video))

        def stream(overlap: bool) -> int:
            settings = StreamSettings(overlap=overlap)
            with tagger.stream(open_video(video), settings) as running:
                return sum(1 for _ in running)

        ways: dict[str, Callable[[], int]] = {
            "decode": decode,
            "inference": infer,
            "no overlap": lambda: stream(overlap=False),
            "whole stream": lambda: stream(overlap=True),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                found[name].append(rate(way))
        return found


def open_video(path: Path):  # type: ignore[no-untyped-def]  # a VideoSource with one thread
    source = open_source(path)
    source._stream.thread_type = "NONE"
    return source


if __name__ == "__main__":
    main()
