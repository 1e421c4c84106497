"""Reading files that the user or a stranger names: never a pipe, which could block for ever."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

__all__ = ["open_regular", "read_regular"]

# A manifest of a million calibrated tags has about 1 GB; a larger file is damaged or hostile.
_MOST_BYTES = 4 << 30


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe or a device.
    """
    # without O_NONBLOCK, opening a pipe waits for its writer
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            reason = "it is a pipe or a device, expected a file"
            raise OSError(errno.EINVAL, reason, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: as `open_regular`; or the file does not fit into memory.
    """
    with open_regular(path) as stream:
        try:
            if os.fstat(stream.fileno()).st_size <= _MOST_BYTES:
                return stream.read()
        except MemoryError:
            pass
        raise OSError(errno.ENOMEM, "it does not fit into memory", str(path))
