"""Instructions that the runtime's own Python and NumPy code executes, counted by Valgrind.

    python benchmarks/instructions.py [--write]

Times on shared machines differ by tens of per cent, these counts hardly, so a change that makes
a frame more expensive is seen without a clock. Each case runs on fixed inputs under callgrind and
is compared with the stored count; more than 3 % above it fails. Python keeps looked-up attributes
in a table by their names' addresses, so that where things lie in memory costs a small case up to
2 %: a count that is too high is taken again in other layouts, and the least of them counts.
Counts hold for the versions that they were made with, Python's and NumPy's: with others the script
says so, and `--write` stores new ones. Needs valgrind and a C compiler (Debian: valgrind, gcc).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from taidpt.runtime.bank.thresholds import Threshold
    from taidpt.runtime.results import TagResult

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this checkout, also where another is installed
STORED = ROOT / "benchmarks" / "results" / "instructions.json"
BOUND = 0.03  # two counts of one commit in one layout are equal
_TAGS = 80
# The first calls import and fill caches, and Python rewrites what runs often.
_WARM_UP = 2
# Entries of the module path, which nothing is found in: they move everything in memory.
_LAYOUTS = (0, 7, 23)

# Valgrind's client requests are macros for C.
_MARKS = """
#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void end(const char *name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
"""

Case = Callable[[], object]


def cases() -> dict[str, Case]:
    """What is counted, by name; each call does the same work."""
    names = tuple(f"thing {index}" for index in range(_TAGS))
    generator = np.random.default_rng(0)
    return {
        "preprocess: a 720p RGB frame": _preprocess(generator, (720, 1280, 3)),
        "preprocess: a grey frame of 1280x1080": _preprocess(generator, (1080, 1280)),
        f"events: 50 frames, {_TAGS} tags": _events(generator, names),
        f"manifest: {_TAGS} tags": _manifest(names),
        f"results: a frame, all of {_TAGS} tags": _results(generator, _TAGS).to_dict,
        "results: a frame, 20 on of 20,000 tags": _on_tags(_results(generator, 20_000)),
    }


def _preprocess(generator: np.random.Generator, shape: tuple[int, ...]) -> Case:
    from taidpt.runtime.bundle.input_spec import InputSpec
    from taidpt.runtime.preprocess.preprocessor import Preprocessor

    preprocessor = Preprocessor(InputSpec(224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    frame = generator.integers(0, 256, shape, np.uint8)
    return lambda: preprocessor(frame)


def _events(generator: np.random.Generator, names: tuple[str, ...]) -> Case:
    from taidpt.runtime.events.machine import EventMachine, EventSettings

    times, scores = np.arange(50) / 10, generator.normal(0, 1, (50, len(names)))
    settings = EventSettings(on=0.5, off=0.3, smoothing_s=0.5, min_on_s=0.2, min_off_s=0.2)
    return lambda: EventMachine(names, settings).update(times, scores)


def _manifest(names: tuple[str, ...]) -> Case:
    from taidpt.runtime.bundle.input_spec import InputSpec
    from taidpt.runtime.bundle.manifest import FileEntry, GraphInfo, Manifest, ModelInfo, TagEntry
    from taidpt.runtime.bundle.scoring import Scoring

    chances = {"scores": [0.0, 1.0], "probabilities": [0.0, 1.0]}
    data = Manifest(
        tags=tuple(TagEntry(name, _threshold(), (), chances) for name in names),
        model=ModelInfo("RN50", "random", "0" * 64, "none", 1024, (7, 7)),
        scoring=Scoring(),
        input=InputSpec(224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        graph=GraphInfo(17, 10),
        files={name: FileEntry(1, "0" * 64) for name in ("model.onnx", "bank.safetensors")},
    ).to_bytes()
    return lambda: Manifest.from_bytes(data, "manifest.json")


def _results(generator: np.random.Generator, count: int) -> TagResult:
    from taidpt.runtime.results import TagBatch, Vocabulary

    names = tuple(f"thing {index}" for index in range(count))
    maps = [{"scores": [0.0, 1.0], "probabilities": [0.0, 1.0]}] * count
    scores = generator.permutation(np.linspace(0, 1, count, dtype=np.float32))
    thresholds = [_threshold(1 - 19.5 / count)] * count
    outputs = {"scores": scores[None], "patch_features": np.zeros((1, 49, 16), np.float32)}
    return TagBatch(outputs, Vocabulary(names, thresholds, maps, (7, 7)))[0]


def _on_tags(result: TagResult) -> Case:
    assert len(result.on_tags) == 20
    return lambda: result.on_tags


def _threshold(on: float = 0.9) -> Threshold:
    from taidpt.runtime.bank.thresholds import Threshold

    return Threshold(on, on / 2, "calibrated")


def run_cases(marks: ctypes.CDLL) -> None:
    """Run all cases between marks; this is the process that Valgrind watches."""
    for name, case in cases().items():
        for _ in range(_WARM_UP):
            case()
        gc.collect()
        gc.disable()
        marks.begin()
        case()
        marks.end(name.encode())
        gc.enable()


def least(stored: dict[str, int], count: Callable[[int], dict[str, int]]) -> dict[str, int]:
    """Instructions a call of each case; the least of several layouts where one is too high.

    Args:
        stored: what to compare with.
        count: counts in a layout.
    """
    found = count(_LAYOUTS[0])
    for layout in _LAYOUTS[1:]:
        if compare(found, stored):
            again = count(layout)
            found = {name: min(value, again[name]) for name, value in found.items()}
    return found


def count_in(layout: int) -> dict[str, int]:
    """Instructions a call of each case, with so many entries more in the module path.

    Raises:
        RuntimeError: valgrind or a C compiler is missing, or the run failed.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or shutil.which("valgrind") is None:
        raise RuntimeError("valgrind and a C compiler are needed: apt install valgrind gcc")
    with tempfile.TemporaryDirectory() as folder:
        source, marks = Path(folder, "marks.c"), Path(folder, "marks.so")
        source.write_text(_MARKS, "utf-8")
        _run([compiler, "-shared", "-fPIC", "-o", str(marks), str(source)], 0)
        tool = ["--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counts"]
        _run(["valgrind", *tool, sys.executable, __file__, "--marks", str(marks)], layout)
        found = dict(_read(path) for path in Path(folder).glob("counts.*"))
    return {name: found[name] for name in cases()}


