"""A fresh process that tags one frame, against a bare onnxruntime session of the same graph.

    python benchmarks/light_start.py BUNDLE [--repeats 9] [--json FILE]

Both sides import, load, and run one frame of the model's size, in processes of their own that take
turns; CPU time and resident memory are compared by their medians. Bytecode is written first, as pip
does when it installs. Targets: at most 1.12 times the CPU time and 1.05 times the memory.

Then `taidpt --help` beside Python alone, and Python that imports click. Target: 60 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from taidpt.runtime import Bundle

TARGETS = {"CPU time": 1.12, "memory": 1.05}
HELP_TARGET_MS = 60
HELP = {
    "Python": "pass",
    "click": "import click",
    "taidpt --help": "import sys; sys.argv[1:] = ['--help']; from taidpt.cli import main; main()",
}
MEASURE = """
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "env": ENVIRONMENT}
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
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    seconds, mebibytes = done.stdout.split()
    return float(seconds), float(mebibytes)


def help_ms(repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each line of `HELP`, in fresh processes that take turns."""
    found: dict[str, list[float]] = {name: [] for name in HELP}
    for _ in range(repeats + 1):  # the first writes the bytecode
        for name, code in HELP.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True, **QUIET)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
            found[name].append(seconds * 1e3)
    return {name: statistics.median(values[1:]) for name, values in found.items()}


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
    sizes: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(arguments.repeats):
        for name, code in sides.items():
            sizes[name].append(measure(code, bundle))
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in sizes.items()
    }
    for name, (seconds, mebibytes) in medians.items():
        print(f"{name:<14}{seconds:8.3f} s CPU {mebibytes:8.1f} MiB")
    ratios = [
        ours / bare for ours, bare in zip(medians["taidpt"], medians["onnxruntime"], strict=True)
    ]
    targets = ", ".join(f"{name} {target}" for name, target in TARGETS.items())
    print(f"{'ratio':<14}{ratios[0]:8.3f}       {ratios[1]:8.3f}      targets {targets}")
    helps = help_ms(arguments.repeats)
    for name, ms in helps.items():
        print(f"{name:<14}{ms:8.1f} ms CPU")
    print(f"{'target':<14}{HELP_TARGET_MS:8.1f} ms")
    if arguments.json:
        found = {"medians": medians, "ratios": ratios, "help_ms": helps}
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
