"""Atomic writes: after a kill or a power cut a file has its old content or its new content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["exchange", "fsync_folder", "hold_lock", "sha256_of", "try_lock", "write_atomically"]

# From linux/fcntl.h and linux/fs.h: paths are relative to the working folder; swap two names.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def sha256_of(*paths: Path) -> str:
    """The SHA-256 of the concatenated content of files, in hexadecimal; reads blocks of 1 MiB."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder durable; no effect on Windows, which cannot open folders."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by a temporary sibling, fsync and rename; write devices directly.

    A link stays a link: its target is written.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():  # a rename would replace /dev/stdout by a file
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name}.tmp-{os.urandom(4).hex()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step with renameat2 of Linux.

    Returns:
        False if the system or the file system has no such call; nothing has changed then.
    Raises:
        OSError: the call exists and failed.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(second))


def try_lock(folder: Path) -> int | None:
    """Take the lock of a folder; the system releases it when the process ends.

    Returns:
        A descriptor to close, or None if another process holds the lock, or the system has no
        such locks (Windows).
    """
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Wait for a folder's lock and hold it inside the `with`; no lock on Windows."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
