"""A whole stream against its slowest stage: decoding and inference alone, and together.

    python benchmarks/pipeline.py [BUNDLE ...] [--resize decoder] [--repeats 7] [--json FILE]

Without a bundle it makes two: RN50 with random weights, whose inference is much slower than
decoding, and the toy world's small model, which leaves least to hide the other stages behind.

Each stage is limited to one thread, alone and together, so it needs two free cores: the first line
says how much faster two busy threads were than one in this very run, 2.0 on a machine with nothing
else to do. The ways take turns and each round gives one ratio; the medians are printed with the
20th and 80th percentile. Targets: the whole stream at 0.9 times the slower of decoding and
inference, or more; batches of four, and two sources at once, no slower than frames of one source.

Beside the rates stands the CPU time a frame, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from taidpt.runtime import MergedSource, Source, SourceOptions, Tagger, open_source
from taidpt.runtime.preprocess import RESIZES
from taidpt.runtime.stream.stream import StreamSettings

TARGET = 0.9
FRAMES = 300
LEAST_S = 1.0
WHOLE = "whole stream"
BATCH, SOURCES = 4, 2
Ways = dict[str, Callable[[], int]]


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
    """Frames a second of a way, and so of threads' rounds."""
    begun = time.perf_counter()
    return work() / (time.perf_counter() - begun)


def two_cores() -> float:
    """How much faster two threads hash than one: what this machine had to give just now."""
    data = bytes(1 << 20)

    def hash_some() -> None:
        for _ in range(200):
            hashlib.sha256(data).digest()

    def hash_in(count: int) -> int:
        threads = [threading.Thread(target=hash_some) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return count

    alone = rate(lambda: hash_in(1))
    return rate(lambda: hash_in(2)) / alone


def ways_of(tagger: Tagger, video: Path) -> Ways:
    """What is measured; each returns how many frames it took."""
    spec = tagger.bundle.manifest.input
    frame = np.random.default_rng(0).integers(0, 256, (1, *spec.frame_shape), dtype=np.uint8)
    options = tagger.preprocess.source_options(SourceOptions())

    def opened() -> Source:
        return open_video(video, options)

    def infer() -> int:
        count, end = 0, time.perf_counter() + LEAST_S
        while time.perf_counter() < end:
            tagger.backend.run(frame)
            count += 1
        return count

    def stream(source: Source, **settings: Any) -> int:
        end = time.perf_counter() + 3 * LEAST_S
        with tagger.stream(source, StreamSettings(**settings)) as running:
            for count, _ in enumerate(running, start=1):
                if time.perf_counter() > end:
                    return count
        return count

    return {
        "decode": lambda: sum(1 for _ in opened()),
        "inference": infer,
        "no overlap": lambda: stream(opened(), overlap=False),
        WHOLE: lambda: stream(opened()),
        f"batches of {BATCH}": lambda: stream(opened(), batch=BATCH),
        f"{SOURCES} sources": lambda: stream(MergedSource([opened() for _ in range(SOURCES)])),
    }


def measure(bundle: Path, video: Path, resize: str, repeats: int) -> dict[str, Any]:
    """Rates and CPU time of each way by round, and each round's ratios."""
    with Tagger.load(bundle, device="cpu", threads=1, resize=resize) as tagger:
        ways = ways_of(tagger, video)
        found: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        cores = []
        for _ in range(repeats):
            cores.append(two_cores())
            for name, way in ways.items():
                begun, used = time.perf_counter(), time.process_time()
                count = way()
                found[name].append(count / (time.perf_counter() - begun))
                cpu[name].append((time.process_time() - used) / count * 1e3)
    rates = {name: np.array(values) for name, values in found.items()}
    slower = np.minimum(rates["decode"], rates["inference"])
    others = {
        f"{name} / {WHOLE}": (rates[name] / rates[WHOLE]).tolist() for name in list(ways)[-2:]
    }
    return {
        "two threads / one": cores,
        "frames a second": found,
        "CPU ms a frame": cpu,
        "ratios": {
            "whole / slower stage": (rates[WHOLE] / slower).tolist(),
            "whole / one after another": (rates[WHOLE] / rates["no overlap"]).tolist(),
            **others,
        },
    }


def report(name: str, found: dict[str, Any]) -> None:
    """Print medians, and of the ratios their spread."""
    print(f"{name}, two threads / one: {np.median(found['two threads / one']):.2f}")
    for way, values in found["frames a second"].items():
        cpu = np.median(found["CPU ms a frame"][way])
        print(f"  {way:<26}{np.median(values):9.1f} frames a second {cpu:8.2f} ms of CPU a frame")
    for ratio, values in found["ratios"].items():
        low, middle, high = np.percentile(values, (20, 50, 80))
        print(f"  {ratio:<26}{middle:9.2f} ({low:.2f} to {high:.2f})")
    print(f"  target: whole / slower stage at least {TARGET}")


def open_video(path: Path, options: SourceOptions) -> Source:
    """A video whose decoder has one thread."""
    source: Any = open_source(path, options)
    source._decoder.stream.thread_type = "NONE"
    return source


def bundles(named: list[Path], folder: Path) -> list[Path]:
    """Those named, or two that are made here."""
    if named:
        return named
    from tagger_overhead import make_bundle

    return [make_bundle(folder, 80, model) for model in ("RN50-quickgelu", "toyworld")]


def main() -> None:
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="*")
    parser.add_argument("--video", type=Path)
    parser.add_argument("--resize", choices=RESIZES, default="exact")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = arguments.video or make_video(folder / "moving.mp4")
        for bundle in bundles(arguments.bundle, folder):
            found[bundle.stem] = measure(bundle, video, arguments.resize, arguments.repeats)
            report(bundle.stem, found[bundle.stem])
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
