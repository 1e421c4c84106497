"""Smoothing and hysteresis in a file, so that a restart continues where a kill interrupted.

A tag that was on before the restart is on after it, without a second "on" event. The state is
saved before the events that it implies are written, together with them: after a kill between the
two, `unwritten` holds events that no output may have. They keep their numbers, so that a reader
can drop those that it has already.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Event, rebase_state
from taidpt.runtime.storage.json_reader import parse_json
from taidpt.runtime.storage.outputs import write_output
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.stream.stream import Stream

__all__ = ["StateFile"]

_SCHEMA = 1
# A restart takes seconds anyway; saving once a second spares the flash memory of a device.
_INTERVAL_S = 1.0
# A state has some numbers a tag: 20,000 tags fit.
_LARGEST = 64 << 20
# JSON types of an event's fields.
_KINDS: dict[str, tuple[type, ...]] = {"float": (int, float), "str": (str,), "int": (int,)}


class StateFile:
    """Saves a stream's state with its events, and otherwise at most once a second.

    Attributes:
        unwritten: source → events of the file that may not have been written before a kill.
    """

    def __init__(
        self, path: str | Path, stream: Stream, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """Load the file into the stream, before its first frame.

        Args:
            path: the file; it may be missing.
            stream: a live stream that has not started.
            wall_clock: seconds since 1970; measures how long the tagger was not running.
        Raises:
            InputError: the file is damaged. A file of other tags is valid: tags match by name.
        """
        self._path, self._stream, self._wall_clock = Path(path), stream, wall_clock
        self._saved_s = time.monotonic()
        self.unwritten: dict[str, list[Event]] = {}
        self._load()

    def before(self, moment: Moment) -> None:
        """Save before the events of a moment are written, if it has some."""
        if moment.events:
            self.save({moment.frame.source: moment.events})

    def after(self, moment: Moment) -> None:
        """Save after the events are written, or if a second has passed since the last save."""
        if moment.events or time.monotonic() - self._saved_s >= _INTERVAL_S:
            self.save()

    def save(self, unwritten: Mapping[str, Sequence[Event]] | None = None) -> None:
        """Save now.

        Args:
            unwritten: source → events that are about to be written.
        Raises:
            InputError: the file cannot be written.
        """
        stream = self._stream
        document = {
            "schema": _SCHEMA,
            "wall_s": self._wall_clock(),
            "sources": {name: stream.machine(name).save_state() for name in stream.sources},
            "unwritten": {
                name: [event.to_dict() for event in events]
                for name, events in (unwritten or {}).items()
            },
        }
        write_output(self._path, json.dumps(document).encode())
        self._saved_s = time.monotonic()

    def _load(self) -> None:
        try:
            if not self._path.exists():
                return
            if not self._path.is_file():
                raise InputError("not a regular file")
            if self._path.stat().st_size > _LARGEST:
                raise InputError(f"larger than {_LARGEST >> 20} MiB, so no state of a tagger")
            document = parse_json(self._path.read_bytes())
            away_s = max(self._wall_clock() - float(document["wall_s"]), 0.0)
            if document["schema"] > _SCHEMA:
                raise InputError("written by a newer taidpt; update")
            for name, state in document["sources"].items():
                self._stream.machine(name).load_state(rebase_state(state, away_s))
            for name, events in document.get("unwritten", {}).items():
                self.unwritten[name] = [_event(event) for event in events]
        except InputError as error:
            raise InputError(f"{self._path}: {error}") from None
        except (OSError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError) as e:
            reason = f"{type(e).__name__}: {e}"[:100]
            raise InputError(
                f"{self._path}: damaged state ({reason}); remove it to start without one"
            ) from None


def _event(values: Mapping[str, Any]) -> Event:
    """An event as `Event.to_dict` gave it; raises TypeError or ValueError if it is not one."""
    for field in dataclasses.fields(Event):
        value = values[field.name]
        if not isinstance(value, _KINDS[str(field.type)]) or value in (math.inf, -math.inf):
            raise TypeError(f"{field.name} of an event")
        if value != value:  # NaN, which JSON lines cannot hold
            raise ValueError(f"{field.name} of an event")
    return Event(**values)
