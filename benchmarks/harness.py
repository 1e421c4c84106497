"""What kernels.py, engines.py, tuning.py and stream.py share: parts, one form of record, times.

A program names its parts. Each runs in a process that may die with it; the next goes on with the
rest, and the record is written after every part, so that a machine that is lent for minutes leaves
what it measured. A record is {"machine", "tests": {name: result}, "rows": [result], "not_run"};
results hold "failed" where something is wrong and "targets" where a goal was set.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# A part without an answer for so long hangs: on a GPU the longest, a thorough compilation, takes
# 45 s; a busy CPU may export a bundle for minutes.
_PART_LIMIT_S = 150.0
_PART_LIMIT_CPU_S = 900.0
_MOST_RESTARTS = 8
# Exit code of a process whose CUDA context an illegal access has made useless.
CUDA_IS_LOST = 75
_WORK = "TAIDPT_BENCHMARK_WORK"
_PACKAGES = ("torch", "triton", "onnxruntime", "tensorrt", "tensorrt_rtx", "numpy")

Left = Callable[[], float]


@dataclass(frozen=True)
class Part:
    """A test ("test") or a row of a table ("row"); with less than `needs_s` left it is not run.

    `work` takes a function that returns the seconds left.
    """

    name: str
    work: Callable[[Left], dict[str, Any]]
    kind: str = "test"
    needs_s: float = 20.0


def marked(page: str, begin: str, end: str, text: str) -> str:
    """The page with this text between two marks, which stay; ValueError without them."""
    head, rest = page.split(begin)
    return f"{head}{begin}{text}{end}{rest.split(end)[1]}"


class NotRunError(Exception):
    """Why a part cannot run here."""


class Record:
    """The results so far, written to a file after every part; without a path nothing is stored."""

    def __init__(self, machine: dict[str, Any], path: Path | None) -> None:
        self.path = path
        self.content: dict[str, Any] = {"machine": machine, "tests": {}, "rows": [], "not_run": []}

    def add(self, answer: dict[str, Any]) -> None:
        """A part's answer, as `serve` prints it."""
        name, result = answer["name"], answer["result"]
        if "not_run" in result:
            self.content["not_run"].append({"name": name, "why": result["not_run"]})
        elif answer["kind"] == "row":
            self.content["rows"].append({"name": name, "seconds": answer["seconds"], **result})
        else:
            self.content["tests"][name] = {"seconds": answer["seconds"], **result}
        print("\n".join(lines(name, result)), flush=True)
        if self.path is not None:
            self.path.write_text(json.dumps(self.content, indent=1) + "\n", "utf-8")

    def failed(self) -> bool:
        """Whether a test or a row failed."""
        rows = self.content["rows"]
        return any(result.get("failed") for result in (*self.content["tests"].values(), *rows))


def lines(name: str, result: dict[str, Any]) -> Iterator[str]:
    """A part's verdict, and below it failures, targets and the numbers that matter."""
    if "not_run" in result:
        yield f"{name}: not run, {result['not_run']}"
        return
    count = f", {result['run']} of {result['cases']}" if "cases" in result else ""
    verdict = "FAILED" if result.get("failed") else result.get("refused", "ran")
    yield f"{name}: {verdict}{count}"
    yield from (f"    {failure}" for failure in result.get("failed", [])[:3])
    for target in result.get("targets", ()):
        yield f"    {target['what']}: {target['value']}, {'met' if target['met'] else 'MISSED'}"
    yield from (f"    {line}" for line in _numbers(result))


