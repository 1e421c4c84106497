"""JSON lines: one object per frame or event. docs/outputs.md describes the keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from taidpt.runtime.events.machine import Event
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sinks.line_file import LineFile
from taidpt.runtime.storage.stdout import write_stdout
from taidpt.runtime.stream.moment import Moment

__all__ = ["EVENT_SCHEMA", "FRAME_SCHEMA", "EventsSink", "JsonlSink", "event_record"]

FRAME_SCHEMA = "taidpt-frame/1"
EVENT_SCHEMA = "taidpt-event/1"


class _LineSink(Sink):
    """Writes every line at once, so that a kill loses no more than the line being written."""

    def __init__(self, target: str | Path, append: bool = False) -> None:
        """Create a file, or with `append` continue it; "-" is standard output.

        Raises:
            InputError: the file cannot be written.
        """
        self._file = None if str(target) == "-" else LineFile(target, append)

    def write_record(self, record: dict[str, Any]) -> None:
        """Write a record as one line.

        Raises:
            InputError: the disk is full or the file is gone; earlier lines stay valid.
            BrokenPipeError: standard output is a pipe without a reader.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        if self._file is not None:
            self._file.write(line.encode())
        else:
            write_stdout(line)

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._file is not None:
            self._file.close()


class JsonlSink(_LineSink):
    """One line per frame: all tags, or the `top` best, best score first."""

    def __init__(self, target: str | Path, top: int | None = None, append: bool = False) -> None:
        super().__init__(target, append)
        self._top = top

    def write(self, moment: Moment) -> None:
        """Write one frame."""
        frame = moment.frame
        record = {
            "schema": FRAME_SCHEMA,
            "source": frame.source,
            "index": frame.index,
            "time_s": frame.time_s,
            "on": list(moment.on),
            **moment.result.to_dict(self._top),
        }
        if moment.still:
            record["still"] = True
        self.write_record(record)


class EventsSink(_LineSink):
    """One line per event: a tag went on or off."""

    def write(self, moment: Moment) -> None:
        """Write the events that were decided at this frame."""
        for event in moment.events:
            self.write_record(event_record(moment.frame.source, event))


def event_record(source: str, event: Event) -> dict[str, Any]:
    """An event as the JSON values of its line."""
    return {"schema": EVENT_SCHEMA, "source": source, **event.to_dict()}
