"""Standard output, which may be closed, full, or a pipe that nobody reads."""

from __future__ import annotations

import os
import sys
from typing import Any

from taidpt.runtime.errors import InputError

__all__ = ["go_on_unread", "write_stdout"]


def write_stdout(text: str) -> None:
    """Write and flush.

    Raises:
        InputError: it cannot be written, as on a full disk.
        BrokenPipeError: nobody reads it any more, or it was closed from the beginning.
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


def go_on_unread() -> None:
    """From now on, what is printed after the reader has gone (`… | head -1`) is lost in silence.

    For commands whose work is more than what they print; they end with their own exit code.
    """
    if sys.stdout is not None:
        sys.stdout = _Unread(sys.stdout)


class _Unread:
    """A text stream that turns to nowhere when its pipe breaks."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except BrokenPipeError:
            self._turn_away()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._turn_away()

    def _turn_away(self) -> None:
        """What the stream still holds goes to nowhere too, at its next flush."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