def _run(command: list[str], layout: int) -> None:
    # Valgrind shows programs a processor without AVX-512, so all machines take the same kernels.
    fixed = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    fixed["PYTHONPATH"] = os.pathsep.join(f"/nowhere/{entry}" for entry in range(layout))
    environment = {**os.environ, **fixed}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")


def _read(path: Path) -> tuple[str, int]:
    lines = path.read_text("utf-8").splitlines()
    trigger = next(line for line in lines if line.startswith("desc: Trigger:"))
    total = next(line for line in lines if line.startswith("totals:"))
    return trigger.partition("Client Request: ")[2], int(total.split()[1])


def versions() -> dict[str, str]:
    """What counts depend on besides the code."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"machine": platform.machine(), "python": python, "numpy": np.__version__}


def compare(counts: dict[str, int], stored: dict[str, int]) -> list[str]:
    """A line for each case that rose by more than the bound."""
    risen = [
        (name, found / stored[name] - 1)
        for name, found in counts.items()
        if name in stored and found > stored[name] * (1 + BOUND)
    ]
    return [
        f"{name}: {share:+.1%} instructions, the bound is {BOUND:+.0%}" for name, share in risen
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="store these counts")
    parser.add_argument("--marks", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.marks:
        run_cases(ctypes.CDLL(arguments.marks))
        return 0
    record = json.loads(STORED.read_text("utf-8")) if STORED.is_file() else {}
    stored = record.get("instructions", {}) if record.get("versions") == versions() else {}
    counts = least({} if arguments.write else stored, count_in)
    for name, found in counts.items():
        beside = f"{found / stored[name] - 1:+7.2%}" if name in stored else ""
        print(f"{name:<42}{found:>14,} {beside}")
    if arguments.write:
        record = {"versions": versions(), "instructions": counts}
        STORED.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        return 0
    if not stored:
        print(f"stored for {record.get('versions')}, here {versions()}: --write stores new counts")
    risen = compare(counts, stored) if stored else []
    print("\n".join(risen))
    return int(bool(risen))


if __name__ == "__main__":
    sys.exit(main())
