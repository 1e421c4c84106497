"""Swapping a bank, and latency against the number of tags: RN50, random weights, on the CPU.

    python benchmarks/banks.py [--threads 1] [--repeats 15] [--top-k 20] [--json FILE]

Swap: a bank of 1,000 tags is put into a running tagger, in memory and from a file that is read and
checked first: with thresholds alone, as `taidpt bank make` does, and with probability maps of 33
points a tag, as calibration leaves it; then with 20,000 tags. Target at 1,000 tags: under 5 ms.
None of that holds up a frame, so the first frame after a swap stands beside an ordinary one.

Latency: one graph whose bank is an input scores a frame with 20 to 20,000 tags, once with all
scores coming out and once with the best K; the two take turns. On a CPU nothing leaves a device,
so the bytes that would are given beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from tagger_overhead import alternate, make_bundle

from taidpt.export.replace_head import replace_head
from taidpt.progress import SilentProgress
from taidpt.runtime import ClassBank, Tagger, Threshold

TARGET_MS = 5.0
SWAPPED = (1000, 20000)
MAP_POINTS = 33
COUNTS = (20, 80, 320, 1000, 5000, 20000)


def random_bank(tagger: Tagger, count: int, calibrated: bool = False) -> ClassBank:
    """Unit rows of a bundle's model and dimension, with thresholds, and maps where calibrated."""
    generator = np.random.default_rng(count)
    model = tagger.bundle.manifest.model
    rows = [generator.standard_normal((count, model.embed_dim), np.float32) for _ in range(2)]
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in rows]
    return ClassBank.from_rows(
        tuple(f"tag {index}" for index in range(count)),
        *unit,
        thresholds=tuple(Threshold(1.0, 0.9, "calibrated") for _ in range(count)),
        probabilities=[_random_map(generator) for _ in range(count)] if calibrated else (),
        metadata={"model": model.to_json()},
    )


def _random_map(generator: np.random.Generator) -> dict[str, Any]:
    """What `taidpt calibrate` learns of a tag."""
    return {
        "scores": np.cumsum(generator.random(MAP_POINTS) + 0.01).tolist(),
        "probabilities": np.sort(generator.random(MAP_POINTS)).tolist(),
        "band": np.sort(generator.standard_normal(2)).tolist(),
        "state": "seen",
        "expected_share": float(generator.random()),
        "sureness": "medium",
    }


def measure_swaps(tagger: Tagger, folder: Path, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Each kind of bank: milliseconds of the parts of a swap, and of frames beside it."""
    return {
        f"{count:,} tags, {what}": measure_swap(
            tagger, random_bank(tagger, count, calibrated), folder / "site.bank", repeats
        )
        for count in SWAPPED
        for what, calibrated in (("thresholds", False), ("thresholds and maps", True))
    }


def measure_swap(
    tagger: Tagger, made: ClassBank, path: Path, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of each part of a swap, and of frames beside it."""
    made.save(path)
    frame = random_frame(tagger)
    times: dict[str, list[float]] = {}

    def timed(name: str, run: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        value = run()
        times.setdefault(name, []).append((time.perf_counter() - start) * 1e3)
        return value

    for _ in range(repeats):
        bank = timed("read and check the file", lambda: ClassBank.load(path))
        timed("swap a bank in memory", lambda bank=bank: tagger.use_bank(bank))
        timed("first frame after a swap", lambda: tagger.tag(frame))
        timed("an ordinary frame", lambda: tagger.tag(frame))
        timed("swap from the file, whole", lambda: tagger.use_bank(path))
        tagger.tag(frame)
    return times


def measure_counts(
    everything: Tagger, best: Tagger, repeats: int
) -> dict[int, dict[str, list[float]]]:
    """Seconds a frame by number of tags, both ways in turn."""
    found = {}
    frame = random_frame(everything)
    for count in COUNTS:
        bank = random_bank(everything, count)
        for tagger in (everything, best):
            tagger.use_bank(bank)
        sides = {
            "all scores": lambda: everything.tag(frame),
            "best K": lambda: best.tag(frame),
        }
        found[count] = alternate(sides, repeats)
    return found


def random_frame(tagger: Tagger) -> Any:
    """A frame of noise, of the model's size."""
    spec = tagger.bundle.manifest.input
    shape = (spec.height, spec.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def print_swap(kind: str, times: dict[str, list[float]]) -> None:
    print(f"\nswapping a bank of {kind}, milliseconds")
    print(f"{'':28}{'p20':>8}{'p50':>8}{'p80':>8}")
    for name, values in times.items():
        print(f"{name:28}" + "".join(f"{np.percentile(values, p):8.2f}" for p in (20, 50, 80)))
    if kind.startswith(f"{SWAPPED[0]:,} "):
        for name in ("swap a bank in memory", "swap from the file, whole"):
            verdict = "met" if statistics.median(times[name]) < TARGET_MS else "MISSED"
            print(f"{name}: target under {TARGET_MS:g} ms, {verdict}")


def print_counts(found: dict[int, dict[str, list[float]]], top_k: int) -> None:
    print(f"\nmilliseconds a frame (p50) by number of tags, K = {top_k}")
    print(f"{'tags':>7}{'all scores':>12}{'best K':>9}{'ratio':>7}{'bytes out':>12}{'best K':>8}")
    for count, times in found.items():
        whole, best = (statistics.median(values) * 1e3 for values in times.values())
        out = 3 * 4 * count, top_k * (4 + 8)
        print(f"{count:7}{whole:12.1f}{best:9.1f}{best / whole:7.2f}{out[0]:12,}{out[1]:8,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--top-k", type=int, default=20)
    parser.add_argument("--model", default="RN50-quickgelu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fixed = make_bundle(folder, 80, options.model)
        paths = {}
        for top_k in (None, options.top_k):
            out = folder / f"{top_k}.taidpt"
            paths[top_k] = replace_head(fixed, out, "input", top_k, SilentProgress()).path
        load = {"device": "cpu", "threads": options.threads}
        with Tagger.load(paths[None], **load) as everything:
            swaps = measure_swaps(everything, folder, options.repeats)
            with Tagger.load(paths[options.top_k], **load) as best:
                counts = measure_counts(everything, best, options.repeats)
    weights = "its own" if options.model == "toyworld" else "random"
    print(f"{options.model}, {weights} weights, {options.threads} threads, ", end="")
    print(f"onnxruntime {onnxruntime.__version__}")
    for kind, times in swaps.items():
        print_swap(kind, times)
    print_counts(counts, options.top_k)
    if options.json:
        document = {"swap_ms": swaps, "latency_s": {str(key): v for key, v in counts.items()}}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
