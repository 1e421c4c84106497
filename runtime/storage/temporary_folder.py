"""Temporary folders that the next process removes after a kill."""

from __future__ import annotations

import os
import time
import weakref
from pathlib import Path

from taidpt.runtime.closing import Closing
from taidpt.runtime.storage.atomic import try_lock

__all__ = ["TemporaryFolder", "remove_stale"]

# Without folder locks (Windows), a folder of this age belongs to a killed process: no export takes
# a day.
_STALE_AFTER_S = 24 * 3600.0


class TemporaryFolder(Closing):
    """A new folder that is locked while its process lives.

    It is removed by `close`, or else when the object or the process ends. A process that was killed
    leaves its folder; the next one of the same parent and prefix removes it.

    Attributes:
        path: the folder.
    """

    def __init__(self, parent: Path, prefix: str, mode: int = 0o777) -> None:
        """Create the folder.

        Args:
            parent: where it lies; must exist.
            prefix: how its name begins.
            mode: its permissions, less the umask.
        Raises:
            OSError: it cannot be created.
        """
        remove_stale(parent, prefix)
        while True:
            self.path = parent / f"{prefix}{os.getpid()}-{os.urandom(4).hex()}"
            self.path.mkdir(mode)
            try:
                lock = try_lock(self.path)
            except FileNotFoundError:
                continue  # another process took it for a leftover before it was locked
            self._finalizer = weakref.finalize(self, _remove, self.path, lock, os.getpid())
            if self.path.exists():
                return
            self.close()

    def close(self) -> None:
        """Remove the folder and what is in it."""
        self._finalizer()


def _remove(folder: Path, lock: int | None, owner: int) -> None:
    if os.getpid() == owner:  # a forked child shares the folder, and does not own it
        import shutil  # loads three compressors, and is needed where something was written

        shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def remove_stale(parent: Path, prefix: str) -> None:
    """Remove this user's folders of a prefix whose processes are gone."""
    for folder in parent.iterdir():
        if not folder.name.startswith(prefix):
            continue
        try:
            status = folder.lstat()
            if hasattr(os, "getuid") and status.st_uid != os.getuid():
                continue
            lock = try_lock(folder)
        except OSError:  # removed meanwhile
            continue
        if lock is None and time.time() - status.st_mtime < _STALE_AFTER_S:
            continue
        _remove(folder, lock, os.getpid())
