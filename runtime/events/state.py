"""What an event machine remembers of every tag between two frames, and how it is kept in a file."""

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
_FLOATS, _BOOLS = ("smoothed", "since_s", "peak"), ("raw", "on")
# A row a tag; `seen` once it has had a score.
_ROW = np.dtype([*((key, "f8") for key in _FLOATS), *((key, "?") for key in (*_BOOLS, "seen"))])


@dataclass
class TagStates:
    """The tags' states, and the states of tags that were on when they were taken away.

    Attributes:
        names: C tags.
        rows: their states, a record each, [C].
        time_s: of the last frame; NaN before the first.
        leaving: by name, tags that are to go off with the next frame.
    """

    names: tuple[str, ...]
    rows: npt.NDArray[Any]
    time_s: float = math.nan
    leaving: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, names: Sequence[str]) -> TagStates:
        """Nothing seen yet.

        Raises:
            InputError: a tag is named twice.
        """
        if len(set(names)) != len(names):
            raise InputError("the tags of an event machine must differ")
        return cls(tuple(names), np.zeros(len(names), _ROW))

    def retagged(self, names: Sequence[str]) -> TagStates:
        """The same for other tags: those known by name go on, the others begin."""
        new = TagStates.begin(names)
        new.time_s = self.time_s
        place = {name: index for index, name in enumerate(self.names)}
        known = [(at, place[name]) for at, name in enumerate(new.names) if name in place]
        if known:
            to, source = (list(part) for part in zip(*known, strict=True))
            new.rows[to] = self.rows[source]
        new.leaving = dict(self.leaving)
        for index in np.flatnonzero(self.rows["on"]).tolist():
            new.leaving[self.names[index]] = self.rows[index]
        for at, name in enumerate(new.names):
            if name in new.leaving:  # it has not left, or was away between two frames only
                new.rows[at] = new.leaving.pop(name)
        return new

    def to_json(self) -> dict[str, Any]:
        """Everything that the next frames depend on, as JSON values."""
        return {
            "schema": _SCHEMA,
            "names": list(self.names),
            "time_s": None if math.isnan(self.time_s) else self.time_s,
            **{key: self.rows[key].tolist() for key in (*_FLOATS, *_BOOLS, "seen")},
            "leaving": {
                name: {key: float(row[key]) for key in _FLOATS}
                for name, row in self.leaving.items()
            },
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> TagStates:
        """What `to_json` gave; states of versions without `seen` have seen every tag or none.

        Raises:
            InputError: it is of a newer version, or damaged.
        """
        try:
            if state["schema"] > _SCHEMA:
                raise InputError(f"event state of schema {state['schema']}: update taidpt")
            found = cls.begin(tuple(map(str, state["names"])))
            count = len(found.names)
            if state["time_s"] is not None:
                found.time_s = float(state["time_s"])
            for key in (*_FLOATS, *_BOOLS):
                found.rows[key] = float_row(key, state[key], count)
            found.rows["seen"] = state.get("seen", not math.isnan(found.time_s))
            for name, kept in state.get("leaving", {}).items():
                found.leaving[name] = _leaving_row(kept)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"damaged event state ({error}); remove it to begin anew") from None
        return found


def rebase_state(state: Mapping[str, Any], away_s: float) -> dict[str, Any]:
    """A saved state for a clock that begins at 0 again, `away_s` seconds after the last frame."""
    if state["time_s"] is None:
        return dict(state)
    shift = float(state["time_s"]) + away_s
    since = [float(value) - shift for value in state["since_s"]]
    return {**state, "time_s": -away_s, "since_s": since}


def float_row(name: str, value: Any, count: int) -> npt.NDArray[np.float64]:
    """One number for all tags, or one a tag, as a finite float64 row [count].

    Raises:
        InputError: it is neither, or a value is not finite.
    """
    row = np.asarray(value, np.float64)
    if row.shape not in ((), (count,)):
        raise InputError(f"{name} should be one number or {count}, got shape {list(row.shape)}")
    if not np.isfinite(row).all():
        raise InputError(f"{name} holds a value that is not finite")
    return np.array(np.broadcast_to(row, (count,)))


def _leaving_row(kept: Mapping[str, float]) -> Any:
    row = np.zeros(1, _ROW)
    for key in _FLOATS:
        row[key] = float(kept[key])
    for key in (*_BOOLS, "seen"):
        row[key] = True
    return row[0]
