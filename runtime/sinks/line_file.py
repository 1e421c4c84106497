"""A file that holds whole lines only, whatever the disk does."""

from __future__ import annotations

import contextlib
from io import FileIO
from pathlib import Path

from taidpt.runtime.errors import InputError

__all__ = ["LineFile"]


class LineFile:
    """Appends lines without a buffer; a line that does not fit on the disk is taken back."""

    def __init__(self, path: str | Path) -> None:
        """Open the file anew.

        Raises:
            InputError: it cannot be written.
        """
        self._path = str(path)
        self._whole = 0
        try:
            self._stream = FileIO(self._path, "w")
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None

    def write(self, line: bytes) -> None:
        """Write one line.

        Raises:
            InputError: it could not be written whole; the file ends with the line before.
            BrokenPipeError: it is a pipe that nobody reads.
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
