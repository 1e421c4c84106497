"""Durations of each stage: the latest thousands of each, and their percentiles."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np

__all__ = ["STAGES", "Profile", "percentile_lines"]

STAGES = ("decode", "wait", "preprocess", "inference", "post", "sinks")
# 100 durations above the 99th percentile, so that it does not depend on one outlier; 480 kB.
_KEPT = 10_000


class Profile:
    """Collects durations by stage, in seconds; several threads may add to it."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {stage: deque(maxlen=_KEPT) for stage in STAGES}
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Add one duration of a stage."""
        with self._lock:
            self._times[stage].append(seconds)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the duration of a `with` block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - begun)

    def percentiles(self) -> dict[str, tuple[float, float, float]]:
        """p50, p95 and p99 in milliseconds of each stage that has durations."""
        with self._lock:
            seen = {stage: np.array(times) * 1e3 for stage, times in self._times.items() if times}
        return {
            stage: tuple(float(value) for value in np.percentile(times, (50, 95, 99)))  # type: ignore[misc]
            for stage, times in seen.items()
        }

    def lines(self) -> list[str]:
        """A table to print."""
        return percentile_lines(self.percentiles())


def percentile_lines(stages: Mapping[str, tuple[float, float, float]]) -> list[str]:
    """A table of p50, p95 and p99 by stage, in milliseconds, to print."""
    head = f"{'milliseconds':<14}{'p50':>9}{'p95':>9}{'p99':>9}"
    rows = [
        f"{stage:<14}{p50:>9.2f}{p95:>9.2f}{p99:>9.2f}" for stage, (p50, p95, p99) in stages.items()
    ]
    return [head, *rows]
