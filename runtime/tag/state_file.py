"""Smoothing and hysteresis in a file, so that a restart continues where a kill interrupted.

A tag that was on before the restart is on after it, without a second "on" event.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import rebase_state
from taidpt.runtime.storage.outputs import write_output
from taidpt.runtime.storage.regular_file import read_regular
from taidpt.runtime.stream.stream import Stream

__all__ = ["StateFile"]

_SCHEMA = 1
# A restart takes seconds anyway; saving once a second spares the flash memory of a device.
_INTERVAL_S = 1.0


class StateFile:
    """Saves a stream's state at most once a second."""

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
        self._saved = time.monotonic()
        self._load()

    def step(self) -> None:
        """Save if a second has passed since the last save."""
        if time.monotonic() - self._saved >= _INTERVAL_S:
            self.save()

    def save(self) -> None:
        """Save now.

        Raises:
            InputError: the file cannot be written.
        """
        stream = self._stream
        document = {
            "schema": _SCHEMA,
            "wall_s": self._wall_clock(),
            "sources": {name: stream.machine(name).save_state() for name in stream.sources},
        }
        write_output(self._path, json.dumps(document).encode())
        self._saved = time.monotonic()

    def _load(self) -> None:
        try:
            document = json.loads(read_regular(self._path))
            away_s = max(self._wall_clock() - float(document["wall_s"]), 0.0)
            sources: Mapping[str, Any] = document["sources"]
            if document["schema"] > _SCHEMA:
                raise InputError(f"{self._path}: written by a newer taidpt; update")
            for name, state in sources.items():
                self._stream.machine(name).load_state(rebase_state(state, away_s))
        except FileNotFoundError:
            return
        except InputError as error:
            raise InputError(f"{self._path}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self._path}: damaged state ({error}); remove it to start without a state"
            ) from None
