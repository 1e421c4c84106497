"""The scores of the last hour, one row a second, to show what another threshold would have done."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

__all__ = ["ScoreHistory"]

# One row a second for an hour. A bank of thousands of tags keeps fewer rows, at a longer distance:
# 16 MB a camera hold 80 tags at full detail, and 20,000 tags at one row in 18 seconds.
_SPAN_S, _MOST_BYTES = 3600.0, 16 << 20


class ScoreHistory:
    """Smoothed scores of one camera; written by one thread and read by any."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._rows: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._times: npt.NDArray[np.float64] = np.empty(0)
        self._next = 0
        self._due_s = -np.inf
        self._lock = threading.Lock()

    def wants(self, time_s: float) -> bool:
        """Whether the next row is due."""
        return time_s >= self._due_s

    def add(self, time_s: float, names: tuple[str, ...], scores: npt.NDArray[np.floating]) -> None:
        """Add a row.

        Args:
            time_s: seconds on the camera's clock.
            names: C tags. When they change, tags that stay keep their past.
            scores: smoothed scores [C].
        """
        with self._lock:
            if names is not self._names and names != self._names:
                self._rename(names)
            self._names = names
            size = len(self._rows)
            self._rows[self._next % size] = scores
            self._times[self._next % size] = time_s
            self._next += 1
            self._due_s = time_s + _SPAN_S / size

    def scores(self, tag: str) -> npt.NDArray[np.float32]:
        """The scores of a tag in the last hour, float32 [N], in no order; empty if unknown."""
        with self._lock:
            if tag not in self._names or not self._next:
                return np.empty(0, np.float32)
            last_s = self._times[(self._next - 1) % len(self._times)]
            column = self._rows[:, self._names.index(tag)]
            seen = np.isfinite(column) & (self._times > last_s - _SPAN_S)
            return np.asarray(column[seen])

    def _rename(self, names: tuple[str, ...]) -> None:
        size = int(min(_SPAN_S, max(_MOST_BYTES // (4 * len(names)), 60)))
        rows = np.full((size, len(names)), np.nan, np.float32)
        times = np.full(size, -np.inf)
        if size == len(self._rows):
            place = {name: index for index, name in enumerate(self._names)}
            known = [(at, place[name]) for at, name in enumerate(names) if name in place]
            if known:
                to, source = (list(part) for part in zip(*known, strict=True))
                rows[:, to] = self._rows[:, source]
            times = self._times
        else:
            self._next = 0
        self._rows, self._times = rows, times