def _numbers(entry: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(entry, Mapping) and "p50" in entry:
        yield f"{' / '.join(path)}: p50 {entry['p50']:.4g} ms"
    elif isinstance(entry, Mapping):
        for name, value in entry.items():
            yield from _numbers(value, (*path, str(name)))
    elif isinstance(entry, float):
        yield f"{' / '.join(path)}: {entry:.4g}"


class _Child:
    """A process that runs parts; its lines are read with a time limit."""

    def __init__(self, command: Sequence[str]) -> None:
        path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
        environment = {**os.environ, "PYTHONPATH": path}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def line(self, timeout_s: float) -> str | None:
        """The next line; None where the process ended, or was killed for printing none in time."""
        try:
            return self._lines.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            self.process.kill()
            return None


def run_parts(
    command: Callable[[float, list[str]], list[str]],
    seconds: float,
    record: Record,
    part_limit_s: float = _PART_LIMIT_S,
) -> None:
    """Run all parts, in a new process after each one that did not come back.

    Args:
        command: the command line for so many seconds that leaves out the named parts.
        seconds: for everything.
        record: where answers go.
        part_limit_s: the longest that a part may take.
    """
    deadline, done = time.monotonic() + seconds, list[str]()
    for _ in range(_MOST_RESTARTS):
        left = deadline - time.monotonic()
        if left <= 0:
            return
        child, begun = _Child(command(left, done)), ""
        while (line := child.line(min(part_limit_s, deadline - time.monotonic() + 5))) is not None:
            word, _, rest = line.strip().partition(" ")
            if word == "BEGIN":
                begun = rest
            elif word == "END":
                record.add(json.loads(rest))
                done.append(begun)
                begun = ""
        code = child.process.wait()
        if code == 0 and not begun:
            return
        if begun:
            reason = f"its process ended with {code}" if code >= 0 else f"killed by signal {-code}"
            done.append(begun)
        elif not done:
            begun, reason = "start", f"no part began: the process ended with {code}"
        else:
            continue
        record.add({"name": begun, "kind": "test", "seconds": "?", "result": {"failed": [reason]}})
        if begun == "start":
            return


def serve(parts: Sequence[Part], seconds: float, done: Sequence[str]) -> int:
    """Run parts in this process: `BEGIN name` before each, `END {json}` after it."""
    deadline = time.monotonic() + seconds

    def left() -> float:
        return deadline - time.monotonic()

    for part in parts:
        if part.name in done:
            continue
        print(f"BEGIN {part.name}", flush=True)
        started = time.monotonic()
        result = _result(part, left)
        seconds = round(time.monotonic() - started, 1)
        answer = {"name": part.name, "kind": part.kind, "seconds": seconds, "result": result}
        print(f"END {json.dumps(answer)}", flush=True)
        if _cuda_is_lost():
            return CUDA_IS_LOST
    return 0


def _result(part: Part, left: Left) -> dict[str, Any]:
    if left() < part.needs_s:
        return {"not_run": "no time was left"}
    try:
        return part.work(left)
    except NotRunError as reason:
        return {"not_run": str(reason)}
    except Exception as error:  # one part's failure must not take the rest of the time
        steps = [f"{step.name}:{step.lineno}" for step in traceback.extract_tb(error.__traceback__)]
        where = " > ".join(steps[-6:])
        return {"failed": [f"{type(error).__name__}: {error}"[:2000]], "where": where}


def _cuda_is_lost() -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False


def work_folder() -> Path:
    """A folder that a program's processes share and that goes with the program."""
    return Path(os.environ[_WORK])


def main(
    file: str,
    description: str,
    prefix: str,
    make_parts: Callable[[argparse.Namespace], Sequence[Part]],
    add_options: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> int:
    """A benchmark program's command line; 0 all that ran passed, 1 something failed.

    On a GPU the record goes to benchmarks/results/PREFIX-DEVICE-DATE.json, on a CPU to --output
    alone.
    """
    parser = argparse.ArgumentParser(description=description.split("\n", 1)[0])
    parser.add_argument("--only", default="", help="run only parts whose name holds this text")
    parser.add_argument("--list", action="store_true", help="print the parts' names and stop")
    parser.add_argument("--minutes", type=float, default=7.5, help="[default: 7.5]")
    parser.add_argument("--output", type=Path, help="record, instead of benchmarks/results/…")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--done", nargs="*", default=(), help=argparse.SUPPRESS)
    add_options(parser)
    options = parser.parse_args()
    if options.serve is None and not options.list:
        return _start(file, prefix, options)
    parts = [part for part in make_parts(options) if options.only in part.name]
    if options.list:
        print("\n".join(part.name for part in parts))
        return 0
    return serve(parts, options.serve, options.done)


def _start(file: str, prefix: str, options: argparse.Namespace) -> int:
    machine, path = machine_facts(), options.output
    if path is None and machine["architecture"]:
        device = machine["device"].lower().replace(" ", "-")
        path = RESULTS / f"{prefix}-{device}-{machine['date'][:10]}.json"
    print(f"{machine['device']}; record: {path or 'not stored'}", flush=True)
    record = Record(machine, path)
    with tempfile.TemporaryDirectory(prefix="taidpt-benchmark-") as work:
        # engines that were verified here are trusted here alone
        os.environ |= {_WORK: work, "XDG_STATE_HOME": str(Path(work) / "state")}
        run_parts(
            lambda seconds, done: [
                *(sys.executable, file, *sys.argv[1:], "--serve", str(seconds), "--done", *done)
            ],
            60 * options.minutes,
            record,
            _PART_LIMIT_S if machine["architecture"] else _PART_LIMIT_CPU_S,
        )
    return 1 if record.failed() else 0


def machine_facts() -> dict[str, Any]:
    """Device, versions, commit and date; "architecture" is 90 for sm_90, None without a GPU."""
    import torch

    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    facts: dict[str, Any] = {"device": f"CPU, {os.cpu_count()} cores", "architecture": None}
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        facts = {"device": torch.cuda.get_device_name(), "architecture": 10 * major + minor}
    for name in _PACKAGES:
        if importlib.util.find_spec(name) is not None:
            facts[name] = str(importlib.import_module(name).__version__)
    return {
        **facts,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "commit": commit or "unknown",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def held(result: dict[str, Any], *targets: tuple[str, str, float]) -> list[dict[str, Any]]:
    """Each target with what was measured; a value that was not measured misses it."""
    checked = []
    for name, relation, bound in targets:
        value = result.get(name)
        met = value is not None and (value >= bound if relation == ">=" else value <= bound)
        checked.append({"what": f"{name} {relation} {bound:g}", "value": value, "met": met})
    return checked


def timed_ms(work: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def in_turns(
    sides: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 5
) -> dict[str, dict[str, float]]:
    """p20, p50, p80 of each side in milliseconds; in turns, so that clocks drift for all."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(warm_up + repeats):
        for name, work in sides.items():
            value = timed_ms(work)
            if index >= warm_up:
                times[name].append(value)
    return {name: quantiles(values) for name, values in times.items()}


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p20, p50, p80 and the number of values."""
    if len(values) < 2:
        return {"p50": values[0], "n": len(values)}
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return {"p20": tenths[1], "p50": tenths[4], "p80": tenths[7], "n": len(values)}
