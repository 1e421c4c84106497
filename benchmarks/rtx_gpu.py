"""The runtime's TensorRT backend and the TensorRT plugin on a GPU, with TensorRT-RTX, in one run.

    python benchmarks/rtx_gpu.py [--output FILE] [--minutes 2.5] [--plugin FILE] [--driver FILE]
                                 [--only WORD] [--work FOLDER]

Needs `tensorrt_rtx`, `cuda-bindings`, PyTorch and what an export needs; the package itself is found
beside this file. First it is tried whether TensorRT-RTX runs at all on this GPU: where it refuses,
its own words stand in place of every part that needs an engine, and what is left runs without it.

`--plugin` names libtaidpt_trt_plugin.so (docs/kernels.md), built with kernels for this GPU, and
`--driver` the library that drives it as TensorRT does, without TensorRT:

    c++ -std=c++17 -shared -fPIC -I…/TensorRT/include -I…/cuda/include \
        tests/kernels/plugin_driver.cpp -o libplugin_driver.so -ldl

Parts run in a process of their own (rtx_parts.py); where one takes it down, another goes on with
the rest. Results are kept after every part, in benchmarks/results/ as JSON whose name is the device
and the date. A short table comes last. What there was no time for is named as not run.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "benchmarks"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from gpu_suite import Record, run_parts  # noqa: E402

# What each part needs is imported there; without these none runs.
_NEEDED = ("tensorrt_rtx", "cuda", "torch", "onnx", "onnxruntime")
_SHOWN = ("torch", "onnx", "onnxruntime", "onnxscript", "cuda-bindings", "numpy")
_PART_LIMIT_S = 60.0


def main() -> int:
    """Exit code: 0 all that ran passed (or there is no GPU), 1 something failed."""
    options = _options()
    missing = _missing()
    if missing:
        print(f"TensorRT-RTX on a GPU: not run ({missing})")
        return 0
    machine = _machine()
    path = options.output or _default_path(machine)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = Record(machine, path)
    print(f"{machine['device']}, TensorRT-RTX {machine['tensorrt_rtx']}", flush=True)
    with tempfile.TemporaryDirectory(prefix="taidpt-rtx-") as name:
        work = options.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        _set_environment(options, work)
        run_parts(
            lambda seconds, done: _command(seconds, work, options.only, done),
            60 * options.minutes,
            record,
            _PART_LIMIT_S,
        )
    from rtx_table import lines

    print(f"\n{path}\n" + "\n".join(lines(record.content)))
    return 1 if record.failed() else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--minutes", type=float, default=2.5)
    parser.add_argument("--plugin", type=Path, help="libtaidpt_trt_plugin.so")
    parser.add_argument("--driver", type=Path, help="libplugin_driver.so")
    parser.add_argument("--only", default="", help="only parts whose names hold this word")
    parser.add_argument("--work", type=Path, help="keep bundles and engines here")
    return parser.parse_args()


def _set_environment(options: argparse.Namespace, work: Path) -> None:
    """What the parts' processes inherit: libraries, and a record of engines that goes with them."""
    os.environ["XDG_STATE_HOME"] = str(work / "state")
    os.environ.pop("TAIDPT_PLUGIN", None)
    for name in ("plugin", "driver"):
        given = getattr(options, name)
        os.environ[f"RTX_GPU_{name.upper()}"] = "" if given is None else str(given.resolve())


def _command(seconds: float, work: Path, only: str, done: list[str]) -> list[str]:
    script = ROOT / "benchmarks" / "rtx_parts.py"
    return [sys.executable, str(script), str(seconds), str(work), f"only={only}", *done]


def _missing() -> str:
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    from taidpt.runtime.backends.gpu import gpu_architecture

    return "" if gpu_architecture() is not None else "no GPU, or no driver of one"


def _machine() -> dict[str, Any]:
    import torch

    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    major, minor = torch.cuda.get_device_capability()
    return {
        "device": torch.cuda.get_device_name(),
        "architecture": 10 * major + minor,
        "driver": _driver_version(),
        "tensorrt_rtx": _rtx_version(),
        **{name.replace("-", "_"): _version(name) for name in _SHOWN},
        "python": platform.python_version(),
        "commit": commit or "unknown",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _driver_version() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _rtx_version() -> str:
    """Asked of the package, which may lie on the path without its metadata."""
    code = "import tensorrt_rtx; print(tensorrt_rtx.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or f"does not load: {done.stderr.strip()[-300:]}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _default_path(machine: dict[str, Any]) -> Path:
    device = machine["device"].lower().replace(" ", "-")
    return ROOT / "benchmarks" / "results" / f"rtx-{device}-{machine['date'][:10]}.json"


if __name__ == "__main__":
    sys.exit(main())
