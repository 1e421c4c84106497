"""What the tagger costs over the bare encoder: RN50, random weights, ONNX Runtime on the CPU.

    python benchmarks/tagger_overhead.py [--threads 2] [--classes 80] [--repeats 30] [--json FILE]

One side is `Tagger` on uint8 frames that have the model's size already: both heads, the merged
score, thresholds and result objects. The other is `session.run` of the same graph cut at its unit
global and patch features. They take turns in one process on the same threads; medians are
compared. The rows for 720p and 1080p frames, which the tagger also resizes, stand beside them.
Target: at most 1.05 times at batch 1 and 8.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from taidpt.bench.cut_encoder import cut_encoder
from taidpt.clip.model import load_clip
from taidpt.export.exporter import ExportOptions, write_bundle
from taidpt.progress import SilentProgress
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime import Tagger
from taidpt.texts.tags import Tag

TARGET = 1.05
WARM_UP = 3
SIZES = {"720p": (720, 1280), "1080p": (1080, 1920)}


def make_bundle(folder: Path, classes: int, model: str = "RN50-quickgelu") -> Path:
    """A bundle of a model with random prompts; its weights are random, the toy world's its own."""
    clip = load_clip(model, "embedded" if model == "toyworld" else "random")
    width = clip.model.token_embedding.weight.shape[1]
    generator = torch.Generator().manual_seed(0)
    contexts = {
        head: torch.randn(16, width, generator=generator) * 0.02 for head in ("global", "local")
    }
    tags = tuple(Tag(f"thing {index}") for index in range(classes))
    prompts = TunedPrompts(contexts, tags, (), clip.identity())
    options, out = ExportOptions(), folder / f"{model}.taidpt"
    return write_bundle(prompts, clip, out, options, SilentProgress()).path


def cut_session(bundle: Path, threads: int) -> onnxruntime.InferenceSession:
    """The bundle's graph up to its two features."""
    cut = bundle.with_name("encoder.onnx")
    cut_encoder(bundle / "model.onnx", "frames", cut)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(cut, options, providers=["CPUExecutionProvider"])


def alternate(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Run the sides in turn; seconds of each run after the warm-up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(WARM_UP + repeats):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if index >= WARM_UP:
                times[name].append(time.perf_counter() - start)
    return times


def measure(tagger: Tagger, session: onnxruntime.InferenceSession, repeats: int) -> dict[str, Any]:
    """Every row: milliseconds p20, p50, p80 of both sides and their ratio."""
    generator = np.random.default_rng(0)
    spec = tagger.bundle.manifest.input
    rows = {}
    for batch in (1, 8):
        shape = (batch, spec.height, spec.width, 3)
        frames = generator.integers(0, 256, shape, dtype=np.uint8)
        sides: dict[str, Callable[[], Any]] = {
            "tagger": lambda frames=frames: [r.tags for r in tagger.tag_batch(frames)],
            "graph": lambda frames=frames: session.run(None, {"frames": frames}),
        }
        if batch == 1:
            for name, (height, width) in SIZES.items():
                large = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
                sides[f"tagger, {name}"] = lambda large=large: tagger.tag(large).tags
        rows.update(summarise(alternate(sides, repeats), batch))
    return rows


def summarise(times: dict[str, list[float]], batch: int) -> dict[str, Any]:
    base = statistics.median(times["graph"])
    rows = {}
    for name, seconds in times.items():
        ordered = sorted(seconds)
        p20, p80 = (ordered[int(len(ordered) * share)] for share in (0.2, 0.8))
        median = statistics.median(seconds)
        rows[f"batch {batch}, {name}"] = {
            "p20_ms": p20 * 1e3,
            "p50_ms": median * 1e3,
            "p80_ms": p80 * 1e3,
            "ratio": median / base,
            "n": len(seconds),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # One thread: two sessions' idle threads spin, and on few cores each would slow the other.
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder), options.classes)
        session = cut_session(bundle, options.threads)
        with Tagger.load(bundle, device="cpu", threads=options.threads) as tagger:
            rows = measure(tagger, session, options.repeats)
    print(f"RN50, random weights, {options.classes} tags, {options.threads} threads, ", end="")
    print(f"onnxruntime {onnxruntime.__version__}, {platform.machine()}")
    print(f"{'':24}{'p20 ms':>9}{'p50 ms':>9}{'p80 ms':>9}{'of graph':>10}")
    for name, row in rows.items():
        figures = "".join(f"{row[key]:9.1f}" for key in ("p20_ms", "p50_ms", "p80_ms"))
        print(f"{name:24}{figures}{row['ratio']:9.3f}x")
    worst = max(rows[f"batch {batch}, tagger"]["ratio"] for batch in (1, 8))
    print(f"target: at most {TARGET} at batch 1 and 8; {'met' if worst <= TARGET else 'MISSED'}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
