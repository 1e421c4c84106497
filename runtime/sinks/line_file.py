"""A file of whole lines, also after a full disk or a kill."""

from __future__ import annotations

import contextlib
from io import FileIO
from pathlib import Path

from taidpt.runtime.errors import InputError

__all__ = ["LineFile"]

_BLOCK = 1 << 16


class LineFile:
    """Appends lines without a buffer; a line that does not fit on the disk is taken back."""

    def __init__(self, path: str | Path, append: bool = False) -> None:
        """Create the file, or with `append` continue after its last whole line.

        Raises:
            InputError: the file cannot be written.
        """
        self._path = str(path)
        self._whole = 0
        try:
            self._stream = FileIO(self._path, "a+" if append else "w")
            if append and self._stream.seekable():
                self._whole = _cut_last_line(self._stream)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None

    @property
    def is_empty(self) -> bool:
        """Whether the file has no line yet."""
        return self._whole == 0

    def write(self, line: bytes) -> None:
        """Write one line.

        Raises:
            InputError: the line does not fit; the file ends with the line before.
            BrokenPipeError: the file is a pipe without a reader.
        """
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._stream.write(rest) or 0 :]
        except BrokenPipeError:
            raise
        except OSError as error:
            with contextlib.suppress(OSError):  # a device or a pipe has no length to cut
                self._stream.truncate(self._whole)
            raise InputError(
                f"{self._path}: cannot be written: {error.strerror}; what was written is whole"
            ) from None
        self._whole += len(line)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._stream.close()


def _cut_last_line(stream: FileIO) -> int:
    """Cut the rest of a line that a kill left at the end; return the length in bytes."""
    end = stream.seek(0, 2)
    position = end
    while position > 0:
        begin = max(position - _BLOCK, 0)
        stream.seek(begin)
        found = stream.read(position - begin).rfind(b"\n")
        if found >= 0:
            position = begin + found + 1
            break
        position = begin
    if position < end:
        stream.truncate(position)
    stream.seek(position)
    return position
