"""The state of an event machine between two frames, and its form in a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError

__all__ = ["TagStates", "float_row", "rebase_state"]

_SCHEMA = 1
# Scores are below 1,000, and 1e12 seconds are 30,000 years.
_LARGEST = 1e12
_FLOATS, _BOOLS = ("smoothed", "since_s", "peak"), ("raw", "on")
# One record a tag; `seen` is set once it has had a score.
_ROW = np.dtype([*((key, "f8") for key in _FLOATS), *((key, "?") for key in (*_BOOLS, "seen"))])


@dataclass
class TagStates:
    """The states of the tags, and of tags that were on when they were removed.

    Attributes:
        names: C tags.
        rows: their states, C records.
        time_s: seconds of the last frame; NaN before the first.
        leaving: states of the tags that go off with the next frame, by name.
        events: number of events so far.
    """

    names: tuple[str, ...]
    rows: npt.NDArray[Any]
    time_s: float = math.nan
    leaving: dict[str, Any] = field(default_factory=dict)
    events: int = 0

    @classmethod
    def begin(cls, names: Sequence[str]) -> TagStates:
        """The state before the first frame.

        Raises:
            InputError: a name occurs twice.
        """
        if len(set(names)) != len(names):
            raise InputError("the tags of an event machine must differ")
        return cls(tuple(names), np.zeros(len(names), _ROW))

    def retagged(self, names: Sequence[str]) -> TagStates:
        """The state for other tags: those of the same name keep theirs, the others start anew."""
        new = TagStates.begin(names)
        new.time_s, new.events = self.time_s, self.events
        place = {name: index for index, name in enumerate(self.names)}
        known = [(at, place[name]) for at, name in enumerate(new.names) if name in place]
        if known:
            to, source = (list(part) for part in zip(*known, strict=True))
            new.rows[to] = self.rows[source]
        new.leaving = dict(self.leaving)
        for index in np.flatnonzero(self.rows["on"]).tolist():
            new.leaving[self.names[index]] = self.rows[index]
        for at, name in enumerate(new.names):
            if name in new.leaving:  # kept, or removed and added between two frames
                new.rows[at] = new.leaving.pop(name)
        return new

    def to_json(self) -> dict[str, Any]:
        """The complete state as JSON values."""
        return {
            "schema": _SCHEMA,
            "names": list(self.names),
            "time_s": None if math.isnan(self.time_s) else self.time_s,
            "events": self.events,
            **{key: self.rows[key].tolist() for key in (*_FLOATS, *_BOOLS, "seen")},
            "leaving": {
                name: {key: float(row[key]) for key in _FLOATS}
                for name, row in self.leaving.items()
            },
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> TagStates:
        """Read what `to_json` returned; without `seen` (old versions) all tags or none were seen.

        Raises:
            InputError: the state is damaged, or of a newer version.
        """
        try:
            if state["schema"] > _SCHEMA:
                raise InputError(f"event state of schema {state['schema']}: update taidpt")
            states = cls.begin(tuple(map(str, state["names"])))
            states.events = _count(state.get("events", 0))
            if state["time_s"] is not None:
                states.time_s = float(state["time_s"])
            for key in (*_FLOATS, *_BOOLS):
                states.rows[key] = _bounded(key, state[key], len(states.names))
            states.rows["seen"] = state.get("seen", not math.isnan(states.time_s))
            for name, row in state.get("leaving", {}).items():
                states.leaving[name] = _leaving_row(row)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"damaged event state ({error}); remove it to start anew") from None
        return states


def rebase_state(state: Mapping[str, Any], away_s: float) -> dict[str, Any]:
    """Shift a saved state to a clock that restarts at 0, `away_s` seconds after the last frame."""
    if state["time_s"] is None:
        return dict(state)
    shift = float(state["time_s"]) + away_s
    since = [float(value) - shift for value in state["since_s"]]
    return {**state, "time_s": -away_s, "since_s": since}


def float_row(name: str, value: Any, count: int) -> npt.NDArray[np.float64]:
    """Broadcast one number, or check one number a tag: a finite float64 row [count].

    Raises:
        InputError: the shape is neither, or a value is not finite.
    """
    row = np.asarray(value, np.float64)
    if row.shape not in ((), (count,)):
        raise InputError(f"{name} should be one number or {count}, got shape {list(row.shape)}")
    if not np.isfinite(row).all():
        raise InputError(f"{name} holds a value that is not finite")
    return np.array(np.broadcast_to(row, (count,)))


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise InputError(f"the number of events should be a whole number, got {value!r:.40}")
    return value


def _leaving_row(saved: Mapping[str, float]) -> Any:
    row = np.ones(1, _ROW)
    for key in _FLOATS:
        row[key] = _bounded(key, saved[key], 1)
    return row[0]


def _bounded(key: str, value: Any, count: int) -> npt.NDArray[np.float64]:
    """A row of a saved state, whose numbers further arithmetic does not bring to infinity."""
    row = float_row(key, value, count)
    if (np.abs(row) > _LARGEST).any():
        raise InputError(f"{key} holds a value beyond {_LARGEST:g}")
    return row
