"""Standard output that may be closed, full, or a broken pipe."""

from __future__ import annotations

import os
import sys
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.printable import printable_lines

__all__ = ["ignore_broken_pipe", "write_stdout"]


def write_stdout(text: str) -> None:
    """Write and flush.

    Raises:
        InputError: the write failed, as on a full disk.
        BrokenPipeError: the reader has closed the pipe, or there is no standard output.
    """
    if sys.stdout is None:  # closed with `>&-`
        raise BrokenPipeError
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"standard output: cannot be written: {error.strerror}") from None


def ignore_broken_pipe() -> None:
    """Ignore broken pipes on standard output from now on (`… | head -1`).

    For commands whose work is more than their output; they end with their own exit code.
    """
    if sys.stdout is not None:
        sys.stdout = _PipeTolerantStream(sys.stdout)


class _PipeTolerantStream:
    """A text stream that discards its output after its pipe has broken.

    A terminal gets no control characters, which names of tags and files may hold.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(printable_lines(text) if self._is_terminal else text))
        except BrokenPipeError:
            self._discard_output()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard_output()

    def _discard_output(self) -> None:
        """Point the descriptor to the null device, so that buffered output is discarded as well."""
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, self._stream.fileno())
        os.close(null_device)
