"""Every GPU test and benchmark of the operator, in one run under eight minutes.

    python benchmarks/gpu_suite.py [--output FOLDER] [--minutes 7.5]

Needs PyTorch and Triton; the package itself is found beside this file. Parts run in a process of
their own (gpu_parts.py); where one takes it down, another goes on with the rest. Results are kept
after every part, in benchmarks/results/ as JSON whose name is the device and the date. A short
table comes last. What there was no time for is named as not run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# A part that says nothing for so long hangs.
_PART_LIMIT_S = 150.0
_MOST_RESTARTS = 8


class Record:
    """What is known so far, kept on disk after every part."""

    def __init__(self, machine: dict[str, Any], path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"machine": machine, "tests": {}, "rows": [], "not_run": []}

    def add(self, answer: dict[str, Any]) -> None:
        """A part's answer, as gpu_parts prints it."""
        name, result = answer["name"], answer["result"]
        print(f"{name}: {answer['seconds']} s", flush=True)
        if "not_run" in result:
            self.content["not_run"].append({"name": name, "why": result["not_run"]})
        elif answer["kind"] == "row":
            self.content["rows"].append({"name": name, "seconds": answer["seconds"], **result})
        else:
            self.content["tests"][name] = {"seconds": answer["seconds"], **result}
        self.path.write_text(json.dumps(self.content, indent=1) + "\n", "utf-8")

    def failed(self) -> bool:
        """Whether a test or a row failed."""
        rows = self.content["rows"]
        return any(result.get("failed") for result in (*self.content["tests"].values(), *rows))


class Child:
    """A process that runs parts; its lines are read with a time limit."""

    def __init__(self, command: list[str]) -> None:
        path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def line(self, timeout_s: float) -> str | None:
        """The next line; None where the process ended, or said nothing in time and was killed."""
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
        command: of a process with so many seconds left that leaves out these parts.
        seconds: for everything.
        record: where answers go.
        part_limit_s: what a part may take.
    """
    deadline = time.monotonic() + seconds
    done: list[str] = []
    for _ in range(_MOST_RESTARTS):
        left = deadline - time.monotonic()
        if left <= 0:
            return
        child, begun = Child(command(left, done)), ""
        while (line := child.line(min(part_limit_s, deadline - time.monotonic() + 5))) is not None:
            word, _, rest = line.strip().partition(" ")
            if word == "BEGIN":
                begun = rest
            elif word == "END":
                record.add(json.loads(rest))
                done.append(begun)
                begun = ""
        code = child.process.wait()
        if begun:
            reason = f"its process ended with {code}" if code >= 0 else f"killed by signal {-code}"
            result = {"failed": [reason]}
            record.add({"name": begun, "kind": "test", "seconds": "?", "result": result})
            done.append(begun)
        elif code == 0:
            return
        elif not done:
            result = {"failed": [f"no part began: the process ended with {code}"]}
            record.add({"name": "start", "kind": "test", "seconds": "?", "result": result})
            return


def main() -> int:
    """Exit code: 0 all that ran passed (or there is no GPU), 1 something failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--minutes", type=float, default=7.5)
    options = parser.parse_args()
    missing = missing_here()
    if missing:
        print(f"GPU suite: not run ({missing})")
        return 0
    machine = machine_facts()
    options.output.mkdir(parents=True, exist_ok=True)
    device = machine["device"].lower().replace(" ", "-")
    path = options.output / f"gpu-{device}-{machine['date'][:10]}.json"
    record = Record(machine, path)
    run_parts(_parts_command, 60 * options.minutes, record)
    from benchmarks.gpu_table import test_lines, text_table

    lines = test_lines(record.content)
    print(f"\n{path}\n" + "\n".join(lines) + "\n\n" + text_table(record.content))
    return 1 if record.failed() else 0


def _parts_command(seconds: float, done: list[str]) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gpu_parts", str(seconds), *done]


def missing_here() -> str:
    """What the suite needs and does not find, or nothing."""
    try:
        import torch
        import triton  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    return "" if torch.cuda.is_available() else "torch sees no CUDA device"


def machine_facts() -> dict[str, Any]:
    """Device, versions, commit and date, as results keep them."""
    import torch
    import triton

    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    major, minor = torch.cuda.get_device_capability()
    return {
        "device": torch.cuda.get_device_name(),
        "architecture": 10 * major + minor,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "commit": commit or "unknown",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    sys.exit(main())
