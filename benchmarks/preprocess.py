"""Preprocessing of a 1080p (and 720p) frame to the uint8 crop, on one core, against Pillow.

    python benchmarks/preprocess.py [--photos FOLDER] [--json FILE]

All ways run in turn on the same frames in one process; times are medians of CPU time, differences
are on the normalised tensor against open_clip's transform (one grey level is 0.015). Without
--photos the frames are generated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from taidpt.runtime.bundle.manifest import InputSpec
from taidpt.runtime.bundle.view import plan_crop
from taidpt.runtime.preprocess.preprocessor import Preprocessor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SIZE = 224
ROUNDS = 15
Way = Callable[[np.ndarray], np.ndarray]


def pillow_whole(frame: np.ndarray) -> np.ndarray:
    """What torchvision does: resize the whole frame, then crop."""
    plan = plan_crop(frame.shape[:2], (SIZE, SIZE))
    size = plan.resized_width, plan.resized_height
    image = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)[plan.top : plan.top + SIZE, plan.left : plan.left + SIZE]


def pillow_box(frame: np.ndarray) -> np.ndarray:
    """Pillow on the crop's box alone."""
    box = plan_crop(frame.shape[:2], (SIZE, SIZE)).box(frame.shape[:2], (SIZE, SIZE))
    image = Image.fromarray(frame).resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image)


def generated(height: int, width: int, seed: int) -> np.ndarray:
    """A frame with detail at every scale, as photographs have."""
    generator = np.random.default_rng(seed)
    frame = np.full((height, width, 3), 127.5)
    for cells in (2, 5, 12, 40, 120, 400):
        grid = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        frame += (np.asarray(layer) - 127.5) / cells**0.5
    return np.clip(frame, 0, 255).astype(np.uint8)


def frames_of(folder: Path | None, height: int, width: int) -> list[np.ndarray]:
    if folder is None:
        return [generated(height, width, seed) for seed in range(4)]
    paths = sorted(folder.glob("*.jpg"))[:12]
    size = width, height
    return [np.array(Image.open(path).convert("RGB").resize(size)) for path in paths]


def measure(ways: dict[str, Way], frames: list[np.ndarray]) -> list[dict[str, object]]:
    """Times and differences of each way, the ways taking turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for frame in frames:
            for name, way in ways.items():
                begun = time.thread_time()
                way(frame)
                times[name].append((time.thread_time() - begun) * 1e3)
    return [
        {"way": name, "ms": statistics.median(times[name]), **difference(way, frames)}
        for name, way in ways.items()
    ]


def difference(way: Way, frames: list[np.ndarray]) -> dict[str, float]:
    apart = [np.abs(way(frame).astype(float) - pillow_whole(frame)) / 255 / STD for frame in frames]
    return {
        "largest": float(max(part.max() for part in apart)),
        "p99.9": float(np.quantile(np.concatenate([part.ravel() for part in apart]), 0.999)),
    }


def on_one_core() -> None:
    """Begin again with one BLAS thread; the number is read when NumPy is loaded."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
        os.execv(sys.executable, [sys.executable, *sys.argv])


def main() -> None:
    on_one_core()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    spec = InputSpec(SIZE, SIZE, MEAN, STD)
    ways: dict[str, Way] = {
        "Pillow, whole frame": pillow_whole,
        "Pillow, box": pillow_box,
        "ours, exact": Preprocessor(spec),
        "ours, fast": Preprocessor(spec, "fast"),
    }
    rows = []
    for height, width in ((1080, 1920), (720, 1280)):
        found = measure(ways, frames_of(arguments.photos, height, width))
        base = found[0]["ms"]
        print(f"{width} x {height} to {SIZE} x {SIZE}, one core, {ROUNDS} rounds")
        for row in found:
            ratio = float(base) / float(row["ms"])  # type: ignore[arg-type]
            print(
                f"  {row['way']:<20} {row['ms']:6.2f} ms  {ratio:4.1f}x  largest "
                f"{row['largest']:.3f}  99.9 % {row['p99.9']:.3f}"
            )
            rows.append({"height": height, "width": width, **row})
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
