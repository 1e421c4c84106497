"""WebVTT and SRT subtitles: the tags that are on, for any video player."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Interval
from taidpt.runtime.printable import printable
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sinks.line_file import LineFile
from taidpt.runtime.stream.moment import Moment

__all__ = ["Cue", "SubtitleSink", "cues"]


@dataclass(frozen=True)
class Cue:
    """A span of time in which the same tags are on."""

    start_s: float
    end_s: float
    tags: tuple[str, ...]


def cues(intervals: Sequence[Interval]) -> list[Cue]:
    """Cut overlapping intervals into spans that do not overlap, tags in order of appearance."""
    edges = sorted({edge for item in intervals for edge in (item.start_s, item.end_s)})
    spans = []
    for start_s, end_s in itertools.pairwise(edges):
        on = [item.tag for item in intervals if item.start_s <= start_s and item.end_s >= end_s]
        if on:
            spans.append(Cue(start_s, end_s, tuple(dict.fromkeys(on))))
    return spans


class SubtitleSink(Sink):
    """One subtitle file of one video, written when the video ends."""

    def __init__(self, path: str | Path, form: str) -> None:
        """Create the file; it is valid and empty at once.

        Args:
            path: the file.
            form: "vtt" or "srt".
        Raises:
            InputError: the file cannot be written.
        """
        self._path, self._form = path, form
        self._file = LineFile(path)
        self._source: str | None = None
        if form == "vtt":
            self._file.write(b"WEBVTT\n\n")

    def write(self, moment: Moment) -> None:
        """Check that all frames have times and come from one source.

        Raises:
            InputError: they do not.
        """
        if moment.time is None:
            raise InputError(f"{self._path}: subtitles need a video; a picture has no time")
        if self._source not in (None, moment.frame.source):
            raise InputError(f"{self._path}: subtitles need exactly one source")
        self._source = moment.frame.source

    def end_source(self, source: str, intervals: Sequence[Interval], end_s: float) -> None:
        """Write the cues."""
        for number, cue in enumerate(cues(intervals), start=1):
            self._file.write(self._text(number, cue).encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _text(self, number: int, cue: Cue) -> str:
        mark = "." if self._form == "vtt" else ","
        times = f"{_stamp(cue.start_s, mark)} --> {_stamp(cue.end_s, mark)}"
        text = ", ".join(" ".join(printable(tag).split()) for tag in cue.tags)
        if self._form == "vtt":
            text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        else:  # SRT has no escapes
            text = text.replace("<", "‹").replace(">", "›")
        return f"{number}\n{times}\n{text}\n\n"


def _stamp(seconds: float, mark: str) -> str:
    milliseconds = max(round(seconds * 1000), 0)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"
