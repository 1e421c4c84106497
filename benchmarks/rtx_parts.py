"""What rtx_gpu.py runs, a process of its own: `rtx_parts.py SECONDS WORK only=WORD DONE…`.

Prints `BEGIN name` before and `END {json}` after each part, so that whoever started it knows which
part took it down. Parts named on the command line are left out. WORK keeps bundles and engines, so
that a new process need not make them again.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtx_work import NotRunError, Work

__all__ = ["parts"]

# Exit code: a part left the device unusable for this process.
CUDA_IS_LOST = 75
# For which an engine may be built; "none" is every GPU that TensorRT-RTX supports.
TARGETS = ("none", "current", "sm_80", "sm_89", "sm_120")


@dataclass(frozen=True)
class Part:
    """A part with its name; with less than `needs_s` left it is not begun.

    Its module is imported when it is run, so that a package that one lacks takes no other.
    """

    name: str
    needs_s: float
    module: str
    function: str
    arguments: tuple[str, ...] = ()

    def work(self, work: Work) -> dict[str, Any]:
        """Its result."""
        function = getattr(importlib.import_module(self.module), self.function)
        result: dict[str, Any] = function(work, *self.arguments)
        return result


def parts() -> list[Part]:
    """All of them, in order of worth; what others build on comes first."""
    engines, swaps, plugin = "rtx_engines", "rtx_swaps", "rtx_plugin_engines"
    return [
        *(
            Part(f"TensorRT-RTX at all, target {target}", 3, "rtx_preflight", "measure", (target,))
            for target in TARGETS
        ),
        Part("runtime's CUDA calls, without TensorRT", 3, "rtx_runner", "measure"),
        Part("plugin, driven without TensorRT", 5, "rtx_plugin", "alone"),
        Part("bundles", 20, engines, "make_bundles"),
        Part("engine fp16, constant bank", 10, engines, "constant", ("fp16",)),
        Part("engine fp32, constant bank", 10, engines, "constant", ("fp32",)),
        Part("bank as input", 15, swaps, "banks"),
        Part("swaps of a bank", 10, swaps, "swaps"),
        Part("swaps from another thread", 8, swaps, "threads"),
        Part("all scores against the best 20", 15, engines, "best_of"),
        Part("plugin in an engine, cases", 15, plugin, "cases"),
        Part("plugin in an engine, latency", 10, plugin, "latency"),
        Part("tagger end to end", 8, engines, "tags"),
    ]


def _find_own_tests() -> None:
    """Another's package of the name `tests` would come before ours, which has no __init__.py."""
    package = types.ModuleType("tests")
    package.__path__ = [str(Path(__file__).resolve().parent.parent / "tests")]
    sys.modules["tests"] = package


def run(part: Part, work: Work, left_s: float) -> dict[str, Any]:
    """The part's result, or why there is none."""
    if left_s < part.needs_s:
        return {"not_run": "no time was left"}
    try:
        return part.work(work)
    except NotRunError as reason:
        return {"not_run": str(reason)}
    except Exception as error:  # one part's failure must not take the rest of the lease
        steps = [f"{step.name}:{step.lineno}" for step in traceback.extract_tb(error.__traceback__)]
        text = f"{type(error).__name__}: {error}"[:2000]
        return {"failed": [text], "where": " > ".join(steps[-6:])}


def device_is_lost() -> bool:
    """Whether CUDA is of no more use to this process: an illegal access stays with it."""
    import torch

    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False


def main() -> int:
    """0 all parts were tried; CUDA_IS_LOST where another process has to go on."""
    _find_own_tests()
    deadline = time.monotonic() + float(sys.argv[1])
    work, only = Work(Path(sys.argv[2])), sys.argv[3].removeprefix("only=")
    for part in parts():
        if part.name in sys.argv[4:] or only not in part.name:
            continue
        print(f"BEGIN {part.name}", flush=True)
        started = time.monotonic()
        result = run(part, work, deadline - started)
        seconds = round(time.monotonic() - started, 1)
        answer = {"name": part.name, "kind": "test", "seconds": seconds, "result": result}
        print(f"END {json.dumps(answer)}", flush=True)
        if device_is_lost():
            return CUDA_IS_LOST
    return 0


if __name__ == "__main__":
    sys.exit(main())
