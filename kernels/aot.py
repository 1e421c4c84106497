"""Compile the kernels ahead of time, for every architecture, on a machine without a GPU.

    python -m taidpt.kernels.aot -o build/aot

writes one cubin an (architecture, type, kind), without bf16 before sm_80, a PTX of ISA 8.0 for
architectures that come later, `taidpt_kernels.h` with grid, block, shared-memory and argument
facts, `taidpt_kernels.S` that embeds them, and `kernels.json`. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from taidpt.kernels.aot_header import write_sources
from taidpt.kernels.local_similarity.tiles import SHARED_LIMITS, check_shared

__all__ = ["OPTIONAL_ARCHITECTURES", "compile_all", "main"]

# Triton is dropping them: compiled where it still can, left out with a note where it cannot.
OPTIONAL_ARCHITECTURES = frozenset({72})
PTX = "ptx"
# A kernel takes seconds; a compiler that hangs on an architecture must not hang the build.
_TIMEOUT_S = 900


def compile_all(folder: Path, architectures: Sequence[int], jobs: int) -> list[dict[str, Any]]:
    """Compile, check shared memory, write everything; facts of each kernel.

    Raises:
        ValueError: an architecture that is not in the table, or a kernel over its limit.
        RuntimeError: the compiler failed on an architecture that must work.
    """
    for architecture in architectures:
        check_shared(architecture, 0, "")
    folder.mkdir(parents=True, exist_ok=True)
    targets = [str(each) for each in sorted(architectures)] + [PTX]
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        results = list(pool.map(lambda target: _compile_one(folder, target), targets))
    facts = [fact for result in results for fact in result]
    for fact in facts:
        for architecture in _runs_on(fact):
            check_shared(architecture, fact["shared_bytes"], fact["file"])
    write_sources(folder, facts)
    return facts


def _runs_on(fact: dict[str, Any]) -> list[int]:
    """A cubin's own architecture; of PTX, which the driver compiles, all from its own on."""
    oldest = fact["architecture"]
    if not fact["ptx"]:
        return [oldest]
    return [architecture for architecture in SHARED_LIMITS if architecture >= oldest]


def _compile_one(folder: Path, target: str) -> list[dict[str, Any]]:
    """One architecture in a process of its own: an unknown one can abort the compiler."""
    command = [sys.executable, "-m", "taidpt.kernels.aot_compile", target, str(folder)]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TRITON_CACHE_DIR": cache, "TRITON_DISABLE_LINE_INFO": "1"}
        # the folder that holds `taidpt`, for a checkout that is not installed
        root = str(Path(__file__).absolute().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(
            part for part in (root, os.environ.get("PYTHONPATH", "")) if part
        )
        environment.pop("TRITON_INTERPRET", None)
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    if done.returncode == 0:
        facts: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])  # noqa: TID251
        return facts
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if target.isdigit() and int(target) in OPTIONAL_ARCHITECTURES:
        print(f"sm_{target}: left out, this Triton cannot compile it: {last}", file=sys.stderr)
        return []
    raise RuntimeError(f"compiling for {target} ended with {done.returncode}: {last}")


def _architecture(text: str) -> int:
    digits = text.removeprefix("sm_")
    if not digits.isdigit():
        raise argparse.ArgumentTypeError(f"expected sm_87 or 87, received {text!r}")
    return int(digits)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 done, 1 a kernel does not compile or fit, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m taidpt.kernels.aot", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--arch",
        type=_architecture,
        nargs="+",
        default=list(SHARED_LIMITS),
        help="architectures, by default " + " ".join(f"sm_{each}" for each in SHARED_LIMITS),
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    options = parser.parse_args(arguments)
    try:
        facts = compile_all(options.output, options.arch, max(1, options.jobs))
    except (ValueError, RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    total = sum(fact["bytes"] for fact in facts)
    print(f"{len(facts)} kernels, {total / 1024:.0f} KiB, in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
