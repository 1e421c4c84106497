"""A file of whole lines, also after a full disk, a kill, or a rotation of logs."""

from __future__ import annotations

import contextlib
import os
import stat
from io import FileIO
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.atomic import lock_file

__all__ = ["LineFile"]

_BLOCK = 1 << 16


class LineFile:
    """Appends lines without a buffer; a line that does not fit on the disk is taken back.

    A regular file has one writer: it is locked until it is closed. Lines are appended wherever the
    file ends, so that it may be emptied in place (logrotate's `copytruncate`).
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        """Create or empty the file, or with `append` continue after its last whole line.

        Raises:
            InputError: the file cannot be written, or another process writes to it.
        """
        self._path = os.fspath(path)
        self._stream = self._open(append)

    @property
    def is_empty(self) -> bool:
        """Whether a regular file has no line; a device or a pipe is never empty."""
        status = os.fstat(self._stream.fileno())
        return stat.S_ISREG(status.st_mode) and status.st_size == 0

    @property
    def is_regular(self) -> bool:
        """Whether this is a regular file and not a device or a pipe."""
        return stat.S_ISREG(os.fstat(self._stream.fileno()).st_mode)

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
                size = os.fstat(self._stream.fileno()).st_size
                self._stream.truncate(max(size - (len(line) - len(rest)), 0))
            raise InputError(
                f"{self._path}: cannot be written: {error.strerror}; what was written is whole"
            ) from None

    def reopen(self) -> None:
        """Continue in the file that has the name now, after the old one was moved away.

        Raises:
            InputError: the file cannot be written.
        """
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(Path(self._path).stat(), os.fstat(self._stream.fileno())):
                return
        moved, self._stream = self._stream, self._open(append=True)
        moved.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._stream.close()

    def _open(self, append: bool) -> FileIO:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            stream = FileIO(os.open(self._path, flags, 0o666), "w")
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {error.strerror}") from None
        try:
            if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                if lock_file(stream.fileno(), wait=False) is False:
                    raise InputError(
                        f"{self._path}: another output or process writes to it; name another file"
                    )
                stream.truncate(_whole_length(self._path) if append else 0)
        except OSError as error:
            stream.close()
            raise InputError(f"{self._path}: cannot be written: {error.strerror}") from None
        except BaseException:
            stream.close()
            raise
        return stream


def _whole_length(path: str) -> int:
    """The length up to the last line's end, in bytes; a kill may leave a part of a line."""
    with open(path, "rb") as stream:  # noqa: PTH123 - the path may be a plain string
        position = stream.seek(0, os.SEEK_END)
        while position > 0:
            begin = max(position - _BLOCK, 0)
            stream.seek(begin)
            found = stream.read(position - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            position = begin
    return 0
