"""What the parts of rtx_gpu.py share: bundles and engines, comparisons, and times in turn."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.export.engines.in_bundle import add_engine
from taidpt.export.precision.request import EngineOptions, EngineRequest
from taidpt.export.replace_head import rehead
from taidpt.progress import SilentProgress
from taidpt.runtime import Bundle, Tagger

__all__ = [
    "COUNTS",
    "FLAVOUR",
    "TOP_K",
    "NotRunError",
    "Work",
    "differences",
    "frames_of",
    "library",
    "milliseconds",
    "open_pair",
    "runner_of",
    "timed",
]

FLAVOUR = "tensorrt-rtx"
CLASSES = 80
TOP_K = 20
COUNTS = (20, 80, 320, 1000, 5000, 8192)  # an engine takes 1 to 8,192 tags
_BATCH = (1, 1, 8)
_WORKSPACE = 2 << 30
_WARM_UP = 5
_QUIET = SilentProgress()
Arrays = Mapping[str, npt.NDArray[Any]]


class NotRunError(Exception):
    """Why a part has nothing to say here."""


class Work:
    """A folder of bundles and engines, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, name: str, value: object) -> None:
        """Keep something for the parts that come later, in another process maybe."""
        (self.folder / f"{name}.json").write_text(json.dumps(value), "utf-8")

    def noted(self, name: str) -> Any:
        """What was kept under a name; None where nothing was."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def bundle(self, kind: str) -> Path:
        """A bundle of RN50 with random weights.

        Args:
            kind: "constant", "input", or "best": an input too, with the best `TOP_K` scores out.
        """
        path = self.folder / f"{kind}.taidpt"
        if (path / "manifest.json").is_file():
            return path
        if kind == "constant":
            from tagger_overhead import make_bundle

            return Path(shutil.copytree(make_bundle(self.folder, CLASSES), path))
        top_k = TOP_K if kind == "best" else None
        return rehead(self.bundle("constant"), path, "input", top_k, _QUIET).path

    def engine(self, kind: str, precision: str, mark: str = "") -> tuple[Path, dict[str, Any]]:
        """A bundle with an engine of one precision, and how that was built and verified.

        Args:
            kind: see `bundle`.
            mark: tells engines apart that the environment makes different.
        Raises:
            NotRunError: TensorRT-RTX does not run on this GPU; what it says.
        """
        self.require_rtx()
        path = self.folder / f"{kind}-{precision}{mark}.taidpt"
        if not path.is_dir():
            shutil.copytree(self.bundle(kind), path)
        options = EngineOptions(precision, _BATCH, _WORKSPACE, FLAVOUR)
        start = time.perf_counter()
        made = add_engine(path, EngineRequest(options, force=True), _QUIET)
        seconds = time.perf_counter() - start
        report = json.loads(made.path.with_suffix(".parity.json").read_bytes())
        return path, {
            "graph_and_engine_s": round(seconds, 2),
            "fresh": made.fresh,
            "megabytes": round(made.path.stat().st_size / 1e6, 1),
            "verified": made.verified,
            "reason": made.reason,
            "passed": report["passed"],
            "least_centred_cosine": {
                name: entry["minimum"] for name, entry in report["outputs"].items()
            },
        }

    def require_rtx(self) -> None:
        """Raise NotRunError where TensorRT-RTX refused the small engine that names no target."""
        outcome = (self.noted("targets") or {}).get("none", "")
        if outcome.startswith("refused"):
            raise NotRunError(f"TensorRT-RTX runs no engine on this GPU: {outcome[:500]}")


def library(name: str) -> Path:
    """A library that the command line names: "plugin" or "driver".

    Raises:
        NotRunError: it names none.
    """
    path = os.environ.get(f"RTX_GPU_{name.upper()}", "")
    if not path:
        raise NotRunError(f"--{name} names no library")
    return Path(path)


def frames_of(bundle: Bundle, count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random frames of the model's size, [count, H, W, 3]."""
    shape = (count, *bundle.manifest.input.frame_shape)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def differences(found: Arrays, expected: Arrays) -> dict[str, float]:
    """The largest absolute difference of each output; NaN counts as infinite."""
    largest = {}
    for name, values in expected.items():
        difference = np.abs(found[name].astype(np.float64) - values.astype(np.float64))
        largest[name] = float(np.nan_to_num(difference, nan=np.inf).max())
    return largest


def timed(work: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def milliseconds(sides: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    """Run the sides in turn: p20, p50 and p80 of each, and its p50 over that of the first."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(_WARM_UP + repeats):
        for name, work in sides.items():
            value = timed(work)
            if index >= _WARM_UP:
                times[name].append(value)
    base = statistics.median(next(iter(times.values())))
    return {
        name: {
            **{f"p{share}": float(np.percentile(values, share)) for share in (20, 50, 80)},
            "ratio": statistics.median(values) / base,
            "n": len(values),
        }
        for name, values in times.items()
    }


def open_pair(engine: Path, graph: Path) -> tuple[Tagger, Tagger]:
    """The engine's tagger, and ONNX Runtime's on the CPU for the truth."""
    return Tagger.load(engine, device=FLAVOUR), Tagger.load(graph, device="cpu")


def runner_of(tagger: Tagger) -> Any:
    """What holds the engine's memory and graphs, of a tagger that has run."""
    return tagger.backend._runner  # type: ignore[attr-defined]
