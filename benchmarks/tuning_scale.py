"""How tuning grows with the number of tags: steps a second and peak memory, ours and the plain way.

    python benchmarks/tuning_scale.py [--classes 20 80 1000 5000] [--batch 512] [--limit-gib 16]

RN50's text tower with random weights, both prompts, forward + backward + step, as in
tuning_step.py. Each (way, C) is a process of its own, whose memory is limited: on a CPU by its
address space beyond what imports took, on a GPU by its share of the card. A way that does not fit
is named with what it asked for. The slope is seconds a step for each further thousand tags.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

GIB = 1024**3
WAYS = ("ours", "plain")


def address_space() -> int:
    """Bytes of this process's address space now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def limit_memory(device: torch.device, limit: int) -> None:
    """Refuse this process more than so many bytes from here on."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)
        return
    whole = address_space() + limit
    resource.setrlimit(resource.RLIMIT_AS, (whole, whole))


def peak_memory(device: torch.device) -> int:
    """Bytes: of the process on a CPU, of PyTorch's allocator on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One way at one C: median seconds a step and peak memory, or why it did not fit."""
    from benchmarks.tuning_step import Way, make_case, on_device, our_step, plain_step

    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    case, _ = make_case(options.one, options.batch)
    case = on_device(case, device)
    gc.collect()
    limit_memory(device, int(options.limit_gib * GIB))
    way = Way((our_step if options.way == "ours" else plain_step)(case), device)
    started = time.perf_counter()
    try:
        while not way.clock or time.perf_counter() - started < options.seconds:
            way.step()
    except (RuntimeError, MemoryError) as error:
        return {"reason": str(error).splitlines()[0][:160]}
    # the first step allocates and, on a GPU, compiles; alone it stands where there is no other
    times = sorted(way.clock[1:] or way.clock)
    return {
        "seconds": times[len(times) // 2],
        "steps": len(times),
        "peak_bytes": peak_memory(device),
    }


def in_a_process(options: argparse.Namespace, way: str, classes: int) -> dict[str, Any]:
    """The measurement's answer; a killed process is an answer, too."""
    command = [sys.executable, __file__, "--way", way, "--one", str(classes)]
    for name in ("batch", "threads", "device", "seconds", "limit_gib"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"reason": f"ended with {done.returncode}: {last[:160]}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def slope(points: list[tuple[int, float]]) -> float | None:
    """Least squares of seconds a step over thousands of tags."""
    if len(points) < 2:
        return None
    classes, seconds = zip(*points, strict=True)
    mean_c, mean_s = sum(classes) / len(points), sum(seconds) / len(points)
    spread = sum((c - mean_c) ** 2 for c in classes)
    joint = sum((c - mean_c) * (s - mean_s) for c, s in points)
    return 1000 * joint / spread


def line(classes: int, way: str, found: dict[str, Any], limit_gib: float) -> str:
    """One row of the table."""
    if "reason" in found:
        return f"{classes:6} {way:6} does not fit in {limit_gib:g} GiB: {found['reason']}"
    return (
        f"{classes:6} {way:6} {1 / found['seconds']:9.3f} steps/s {found['seconds']:9.3f} s "
        f"(n = {found['steps']}) {found['peak_bytes'] / GIB:7.2f} GiB"
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[20, 80, 1000, 5000])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=20.0, help="a row, one step at least")
    parser.add_argument("--limit-gib", type=float, default=16.0, help="memory that a way may take")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Every (C, way) in turn, then the slopes."""
    options = parse()
    if options.one is not None:
        print(json.dumps(measure(options)))
        return
    print(
        f"RN50 text tower (random), B = {options.batch}, both prompts, {options.device}, "
        f"{options.threads} threads, torch {torch.__version__}, {platform.machine()}",
        flush=True,
    )
    record: dict[str, dict[int, dict[str, Any]]] = {way: {} for way in WAYS}
    for classes in options.classes:
        for way in WAYS:
            found = in_a_process(options, way, classes)
            record[way][classes] = found
            print(line(classes, way, found, options.limit_gib), flush=True)
    for way, rows in record.items():
        points = [(c, found["seconds"]) for c, found in rows.items() if "seconds" in found]
        grown = slope(points)
        said = "one point, no slope" if grown is None else f"{grown:.3f} s a step for 1,000 tags"
        print(f"slope of {way:6} over C = {[c for c, _ in points]}: {said}")
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
