"""Reload a bank file that is replaced while frames are tagged."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import TaidptError
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["BankWatcher"]

_LOG = logging.getLogger("taidpt.runtime")
# A person who replaces a bank expects the tags to change at once; a `stat` twice a second costs
# nothing measurable.
_INTERVAL_S = 0.5

# inode, size in bytes, time of change in nanoseconds
FileStatus = tuple[int, int, int]


class BankWatcher(Closing):
    """Loads a bank file into a tagger whenever the file changes, in its own thread.

    A file that cannot be used is logged, and the tagger keeps its bank. A new file is loaded once
    two looks have found the same status, so that a file written in place is not read half.
    """

    def __init__(self, tagger: Tagger, path: str | Path, interval_s: float = _INTERVAL_S) -> None:
        """Start watching a file that is already loaded.

        Args:
            tagger: the tagger that uses the bank.
            path: the bank file; it may be missing for a while.
            interval_s: seconds between two looks.
        """
        self._tagger, self._path, self._interval_s = tagger, Path(path), interval_s
        self._loaded = self._previous = self._status()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="bank watcher")
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            status = self._status()
            if status is not None and status == self._previous and status != self._loaded:
                self._loaded = status
                self._load(status)
            self._previous = status

    def _load(self, status: FileStatus) -> None:
        try:
            self._tagger.use_bank(self._path)
        except TaidptError as error:
            _LOG.warning("%s; the previous bank stays in use", error)
            return
        if self._status() != status:  # changed while it was read: load it again
            self._loaded = None
        _LOG.info("%s: %d tags from now on", self._path, len(self._tagger.names))

    def _status(self) -> FileStatus | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns
