"""How everything that a camera pays grows with the number of tags, on the CPU.

    python benchmarks/tags_scale.py [--tags 20 80 … 20000] [--threads 1] [--json FILE]

For each number of tags one graph whose bank is an input, RN50 with random weights: a frame, its
result with events, the bank as file and in memory, reading it, swapping it, the slowest frame while
another thread does both, as `--watch-bank` does, and thresholds of so many tags from unlabelled
frames (up to `--calibrate-most` tags; simulated photographs' scores).
Numbers of tags take turns, so that a busy machine slows all alike. The exponent is the slope of the
logarithms over the three largest numbers: 1 is linear, 0 does not grow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from banks import random_bank, random_frame  # noqa: E402
from tagger_overhead import make_bundle  # noqa: E402

from taidpt.calibration.statistics.estimator import calibrate  # noqa: E402
from taidpt.export.replace_head import replace_head  # noqa: E402
from taidpt.progress import SilentProgress  # noqa: E402
from taidpt.runtime import ClassBank, Tagger  # noqa: E402
from taidpt.runtime.events.machine import EventMachine, EventSettings  # noqa: E402
from tests.taidpt.calibration.simulator import Size, simulate  # noqa: E402

# The goals of the largest number of tags against the smallest, and of parts of it.
MOST_FRAME_RATIO, MOST_SWAP_MS, MOST_CALIBRATION_S = 1.25, 15.0, 60.0

Row = dict[str, float]


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds and result of a call."""
    begun = time.perf_counter()
    value = run()
    return (time.perf_counter() - begun) * 1e3, value


def measure(tagger: Tagger, path: Path, frame: Any) -> dict[str, float]:
    """Milliseconds of each part with the bank of a file, once."""
    read_ms, bank = timed(lambda: ClassBank.load(path))
    both_ms, _ = timed(lambda: tagger.use_bank(path))
    swap_ms, _ = timed(lambda: tagger.use_bank(bank))
    tagger.tag(frame)  # the first frame after a swap prepares buffers
    frame_ms, result = timed(lambda: tagger.tag(frame))
    vocabulary = result.vocabulary
    machine = EventMachine(bank.names, EventSettings(vocabulary.on, vocabulary.off))
    scores = result.scores[None]
    machine.update([0.0], scores)

    def after() -> Any:
        return machine.update([0.1], scores), result.on_tags

    result_ms, _ = timed(after)
    return {
        "frame, ms": frame_ms,
        "events and tags that are on, ms": result_ms,
        "read and check the bank, ms": read_ms,
        "read and swap it, ms": both_ms,
        "swap one that is read, ms": swap_ms,
        "frame beside reading, ms": frame_beside_reading(tagger, path, frame),
    }


def frame_beside_reading(tagger: Tagger, path: Path, frame: Any) -> float:
    """Milliseconds of the slowest frame while another thread reads and swaps a bank."""
    reader = threading.Thread(target=tagger.use_bank, args=[path])
    slowest = 0.0
    reader.start()
    while reader.is_alive() or not slowest:
        slowest = max(slowest, timed(lambda: tagger.tag(frame))[0])
    reader.join()
    return slowest


def memory_mb(bank: ClassBank) -> float:
    """Of the bank's arrays, in MB."""
    arrays = (value for value in vars(bank).values() if isinstance(value, np.ndarray))
    return sum(array.nbytes for array in arrays) / 1e6


def calibration_s(count: int, frames: int) -> float:
    """CPU seconds of thresholds from unlabelled frames."""
    scores = simulate("photos", 1, Size(frames, count)).merged()
    begun = time.process_time()
    calibrate(scores)
    return time.process_time() - begun


def exponent(counts: list[int], values: list[float]) -> float:
    """Slope of the logarithms over the three largest counts."""
    return float(np.polyfit(np.log(counts[-3:]), np.log(values[-3:]), 1)[0])


def print_table(rows: dict[int, Row]) -> None:
    """A column a quantity, and what each grows by."""
    names = list(next(iter(rows.values())))
    print(f"| tags | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    for count, row in rows.items():
        cells = (f"{row[name]:.3g}" if name in row else "not run" for name in names)
        print(f"| {count:,} | {' | '.join(cells)} |")
    exponents = []
    for name in names:
        known = [count for count in rows if name in rows[count]]
        exponents.append(f"{exponent(known, [rows[count][name] for count in known]):.2f}")
    print(f"| exponent | {' | '.join(exponents)} |")


def print_goals(rows: dict[int, Row]) -> None:
    """The goals beside what was found."""
    counts = sorted(rows)
    ratio = rows[counts[-1]]["frame, ms"] / rows[counts[0]]["frame, ms"]
    last = rows[counts[-1]]
    found = {
        f"a frame with {counts[-1]:,} tags / with {counts[0]}": (ratio, MOST_FRAME_RATIO),
        f"a bank of {counts[-1]:,} read and swapped, ms": (
            last["read and swap it, ms"],
            MOST_SWAP_MS,
        ),
        f"a bank of {counts[-1]:,} swapped once it is read, ms": (
            last["swap one that is read, ms"],
            MOST_SWAP_MS,
        ),
    }
    known = [count for count in counts if "calibration, CPU s" in rows[count]]
    if known:
        name = f"calibration of {known[-1]:,} tags, CPU s"
        found[name] = (rows[known[-1]]["calibration, CPU s"], MOST_CALIBRATION_S)
    for name, (value, most) in found.items():
        print(f"{name}: {value:.3g} (goal {most:g}, {'met' if value <= most else 'MISSED'})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tags", type=int, nargs="+", default=[20, 80, 320, 1000, 5000, 20_000])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--calibrate-most", type=int, default=5000)
    parser.add_argument("--model", default="RN50-quickgelu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: dict[int, Row] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fixed = make_bundle(folder, 80, options.model)
        bundle = replace_head(fixed, folder / "input.taidpt", "input", None, SilentProgress()).path
        with Tagger.load(bundle, device="cpu", threads=options.threads) as tagger:
            frame = random_frame(tagger)
            for count in options.tags:
                bank = random_bank(tagger, count, calibrated=True)
                bank.save(folder / f"{count}.bank")
                rows[count] = {"bank, MB": memory_mb(bank)}
            found = {count: list[dict[str, float]]() for count in options.tags}
            for _ in range(options.repeats):
                for count in options.tags:
                    found[count].append(measure(tagger, folder / f"{count}.bank", frame))
        for count, runs in found.items():
            file_mb = (folder / f"{count}.bank").stat().st_size / 1e6
            rows[count]["bank file, MB"] = file_mb
            rows[count] |= {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    for count in options.tags:
        if count <= options.calibrate_most:
            rows[count]["calibration, CPU s"] = calibration_s(count, options.frames)
    print(f"{options.model}, {options.threads} threads, onnxruntime {onnxruntime.__version__}")
    print(f"medians of {options.repeats}; calibration on {options.frames:,} frames\n")
    print_table(rows)
    print_goals(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
