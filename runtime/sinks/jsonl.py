"""JSON lines: one object per frame or event. docs/outputs.md describes the keys."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taidpt.runtime.events.machine import Event
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sinks.line_file import LineFile
from taidpt.runtime.storage.json_reader import parse_json
from taidpt.runtime.storage.stdout import write_stdout
from taidpt.runtime.stream.moment import Moment

__all__ = ["EVENT_SCHEMA", "FRAME_SCHEMA", "EventsSink", "JsonlSink", "event_record"]

FRAME_SCHEMA = "taidpt-frame/1"
EVENT_SCHEMA = "taidpt-event/1"
# Where the last event of each source is looked for in bytes: some thousand lines, so that sources
# that take turns are all found.
_LAST_PART = 1 << 20


class _LineSink(Sink):
    """Writes every line at once, so that a kill loses no more than the line being written."""

    def __init__(self, target: str | Path, append: bool = False) -> None:
        """Create a file, or with `append` continue it; "-" is standard output.

        Raises:
            InputError: the file cannot be written.
        """
        self._file = None if str(target) == "-" else LineFile(target, append)
        self.reopens = self._file is not None
        encoding = "utf-8" if self.reopens else getattr(sys.stdout, "encoding", None) or "ascii"
        self._ascii = not encoding.lower().startswith("utf")

    def write_record(self, record: dict[str, Any]) -> None:
        """Write a record as one line.

        Raises:
            InputError: the disk is full or the file is gone; earlier lines stay valid.
            BrokenPipeError: standard output is a pipe without a reader.
        """
        line = json.dumps(record, ensure_ascii=self._ascii, allow_nan=False) + "\n"
        data = line.encode("utf-8", "backslashreplace")  # lone surrogates as JSON's \udce9
        if self._file is not None:
            self._file.write(data)
        else:
            write_stdout(data.decode())

    def reopen(self) -> None:
        """Continue in the file that has the name now."""
        if self._file is not None:
            self._file.reopen()

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
            "still": moment.still,
            **moment.result.to_dict(self._top),
        }
        self.write_record(record)


class EventsSink(_LineSink):
    """One line per event: a tag went on or off."""

    def __init__(self, target: str | Path, append: bool = False) -> None:
        super().__init__(target, append)
        continues = append and self._file is not None and self._file.is_regular
        self._last_numbers = _last_numbers(Path(target)) if continues else {}

    def write(self, moment: Moment) -> None:
        """Write the events that were decided at this frame."""
        for event in moment.events:
            self.write_record(event_record(moment.frame.source, event))

    def resend(self, source: str, events: Sequence[Event]) -> None:
        """Write those events that the continued file does not hold."""
        for event in events:
            if event.number > self._last_numbers.get(source, 0):
                self.write_record(event_record(source, event))


def _last_numbers(path: Path) -> dict[str, int]:
    """Source → number of its last event in the last part of a file; other lines are ignored."""
    numbers: dict[str, int] = {}
    with path.open("rb") as stream:
        stream.seek(max(stream.seek(0, os.SEEK_END) - _LAST_PART, 0))
        for line in stream:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = parse_json(line)
                numbers[record["source"]] = int(record["number"])
    return numbers


def event_record(source: str, event: Event) -> dict[str, Any]:
    """An event as the JSON values of its line."""
    return {"schema": EVENT_SCHEMA, "source": source, **event.to_dict()}
