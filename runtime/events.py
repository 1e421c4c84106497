"""From scores to events: smoothing by time, hysteresis, least durations, and a timeline.

Pure and vectorised over tags; no clock, no thread, no file. The same scores at the same times
give the same events whatever the batch size, and after a restart from saved state.

For each tag, with score s at time t:
- smoothed score y += (1 − exp(−Δt / smoothing)) · (s − y), beginning at the first s;
- raw state: on when y ≥ on threshold, off when y < off threshold, unchanged between the two
  (the uncertain band);
- the state changes when the raw state has differed from it for its least duration; the event
  carries the time at which the raw state changed, and the time at which it was decided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError

__all__ = ["Event", "EventMachine", "EventSettings", "Interval", "rebase_state", "timeline"]

_STATE_SCHEMA = 1
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
        rows = {name: _row(name, value, count) for name, value in values.items()}
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
        self.names = tuple(names)
        count = len(self.names)
        self._settings = settings.rows(count)
        self._time = math.nan
        self._smoothed: FloatRow = np.zeros(count)
        self._raw: BoolRow = np.zeros(count, bool)
        self._state: BoolRow = np.zeros(count, bool)
        self._since: FloatRow = np.zeros(count)
        self._peak: FloatRow = np.zeros(count)

    @property
    def smoothed(self) -> FloatRow:
        """The smoothed scores after the last frame, float64 [C]."""
        return np.array(self._smoothed)

    @property
    def on(self) -> BoolRow:
        """Which tags are on, bool [C]."""
        return np.array(self._state)

    @property
    def uncertain(self) -> BoolRow:
        """Which smoothed scores lie between the off and the on threshold, bool [C]."""
        settings = self._settings
        return np.asarray((self._smoothed >= settings["off"]) & (self._smoothed < settings["on"]))

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

    def save_state(self) -> dict[str, Any]:
        """Everything that the next frames depend on, as JSON values."""
        return {
            "schema": _STATE_SCHEMA,
            "names": list(self.names),
            "time_s": None if math.isnan(self._time) else self._time,
            "smoothed": self._smoothed.tolist(),
            "raw": self._raw.tolist(),
            "on": self._state.tolist(),
            "since_s": self._since.tolist(),
            "peak": self._peak.tolist(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `save_state` was called.

        Raises:
            InputError: it is the state of other tags, of a newer version, or damaged.
        """
        count = len(self.names)
        try:
            if state["schema"] > _STATE_SCHEMA:
                raise InputError(f"event state of schema {state['schema']}: update taidpt")
            if tuple(state["names"]) != self.names:
                raise InputError("event state of other tags; remove it to begin anew")
            floats = [_row(key, state[key], count) for key in ("smoothed", "since_s", "peak")]
            bools = [_row(key, state[key], count).astype(bool) for key in ("raw", "on")]
            time_s = math.nan if state["time_s"] is None else float(state["time_s"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"damaged event state ({error}); remove it to begin anew") from None
        self._smoothed, self._since, self._peak = floats
        self._raw, self._state = bools
        self._time = time_s

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
        whole = times if math.isnan(self._time) else np.concatenate(([self._time], times))
        if (np.diff(whole) < 0).any():
            raise InputError("times fall; a source's clock must be mended before its events")
        return times, rows

    def _step(self, time_s: float, scores: FloatRow) -> list[Event]:
        settings = self._settings
        was_active = self._raw | self._state
        y = self._smooth(time_s, scores)
        raw = (y >= settings["on"]) | (self._raw & (y >= settings["off"]))
        self._since = np.where(raw != self._raw, time_s, self._since)
        held = time_s - self._since + _SLACK_S
        needed = np.where(raw, settings["min_on_s"], settings["min_off_s"])
        switched = (raw != self._state) & (held >= needed)
        active = raw | self._state
        self._peak = np.where(active & was_active, np.maximum(self._peak, y), y)
        self._raw, self._smoothed, self._time = raw, y, time_s
        self._state = np.where(switched, raw, self._state)
        return [self._event(int(index), time_s) for index in np.flatnonzero(switched)]

    def _smooth(self, time_s: float, scores: FloatRow) -> FloatRow:
        if math.isnan(self._time):
            return np.array(scores)
        constants = self._settings["smoothing_s"]
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = -np.expm1(-(time_s - self._time) / constants)
        moved = self._smoothed + weight * (scores - self._smoothed)
        return np.where(constants > 0, moved, scores)

    def _event(self, index: int, time_s: float) -> Event:
        return Event(
            time_s=float(self._since[index]),
            tag=self.names[index],
            kind="on" if self._state[index] else "off",
            score=float(self._smoothed[index]),
            decided_s=time_s,
            peak=float(self._peak[index]),
        )


def rebase_state(state: Mapping[str, Any], away_s: float) -> dict[str, Any]:
    """A saved state for a clock that begins at 0 again, `away_s` seconds after the last frame."""
    if state["time_s"] is None:
        return dict(state)
    shift = float(state["time_s"]) + away_s
    since = [float(value) - shift for value in state["since_s"]]
    return {**state, "time_s": -away_s, "since_s": since}


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


def _row(name: str, value: Any, count: int) -> FloatRow:
    row = np.asarray(value, np.float64)
    if row.shape not in ((), (count,)):
        raise InputError(f"{name} should be one number or {count}, got shape {list(row.shape)}")
    if not np.isfinite(row).all():
        raise InputError(f"{name} holds a value that is not finite")
    return np.array(np.broadcast_to(row, (count,)))
