"""Standard output, which may be closed, full, or a pipe that nobody reads."""

from __future__ import annotations

import sys

from taidpt.runtime.errors import InputError

__all__ = ["write_stdout"]


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
