"""A bank file that may be replaced while frames are tagged: looked at twice a second."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import TaidptError
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["BankWatch"]

_LOG = logging.getLogger("taidpt.runtime")
_EVERY_S = 0.5

Look = tuple[int, int, int]


class BankWatch(Closing):
    """Puts a bank file into a tagger whenever the file has changed, in a thread of its own.

    A file that cannot be used, or is still being written, is told of and left alone: the tagger
    keeps the bank that it has. A new file is taken once it has looked the same twice, so that one
    which is written in place is not read half.
    """

    def __init__(self, tagger: Tagger, path: str | Path, every_s: float = _EVERY_S) -> None:
        """Begin to watch a file that is in use already.

        Args:
            tagger: whose bank it is.
            path: the file; it may be gone for a while.
            every_s: seconds between two looks.
        """
        self._tagger, self._path, self._every_s = tagger, Path(path), every_s
        self._used = self._before = self._look()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="bank watch")
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            now = self._look()
            if now is not None and now == self._before and now != self._used:
                self._used = now
                self._take(now)
            self._before = now

    def _take(self, look: Look) -> None:
        try:
            self._tagger.use_bank(self._path)
        except TaidptError as error:
            _LOG.warning("%s; the bank before it stays", error)
            return
        if self._look() != look:  # written to while it was read: the next look takes it again
            self._used = None
        _LOG.info("%s: %d tags from now on", self._path, len(self._tagger.names))

    def _look(self) -> Look | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns
