"""A fresh process that tags one frame, against a bare onnxruntime session of the same graph.

    python benchmarks/light_start.py BUNDLE [--repeats 9] [--json FILE]

Both sides import, load, and run one frame of the model's size, in processes of their own that take
turns; CPU time and resident memory are compared by their medians. Bytecode is written first, as pip
does when it installs. Target: at most 1.15 times.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from taidpt.runtime import Bundle

TARGET = 1.15
MEASURE = """
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""
BARE = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx")
frame = numpy.zeros((1, int(sys.argv[2]), int(sys.argv[3]), 3), numpy.uint8)
session.run(None, {"frames": frame})
"""
OURS = """
import sys, numpy
from taidpt.runtime import Tagger
tagger = Tagger.load(sys.argv[1])
tagger(numpy.zeros((int(sys.argv[2]), int(sys.argv[3]), 3), numpy.uint8)).tags
"""


def measure(code: str, bundle: Bundle) -> tuple[float, float]:
    """CPU seconds and MiB of one fresh process."""
    spec = bundle.manifest.input
    arguments = [str(bundle.path), str(spec.height), str(spec.width)]
    command = [sys.executable, "-c", code + MEASURE, *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds, mebibytes = done.stdout.split()
    return float(seconds), float(mebibytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    sides = {"onnxruntime": BARE, "taidpt": OURS}
    for code in sides.values():
        measure(code, bundle)  # writes the bytecode, and reads the files from the disk
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(arguments.repeats):
        for name, code in sides.items():
            found[name].append(measure(code, bundle))
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in found.items()
    }
    for name, (seconds, mebibytes) in medians.items():
        print(f"{name:<14}{seconds:8.3f} s CPU {mebibytes:8.1f} MiB")
    ratios = [
        ours / bare for ours, bare in zip(medians["taidpt"], medians["onnxruntime"], strict=True)
    ]
    print(f"{'ratio':<14}{ratios[0]:8.3f}       {ratios[1]:8.3f}      target {TARGET}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"medians": medians, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
