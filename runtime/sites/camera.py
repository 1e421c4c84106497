"""A camera as a source that never ends: opened again for ever, on the clock of the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from taidpt.runtime.errors import TaidptError
from taidpt.runtime.redact import redact
from taidpt.runtime.sources.address import parse_address
from taidpt.runtime.sources.base import LOG, Frame, Source, SourceOptions
from taidpt.runtime.sources.open import open_source

__all__ = ["CameraSource", "CameraStatus"]

# Pauses between tries to open a camera, in seconds: one that restarts is found within seconds, one
# that is away is asked twice a minute.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


@dataclass
class CameraStatus:
    """How a camera is doing; written by its own thread.

    Attributes:
        address: what it is opened by, without credentials.
        state: "connecting", "running" or "stopped".
        error: why it could not be opened, or broke; empty while it runs.
        frames: frames that it has given.
        opened: how often it was opened.
        last_s: moment of its last frame on the clock of `time.monotonic`; None before the first.
    """

    address: str
    state: str = "connecting"
    error: str = ""
    frames: int = 0
    opened: int = 0
    last_s: float | None = None


class CameraSource(Source):
    """Opens a camera in its own thread, and again whenever it ends.

    Times of frames are seconds since the source began, and never run back. A file is played at its
    own speed, and again from its start when it ends.
    """

    live = True

    def __init__(self, name: str, text: str, options: SourceOptions) -> None:
        """Prepare; nothing is opened yet.

        Args:
            name: the name of the frames' source.
            text: what `open_source` opens.
            options: which frames are used.
        """
        self.name = name
        self.status = CameraStatus(parse_address(text).name)
        self._text, self._options = text, options
        self._stopped = threading.Event()
        self._source: Source | None = None

    @property
    def reconnects(self) -> int:
        """How often the camera was opened again."""
        inner = getattr(self._source, "reconnects", 0)
        return max(self.status.opened - 1, 0) + int(inner)

    def frames(self) -> Iterator[Frame]:
        """Yield frames until `close`."""
        begun_s, pause_s = time.monotonic(), _FIRST_PAUSE_S
        index = 0
        while not self._stopped.is_set():
            count = self.status.frames
            try:
                with open_source(self._text, self._options) as source:
                    self._source = source
                    self.status.opened += 1
                    for frame in self._timed(source, begun_s):
                        self.status.state, self.status.error = "running", ""
                        self.status.frames += 1
                        self.status.last_s = time.monotonic()
                        yield replace(frame, index=index, source=self.name)
                        index += 1
                plays_again = not source.live and self.status.frames > count
            except TaidptError as error:
                plays_again = False
                self._report(redact(str(error)))
            pause_s = _FIRST_PAUSE_S if self.status.frames > count else pause_s
            if self._stopped.wait(0 if plays_again else pause_s):
                break
            if not plays_again:
                self.status.state = "connecting"
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        self.status.state = "stopped"

    def close(self) -> None:
        """End; a read that waits in another thread ends by its own timeout."""
        self._stopped.set()
        if self._source is not None and self._source.live:
            self._source.close()

    def _timed(self, source: Source, begun_s: float) -> Iterator[Frame]:
        """The frames with their times on this source's clock; those of files when they are due."""
        offset_s = time.monotonic() - begun_s
        step_s = 1.0 / (self._options.max_fps or 1.0)
        for number, frame in enumerate(source.frames()):
            time_s = offset_s + (number * step_s if frame.time_s is None else frame.time_s)
            if not source.live and self._stopped.wait(begun_s + time_s - time.monotonic()):
                return
            yield replace(frame, time_s=time_s)

    def _report(self, error: str) -> None:
        if error != self.status.error:
            LOG.warning("%s: %s; trying again", self.name, error)
        self.status.error = error
