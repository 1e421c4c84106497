"""`taidpt report`: one JSON of what a board is, how fast a bundle runs on it, and how right.

It holds no host name, path, address or serial number, so that it can be shown to anyone.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from taidpt import __version__
from taidpt.export.checks.doctor import examine, package_version
from taidpt.export.checks.loadgen import run_loadgen
from taidpt.export.checks.verify import VerifyOptions, verify
from taidpt.runtime.bench.baseline import open_baseline
from taidpt.runtime.bench.bench import bench_report, run_bench
from taidpt.runtime.measuring.power import PowerMeter
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["BATCHES", "SCHEMA", "board_name", "board_report", "temperatures"]

SCHEMA = 1
BATCHES = (1, 8)
_DEVICE_TREE = Path("/proc/device-tree/model")
_PROCESSOR = Path("/proc/cpuinfo")
_THERMAL = Path("/sys/class/thermal")
_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt_rtx", "av")


def board_report(
    bundle: Path, batches: Sequence[int], seconds: float, **options: Any
) -> dict[str, Any]:
    """Measure a bundle here and describe the board.

    Args:
        bundle: the bundle.
        batches: batch sizes of the benchmark.
        seconds: time for each measurement.
        options: of `Tagger.load`: device, threads and the like.
    Returns:
        JSON values: `board`, `versions`, `findings` of `taidpt doctor`, `verify`, `bench`,
        `loadgen` (or why not), `watts`, and `celsius` before and after.
    Raises:
        TaidptError: the bundle is damaged or cannot run here.
    """
    parity = verify(bundle, VerifyOptions(torch="no"))
    with Tagger.load(bundle, **options) as tagger, PowerMeter() as meter:
        before = temperatures()
        baseline = open_baseline(tagger)
        speed = bench_report(tagger, baseline, run_bench(tagger, baseline, batches, seconds))
        loadgen = run_loadgen(tagger, seconds)
        after = temperatures()
    return {
        "schema": SCHEMA,
        "kind": "taidpt-board",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "board": board_name(),
        "versions": _versions(),
        "findings": [{"what": f.what, "state": f.state} for f in examine() if f.good is not None],
        "verify": replace(parity, bundle=bundle.name).to_json(),
        "bench": speed,
        "loadgen": loadgen,
        "watts": meter.percentiles(),
        "celsius": {"before": before, "after": after},
    }


def board_name(device_tree: Path = _DEVICE_TREE, processor: Path = _PROCESSOR) -> str:
    """What the firmware calls the board, or the processor's name."""
    if device_tree.is_file():
        return device_tree.read_text("utf-8").strip("\0\n ")
    lines = processor.read_text("utf-8").splitlines() if processor.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def temperatures(thermal: Path = _THERMAL) -> dict[str, float]:
    """Degrees Celsius by the name of the thermal zone; zones that cannot be read are left out."""
    found = {}
    for zone in sorted(thermal.glob("thermal_zone*")):
        try:
            name = (zone / "type").read_text("utf-8").strip()
            found[name] = int((zone / "temp").read_text("utf-8")) / 1000
        except (OSError, ValueError):  # switched off: reading it fails
            continue
    return found


def _versions() -> dict[str, str]:
    installed = {package: package_version(package) for package in _PACKAGES}
    own = {"taidpt": __version__, "python": platform.python_version()}
    return own | {package: version for package, version in installed.items() if version}
