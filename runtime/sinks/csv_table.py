"""A CSV table: a row a frame, a column a tag."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Interval
from taidpt.runtime.sinks.line_file import LineFile
from taidpt.runtime.stream.moment import Moment

__all__ = ["CsvSink"]

_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


class CsvSink:
    """Writes source, index, time, the tags that are on, and every tag's score."""

    def __init__(self, path: str | Path, append: bool = False) -> None:
        """Open the file anew, or with `append` to go on with it.

        Raises:
            InputError: it cannot be written.
        """
        self._path, self._file = path, LineFile(path, append)
        self._names: tuple[str, ...] = ()
        self._found = None if self._file.is_empty else _header(path)

    def write(self, moment: Moment) -> None:
        """Write one frame; the header comes with the first.

        Raises:
            InputError: the file cannot be written, or the frame has other tags than the first.
        """
        names = moment.result.vocabulary.names
        if not self._names:
            self._begin(["source", "index", "time_s", "on", *map(_cell, names)])
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

    def _begin(self, header: list[str]) -> None:
        if self._found is None:
            self._row(*header)
        elif self._found != header:
            raise InputError(
                f"{self._path}: has a column a tag, and its tags are others; name another file"
            )

    def _row(self, *cells: str) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        self._file.write(text.getvalue().encode())


def _header(path: str | Path) -> list[str]:
    """The first row of a file that is there."""
    with Path(path).open(newline="", encoding="utf-8", errors="replace") as stream:
        return next(csv.reader(stream), [])


def _cell(text: str) -> str:
    """One line, so that a kill costs one row; and no formula to a spreadsheet."""
    text = " ".join(text.splitlines())
    return "'" + text if text.startswith(_FORMULA_SIGNS) else text
