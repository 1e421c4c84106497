"""A CSV table: a row a frame, a column a tag."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.events import Interval
from taidpt.runtime.moment import Moment
from taidpt.runtime.sinks.line_file import LineFile

__all__ = ["CsvSink"]

_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


class CsvSink:
    """Writes source, index, time, the tags that are on, and every tag's score."""

    def __init__(self, path: str | Path, append: bool = False) -> None:
        """Open the file anew, or to go on with it.

        Raises:
            InputError: it cannot be written.
        """
        self._file = LineFile(path)
        self._names: tuple[str, ...] = ()

    def write(self, moment: Moment) -> None:
        """Write one frame; the header comes with the first.

        Raises:
            InputError: the file cannot be written, or the frame has other tags than the first.
        """
        names = moment.result.vocabulary.names
        if not self._names:
            self._row("source", "index", "time_s", "on", *map(_cell, names))
            self._names = names
        if names != self._names:
            raise InputError("a table has a column a tag, and the tags have changed; use JSONL")
        time_s = "" if moment.time is None else f"{moment.time:.6f}"
        scores = (f"{score:.6g}" for score in moment.result.scores.tolist())
        frame = moment.frame
        on = _cell("; ".join(moment.on))
        self._row(_cell(frame.source), str(frame.index), time_s, on, *scores)

    def end_source(self, source: str, intervals: Sequence[Interval], end_s: float) -> None:
        """Nothing to do: every row stands alone."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _row(self, *cells: str) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        self._file.write(text.getvalue().encode())


def _cell(text: str) -> str:
    """A spreadsheet must not take a tag's name for a formula."""
    return "'" + text if text.startswith(_FORMULA_SIGNS) else text
