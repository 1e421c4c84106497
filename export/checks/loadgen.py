"""MLPerf's load generator on a tagger: latency of one stream, of eight at once, and throughput.

Source: Reddi et al. 2020, MLPerf Inference Benchmark; the package is `mlcommons-loadgen`.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from taidpt.runtime.errors import BackendError
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["SCENARIOS", "run_loadgen"]

# Scenario → the line of LoadGen's summary that is its result, and our name for it.
SCENARIOS = {
    "SingleStream": ("90.0th percentile latency (ns)", "p90_ms"),
    "MultiStream": ("99.0th percentile latency (ns)", "p99_ms"),
    "Offline": ("Samples per second", "frames_per_s"),
}
_FRAMES = 64  # in memory at once; each is asked for many times
_MOST_A_BATCH = 8


def run_loadgen(tagger: Tagger, seconds: float) -> dict[str, Any] | str:
    """LoadGen's figures on frames of the model's size, already decoded.

    Args:
        tagger: an open bundle.
        seconds: least duration of each scenario; MLPerf's own rules ask for 600.
    Returns:
        Scenario → its figure and whether LoadGen calls it valid; or why there are none.
    Raises:
        BackendError: LoadGen wrote no result.
    """
    if importlib.util.find_spec("mlperf_loadgen") is None:
        return "mlcommons-loadgen is not installed"
    spec = tagger.bundle.manifest.input
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (_FRAMES, *spec.frame_shape), np.uint8)
    return {name: _scenario(name, tagger, frames, seconds) for name in SCENARIOS}


def _scenario(name: str, tagger: Tagger, frames: np.ndarray, seconds: float) -> dict[str, Any]:
    import mlperf_loadgen as lg

    def answer(samples: list[Any]) -> None:
        for at in range(0, len(samples), _MOST_A_BATCH):
            part = samples[at : at + _MOST_A_BATCH]
            tagger.tag_batch(frames[[sample.index for sample in part]])
            lg.QuerySamplesComplete([lg.QuerySampleResponse(one.id, 0, 0) for one in part])

    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, name)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = round(seconds * 1000)
    settings.min_query_count = 1
    # Offline sends one query whose size follows from this guess: one batch too many at most
    settings.offline_expected_qps = _rate(tagger, frames)
    with tempfile.TemporaryDirectory(prefix="taidpt-loadgen-") as folder:
        log = lg.LogSettings()
        log.log_output.outdir = folder
        log.log_output.copy_summary_to_stdout = False
        system = lg.ConstructSUT(answer, lambda: None)
        library = lg.ConstructQSL(_FRAMES, _FRAMES, _nothing, _nothing)
        lg.StartTestWithLogSettings(system, library, settings, log)
        lg.DestroyQSL(library)
        lg.DestroySUT(system)
        return _read(Path(folder, "mlperf_log_summary.txt"), *SCENARIOS[name])


def _nothing(_: object) -> None:
    """Frames are in memory already."""


def _rate(tagger: Tagger, frames: np.ndarray) -> float:
    tagger.tag_batch(frames[:_MOST_A_BATCH])
    begun = time.perf_counter()
    tagger.tag_batch(frames[:_MOST_A_BATCH])
    return _MOST_A_BATCH / (time.perf_counter() - begun)


def _read(summary: Path, line: str, key: str) -> dict[str, Any]:
    pairs = (text.partition(":") for text in summary.read_text("utf-8").splitlines())
    found = {name.strip(): value.strip() for name, _, value in pairs}
    if line not in found:
        raise BackendError(f"LoadGen's summary has no line {line!r}: is this another version?")
    value = float(found[line])
    return {key: value / 1e6 if key.endswith("_ms") else value, "valid": found.get("Result is")}
