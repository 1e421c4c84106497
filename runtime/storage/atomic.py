"""Atomic writes: after a kill or a power cut a file has its old content or its new content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path

__all__ = [
    "atomic_file",
    "exchange",
    "fsync_folder",
    "hold_lock",
    "lock_file",
    "remove_temporaries",
    "sha256_of",
    "try_lock",
    "write_atomically",
]

# From linux/fcntl.h and linux/fs.h: paths are relative to the working folder; swap two names.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# Temporaries in folders that this process has written to: folder → name of the target → paths.
_LEFTOVERS: dict[Path, dict[str, list[Path]]] = {}
_TEMPORARY = re.compile(r"\.(.+)\.tmp-[0-9a-f]{8}", re.DOTALL)
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
    with atomic_file(path) as stream:
        stream.write(data)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BufferedWriter]:
    """Yield a temporary sibling to write to; at the end of the `with` it gets the file's name.

    After an exception the file is as it was before.
    """
    _remove_leftovers(path)
    temporary, stream = _open_temporary(path)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if sys.platform == "win32":
                stream.close()  # open files cannot be renamed there, and there are no locks
            temporary.replace(path)  # still locked, so that no writer takes it for a leftover
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def _open_temporary(path: Path) -> tuple[Path, BufferedWriter]:
    """A new sibling that this process has locked, as a sign that its writer is alive."""
    while True:
        temporary = path.with_name(f".{path.name}.tmp-{os.urandom(4).hex()}")
        stream = temporary.open("xb")
        # between opening and locking, another writer may have removed it as a leftover
        if lock_file(stream.fileno(), wait=False) is not False and temporary.exists():
            return temporary, stream
        stream.close()


def _remove_leftovers(path: Path) -> None:
    """Remove temporaries of killed writers of this name; those of running ones are locked.

    A folder is listed once in a process, as some folders get thousands of files.
    """
    if path.parent not in _LEFTOVERS:
        found: dict[str, list[Path]] = defaultdict(list)
        for sibling in path.parent.iterdir():
            match = _TEMPORARY.fullmatch(sibling.name)
            if match:
                found[match[1]].append(sibling)
        _LEFTOVERS[path.parent] = found
    for leftover in _LEFTOVERS[path.parent].pop(path.name, ()):
        _remove_unlocked(leftover)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporaries of killed writers of any name in a folder."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("rb") as stream:
        if lock_file(stream.fileno(), wait=False):
            path.unlink()


def lock_file(descriptor: int, wait: bool) -> bool | None:
    """Lock an open file or folder until it is closed.

    Returns:
        Whether it is locked now; None if the system or the file system has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


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
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    if lock_file(descriptor, wait=False):
        return descriptor
    os.close(descriptor)
    return None


@contextlib.contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Wait for a folder's lock and hold it inside the `with`; no lock on Windows."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock_file(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)
