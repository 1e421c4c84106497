"""From scores to events: smoothing by time, hysteresis, least durations, and a timeline.

Pure and vectorised over tags; no clock, no thread, no file. The same scores at the same times
give the same events whatever the batch size, and after a restart from saved state.

For each tag, with score s at time t:
- smoothed score y += (1 − exp(−Δt / smoothing)) · (s − y), beginning at the first s;
- raw state: on when y ≥ on threshold, off when y < off threshold, unchanged between the two
  (the uncertain band);
- the state changes when the raw state has differed from it for its least duration; the event
  carries the time at which the raw state changed, and the time at which it was decided.

The tags may change between two frames (`retag`): those in both lists keep all of this, a new tag
begins at its first s, and one that is on and vanishes goes off with the next frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.state import TagStates, float_row, rebase_state

__all__ = ["Event", "EventMachine", "EventSettings", "Interval", "rebase_state", "timeline"]

_SLACK_S = 1e-9  # 0.7 − 0.4 is a little less than 0.3

FloatRow = npt.NDArray[np.float64]
BoolRow = npt.NDArray[np.bool_]
PerTag = float | Sequence[float] | npt.NDArray[Any]


@dataclass(frozen=True)
class Event:
    """A tag went on or off.

    Attributes:
        time_s: when it did, in the source's seconds.
        tag: its name.
        kind: "on" or "off".
        score: the smoothed score when that was decided.
        decided_s: when it was decided, later than `time_s` by the least duration.
        peak: the highest smoothed score since the tag began to be on.
    """

    time_s: float
    tag: str
    kind: str
    score: float
    decided_s: float
    peak: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "time_s": self.time_s,
            "tag": self.tag,
            "kind": self.kind,
            "score": self.score,
            "decided_s": self.decided_s,
            "peak": self.peak,
        }


@dataclass(frozen=True)
class EventSettings:
    """How scores become events; each value is one number for all tags, or one a tag.

    Attributes:
        on, off: thresholds on the smoothed score, off ≤ on.
        smoothing_s: time constant of the smoothing; 0 smooths nothing.
        min_on_s: a tag that is on for less is not reported.
        min_off_s: a gap of less does not interrupt a tag.
    """

    on: PerTag
    off: PerTag
    smoothing_s: PerTag = 0.0
    min_on_s: PerTag = 0.0
    min_off_s: PerTag = 0.0

    def rows(self, count: int) -> dict[str, FloatRow]:
        """The settings as float64 rows [C].

        Raises:
            InputError: a shape, a sign, or off above on.
        """
        values = {
            "on": self.on,
            "off": self.off,
            "smoothing_s": self.smoothing_s,
            "min_on_s": self.min_on_s,
            "min_off_s": self.min_off_s,
        }
        rows = {name: float_row(name, value, count) for name, value in values.items()}
        if (rows["off"] > rows["on"]).any():
            raise InputError("an off threshold must not exceed its on threshold")
        for name in ("smoothing_s", "min_on_s", "min_off_s"):
            if (rows[name] < 0).any():
                raise InputError(f"{name} must not be negative, got {rows[name].min():g}")
        return rows


class EventMachine:
    """The state of all tags between frames.

    machine = EventMachine(names, EventSettings(on=2.4, off=2.2, smoothing_s=0.5))
    for times, scores in batches:
        for event in machine.update(times, scores): ...
    """

    def __init__(self, names: Sequence[str], settings: EventSettings) -> None:
        self._now = TagStates.begin(names)
        self._settings = settings.rows(len(self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """The tags, in the order of the scores."""
        return self._now.names

    @property
    def smoothed(self) -> FloatRow:
        """The smoothed scores after the last frame, float64 [C]."""
        return np.array(self._now.rows["smoothed"])

    @property
    def on(self) -> BoolRow:
        """Which tags are on, bool [C]."""
        return np.array(self._now.rows["on"])

    @property
    def uncertain(self) -> BoolRow:
        """Which smoothed scores lie between the off and the on threshold, bool [C]."""
        settings, smoothed = self._settings, self._now.rows["smoothed"]
        return np.asarray((smoothed >= settings["off"]) & (smoothed < settings["on"]))

    def update(
        self, times_s: Sequence[float] | npt.NDArray[Any], scores: npt.NDArray[Any]
    ) -> list[Event]:
        """Take the scores of some frames, in order.

        Args:
            times_s: N times in seconds, not falling, not before the last frame's.
            scores: [N, C].
        Returns:
            The events decided by these frames, in order of decision, then of tags.
        Raises:
            InputError: shapes differ, a time falls, or a score or a time is not finite; nothing
                is taken then.
        """
        times, rows = self._checked(times_s, scores)
        events: list[Event] = []
        for time_s, row in zip(times.tolist(), rows, strict=True):
            events.extend(self._step(time_s, row))
        return events

    def retag(self, names: Sequence[str], settings: EventSettings) -> None:
        """Go on with other tags, or other thresholds, from the next frame on.

        Args:
            names: C tags; those that were there before, by name, keep their state.
            settings: for these tags.
        Raises:
            InputError: a setting's shape or sign, or a tag that is named twice; nothing changes.
        """
        rows = settings.rows(len(names))
        self._now, self._settings = self._now.retagged(names), rows

    def save_state(self) -> dict[str, Any]:
        """Everything that the next frames depend on, as JSON values."""
        return self._now.to_json()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `save_state` was called, by now perhaps with other tags, as after `retag`.

        Raises:
            InputError: it is the state of a newer version, or damaged; nothing changes.
        """
        self._now = TagStates.from_json(state).retagged(self.names)

    def _checked(
        self, times_s: Sequence[float] | npt.NDArray[Any], scores: npt.NDArray[Any]
    ) -> tuple[FloatRow, FloatRow]:
        times = np.asarray(times_s, np.float64)
        rows = np.asarray(scores, np.float64)
        if times.ndim != 1 or rows.shape != (len(times), len(self.names)):
            raise InputError(
                f"expected N times and scores [N, {len(self.names)}], got "
                f"{list(times.shape)} and {list(rows.shape)}"
            )
        if not (np.isfinite(times).all() and np.isfinite(rows).all()):
            raise InputError("a time or a score is not finite")
        last_s = self._now.time_s
        whole = times if math.isnan(last_s) else np.concatenate(([last_s], times))
        if (np.diff(whole) < 0).any():
            raise InputError("times fall; a source's clock must be mended before its events")
        return times, rows

    def _step(self, time_s: float, scores: FloatRow) -> list[Event]:
        settings, rows = self._settings, self._now.rows
        was_active = rows["raw"] | rows["on"]
        y = self._smooth(time_s, scores)
        raw = (y >= settings["on"]) | (rows["raw"] & (y >= settings["off"]))
        rows["since_s"] = np.where(raw != rows["raw"], time_s, rows["since_s"])
        held = time_s - rows["since_s"] + _SLACK_S
        needed = np.where(raw, settings["min_on_s"], settings["min_off_s"])
        switched = (raw != rows["on"]) & (held >= needed)
        active = raw | rows["on"]
        rows["peak"] = np.where(active & was_active, np.maximum(rows["peak"], y), y)
        rows["raw"], rows["smoothed"], self._now.time_s = raw, y, time_s
        rows["on"] = np.where(switched, raw, rows["on"])
        rows["seen"] = True
        return [*self._leave(time_s), *self._events(np.flatnonzero(switched), time_s)]

    def _smooth(self, time_s: float, scores: FloatRow) -> FloatRow:
        rows = self._now.rows
        if math.isnan(self._now.time_s):
            return np.array(scores)
        constants = self._settings["smoothing_s"]
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = -np.expm1(-(time_s - self._now.time_s) / constants)
        moved = rows["smoothed"] + weight * (scores - rows["smoothed"])
        return np.where((constants > 0) & rows["seen"], moved, scores)

    def _events(self, switched: npt.NDArray[np.int64], time_s: float) -> list[Event]:
        rows = self._now.rows
        return [
            Event(
                time_s=float(rows["since_s"][index]),
                tag=self.names[index],
                kind="on" if rows["on"][index] else "off",
                score=float(rows["smoothed"][index]),
                decided_s=time_s,
                peak=float(rows["peak"][index]),
            )
            for index in switched.tolist()
        ]

    def _leave(self, time_s: float) -> list[Event]:
        """Tags that were taken away while they were on end here."""
        gone, self._now.leaving = self._now.leaving, {}
        return [
            Event(time_s, name, "off", float(row["smoothed"]), time_s, float(row["peak"]))
            for name, row in gone.items()
        ]


@dataclass(frozen=True)
class Interval:
    """A stretch of time in which a tag was on; `open` when it had not ended yet."""

    tag: str
    start_s: float
    end_s: float
    peak: float
    open: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "tag": self.tag,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "peak": self.peak,
            "open": self.open,
        }


def timeline(events: Iterable[Event], end_s: float) -> tuple[Interval, ...]:
    """Pair on and off events into intervals.

    Args:
        events: from one machine, in the order in which they came.
        end_s: where an interval that is still open is cut.
    Returns:
        Intervals by start time, then in the order of their decision.
    Raises:
        InputError: an off without its on, or an on while on.
    """
    begun: dict[str, Event] = {}
    intervals: list[Interval] = []
    for event in events:
        if (event.kind == "on") == (event.tag in begun):
            raise InputError(f"the events of {event.tag!r} do not alternate between on and off")
        if event.kind == "on":
            begun[event.tag] = event
        else:
            start = begun.pop(event.tag)
            intervals.append(Interval(event.tag, start.time_s, event.time_s, event.peak))
    intervals.extend(
        Interval(event.tag, event.time_s, max(end_s, event.time_s), event.peak, open=True)
        for event in begun.values()
    )
    return tuple(sorted(intervals, key=lambda interval: interval.start_s))
