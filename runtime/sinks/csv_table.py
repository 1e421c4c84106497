"""A CSV table: one row per frame, one column per tag."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.printable import printable
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sinks.line_file import LineFile
from taidpt.runtime.stream.moment import Moment

__all__ = ["CsvSink"]

# Where a spreadsheet would see a formula: at the start of the cell, or after a separator, in case
# the table is opened with another separator than ours; behind blanks and quotes, which many
# programs remove; also as full-width signs, which Japanese versions accept.
_FORMULA = re.compile(r"(^|[;,|:])([\s\"'\u200b\ufeff]*)(?=[=+\-@＝＋－＠])")


class CsvSink(Sink):
    """Writes the source, index, time, tags that are on, and the score of every tag."""

    reopens = True

    def __init__(self, path: str | Path, append: bool = False) -> None:
        """Create the file, or with `append` continue it.

        Raises:
            InputError: the file cannot be written.
        """
        self._path, self._file = path, LineFile(path, append)
        self._names: tuple[str, ...] = ()
        has_rows = self._file.is_regular and not self._file.is_empty
        self._old_header = _read_header(path) if has_rows else None

    def write(self, moment: Moment) -> None:
        """Write one frame, and the header before the first.

        Raises:
            InputError: the file cannot be written, or the frame's tags differ from the header.
        """
        names = moment.result.vocabulary.names
        header = ["source", "index", "time_s", "on", *map(_cell, names)]
        if not self._names:
            self._start(header)
            self._names = names
        elif self._file.is_empty:  # emptied or moved away by a rotation
            self._row(*header)
        if names != self._names:
            raise InputError(
                f"{self._path}: a table has one column per tag, and the tags changed; use --jsonl"
            )
        time_s = "" if moment.time is None else f"{moment.time:.6f}"
        scores = (f"{score:.6g}" for score in moment.result.scores.tolist())
        frame = moment.frame
        on = _cell("; ".join(moment.on))
        self._row(_cell(frame.source), str(frame.index), time_s, on, *scores)

    def reopen(self) -> None:
        """Continue in the file that has the name now."""
        self._file.reopen()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _start(self, header: list[str]) -> None:
        if self._old_header is None:
            self._row(*header)
        elif self._old_header != header:
            raise InputError(f"{self._path}: its columns are other tags; name another file")

    def _row(self, *cells: str) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        self._file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def _read_header(path: str | Path) -> list[str]:
    with Path(path).open(newline="", encoding="utf-8", errors="replace") as stream:
        return next(csv.reader(stream), [])


def _cell(text: str) -> str:
    """One line of text, which a spreadsheet does not take for a formula."""
    return _FORMULA.sub(r"\1'\2", printable(text))
