"""Preprocessing of a 1080p (and 720p) frame to the uint8 crop, on one core, against Pillow.

    python benchmarks/preprocess.py [--photos FOLDER] [--json FILE]

All ways run in turn on the same frames in one process; times are medians of CPU time, differences
are on the normalised tensor against open_clip's transform (one grey level is 0.015). Then the same
from a decoder's picture (YUV 4:2:0), conversion to RGB included; differences there are from the
exact way, where 1 is white. Without --photos the frames are generated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from taidpt.runtime.bundle.manifest import InputSpec
from taidpt.runtime.bundle.view import plan_crop
from taidpt.runtime.preprocess.decoder_resize import DecoderResize
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from taidpt.runtime.sources.frame_converter import FrameConverter

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SIZE = 224
ROUNDS = 15
Way = Callable[[np.ndarray], np.ndarray]
PictureWay = Callable[[av.VideoFrame], np.ndarray]


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


def measure(ways: Mapping[str, Callable[[Any], object]], frames: Sequence[Any]) -> dict[str, float]:
    """Median milliseconds of each way, the ways taking turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for frame in frames:
            for name, way in ways.items():
                begun = time.thread_time()
                way(frame)
                times[name].append((time.thread_time() - begun) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def difference(way: Way, frames: list[np.ndarray]) -> dict[str, float]:
    """From Pillow, on the normalised tensor."""
    return far([np.abs(way(one).astype(float) - pillow_whole(one)) / 255 / STD for one in frames])


def far(apart: list[np.ndarray]) -> dict[str, float]:
    """The largest of differences, and the one that 99.9 % do not exceed."""
    return {
        "largest": float(max(part.max() for part in apart)),
        "p99.9": float(np.quantile(np.concatenate([part.ravel() for part in apart]), 0.999)),
    }


class Stream:
    """What a converter asks of a video stream: its pixels are square."""

    sample_aspect_ratio = 1


def picture_ways(spec: InputSpec) -> dict[str, PictureWay]:
    """A decoder's picture to the crop."""
    whole, scaling = FrameConverter(Stream()), FrameConverter(Stream(), scaler=DecoderResize(spec))
    resizers = {name: Preprocessor(spec, name) for name in ("exact", "fast")}
    return {
        "RGB, then exact": lambda picture: resizers["exact"](whole(picture)[0]),
        "RGB, then fast": lambda picture: resizers["fast"](whole(picture)[0]),
        "decoder": lambda picture: scaling(picture)[0],
    }


def picture_rows(spec: InputSpec, frames: list[np.ndarray]) -> list[dict[str, object]]:
    """Times and differences of each way from decoded pictures."""
    rgb = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
    pictures = [frame.reformat(format="yuv420p") for frame in rgb]
    ways = picture_ways(spec)
    exact = [ways["RGB, then exact"](picture).astype(float) for picture in pictures]
    rows: list[dict[str, object]] = []
    for name, ms in measure(ways, pictures).items():
        found = map(ways[name], pictures)
        apart = [np.abs(one - other) / 255 for one, other in zip(found, exact, strict=True)]
        rows.append({"way": name, "ms": ms, **far(apart)})
    return rows


def show(title: str, rows: list[dict[str, object]]) -> None:
    """Print the rows, with how many times as fast as the first each is."""
    print(title)
    base = float(rows[0]["ms"])  # type: ignore[arg-type]
    for row in rows:
        ratio = base / float(row["ms"])  # type: ignore[arg-type]
        print(
            f"  {row['way']:<20} {row['ms']:6.2f} ms  {ratio:4.1f}x  largest "
            f"{row['largest']:.3f}  99.9 % {row['p99.9']:.3f}"
        )


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
        frames = frames_of(arguments.photos, height, width)
        times = measure(ways, frames)
        arrays = [
            {"way": name, "ms": times[name], **difference(ways[name], frames)} for name in ways
        ]
        show(f"{width} x {height} to {SIZE} x {SIZE}, one core, {ROUNDS} rounds", arrays)
        pictures = picture_rows(spec, frames)
        show("  from a decoder's picture", pictures)
        rows += [{"height": height, "width": width, **row} for row in (*arrays, *pictures)]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
