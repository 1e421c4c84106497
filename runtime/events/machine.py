"""From scores to events: smoothing, hysteresis, shortest durations, and a timeline.

Pure and vectorised over tags: no clock, no thread, no file. The same scores at the same times
give the same events for every batch size, and after a restart from saved state.

For each tag, with score s at time t:
- smoothed score y += (1 − exp(−Δt / smoothing)) · (s − y), starting at the first s;
- raw state: on when y ≥ on threshold, off when y < off threshold, unchanged in between (the
  uncertain band);
- the state changes once the raw state has differed from it for the shortest duration; the event
  carries the time at which the raw state changed and the time of the decision.

The tags may change between two frames (`retag`): tags in both lists keep their state, a new tag
starts at its first s, and a removed tag that is on goes off with the next frame.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.state import TagStates, float_row, rebase_state

__all__ = ["Event", "EventMachine", "EventSettings", "Interval", "rebase_state", "timeline"]

# Rounding of time differences: 0.7 − 0.4 is a little less than 0.3 in floats, by 1e-17 here and
# by less than 1e-9 s for times up to months.
_SLACK_S = 1e-9

FloatRow = npt.NDArray[np.float64]
BoolRow = npt.NDArray[np.bool_]
PerTag = float | Sequence[float] | npt.NDArray[Any]


@dataclass(frozen=True)
class Event:
    """A tag went on or off.

    Attributes:
        time_s: time of the change, in seconds on the source's clock.
        tag: the name of the tag.
        kind: "on" or "off".
        score: the smoothed score at the decision.
        decided_s: time of the decision, later than `time_s` by the shortest duration.
        peak: the highest smoothed score since the tag went on.
        number: counts the events of a source from 1, also over restarts with a saved state.
    """

    time_s: float
    tag: str
    kind: str
    score: float
    decided_s: float
    peak: float
    number: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class EventSettings:
    """Settings of an EventMachine; each is one number for all tags, or one number a tag.

    Attributes:
        on, off: thresholds on the smoothed score, off ≤ on.
        smoothing_s: time constant of the smoothing, in seconds; 0 means no smoothing.
        min_on_s: shorter appearances of a tag are not reported, in seconds.
        min_off_s: shorter gaps do not interrupt a tag, in seconds.
    """

    on: PerTag
    off: PerTag
    smoothing_s: PerTag = 0.0
    min_on_s: PerTag = 0.0
    min_off_s: PerTag = 0.0

    def rows(self, count: int) -> dict[str, FloatRow]:
        """The settings as float64 rows [C].

        Raises:
            InputError: a wrong shape, a negative time, or off above on.
        """
        rows = {name: float_row(name, value, count) for name, value in vars(self).items()}
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
        """Which smoothed scores are in the band off ≤ y < on, bool [C]."""
        settings, smoothed = self._settings, self._now.rows["smoothed"]
        return np.asarray((smoothed >= settings["off"]) & (smoothed < settings["on"]))

    def update(
        self, times_s: Sequence[float] | npt.NDArray[Any], scores: npt.NDArray[Any]
    ) -> list[Event]:
        """Process the scores of some frames, in order.

        Args:
            times_s: N times in seconds, not decreasing, not before the last frame.
            scores: [N, C].
        Returns:
            The events decided by these frames, in order of decision, then of tags.
        Raises:
            InputError: shapes differ, a time decreases, or a value is not finite; the state is
                unchanged then.
        """
        times, rows = self._checked(times_s, scores)
        events: list[Event] = []
        for time_s, row in zip(times.tolist(), rows, strict=True):
            events.extend(self._step(time_s, row))
        return events

    def retag(self, names: Sequence[str], settings: EventSettings) -> None:
        """Continue with other tags or thresholds, starting with the next frame.

        Args:
            names: C tags; tags that existed before, by name, keep their state.
            settings: for these tags.
        Raises:
            InputError: a setting is wrong, or a name occurs twice; the state is unchanged then.
        """
        rows = settings.rows(len(names))
        self._now, self._settings = self._now.retagged(names), rows

    def save_state(self) -> dict[str, Any]:
        """The complete state as JSON values."""
        return self._now.to_json()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; if the tags have changed since, as after `retag`.

        Raises:
            InputError: the state is damaged, or of a newer version; nothing changes then.
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
            raise InputError(f"times must not decrease, got {np.diff(whole).min():g} s in one step")
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
        events = [*self._leave(time_s), *self._events(np.flatnonzero(switched), time_s)]
        first = self._now.events + 1
        self._now.events += len(events)
        return [
            dataclasses.replace(event, number=first + index) for index, event in enumerate(events)
        ]

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
        """Off events of the tags that were removed while they were on."""
        gone, self._now.leaving = self._now.leaving, {}
        return [
            Event(time_s, name, "off", float(row["smoothed"]), time_s, float(row["peak"]))
            for name, row in gone.items()
        ]


@dataclass(frozen=True)
class Interval:
    """An interval in which a tag was on, in seconds; `open` if it had not ended yet."""

    tag: str
    start_s: float
    end_s: float
    peak: float
    open: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self)


def timeline(events: Iterable[Event], end_s: float) -> tuple[Interval, ...]:
    """Pair on and off events into intervals.

    Args:
        events: of one machine, in order.
        end_s: the end of intervals that are still open, in seconds.
    Returns:
        Intervals by start time, then in the order of their decision.
    Raises:
        InputError: an off event without its on event, or two on events in a row.
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
