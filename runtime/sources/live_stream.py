"""Cameras and network streams: reconnected when they break, on a clock that never falls."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.redact import redact
from taidpt.runtime.sources.base import Frame, Selector, Source, SourceOptions
from taidpt.runtime.sources.decoder import Decoder
from taidpt.runtime.sources.hardware_decoders import open_decoding
from taidpt.runtime.sources.video_file import import_av, open_input

__all__ = ["LiveClock", "LiveSource", "ReconnectPolicy", "is_live_url"]

_LOG = logging.getLogger("taidpt.runtime")
_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "tcp", "udp", "rtp", "srt")
_LARGEST_JUMP_S = 5.0


@dataclass(frozen=True)
class ReconnectPolicy:
    """When to try again, in seconds.

    Attributes:
        first_s: pause before the first new try; each further one doubles it.
        longest_s: the longest pause.
        timeout_s: silence after which a stream counts as broken.
        give_up_s: time without a frame after which the stream ends with an error; None never.
    """

    first_s: float = 0.5
    longest_s: float = 30.0
    timeout_s: float = 10.0
    give_up_s: float | None = None


class LiveClock:
    """Seconds since the first frame, by the stream's own times, which may jump or be missing.

    A step backwards or one that differs from the wall clock by more than five seconds is a jump:
    the wall clock counts for that step, and the stream's own times from there on.
    """

    def __init__(self) -> None:
        self.last_s = 0.0
        self._wall: float | None = None
        self._stream: float | None = None

    def time_of(self, stream_s: float | None, wall_s: float) -> float:
        """The time of a frame that says `stream_s` and came at `wall_s` (a monotonic clock)."""
        if self._wall is not None:
            self.last_s += self._step(stream_s, wall_s - self._wall)
        self._wall, self._stream = wall_s, stream_s
        return self.last_s

    def _step(self, stream_s: float | None, wall_step: float) -> float:
        if stream_s is None or self._stream is None:
            return wall_step
        step = stream_s - self._stream
        jumped = step < 0 or abs(step - wall_step) > _LARGEST_JUMP_S
        return wall_step if jumped else step

    def restart(self) -> None:
        """The stream begins anew: its times say nothing about the old ones."""
        self._stream = None


def is_live_url(text: str) -> bool:
    """Whether a source is a network stream or a camera device."""
    scheme, found, _ = text.partition("://")
    return (bool(found) and scheme.lower() in _SCHEMES) or text.startswith("/dev/video")


class LiveSource(Source):
    """A stream that is opened again, with growing pauses, whenever it breaks.

    Attributes:
        reconnects: how often it was opened again.
        damaged: packets that could not be decoded.
    """

    live = True

    def __init__(
        self,
        url: str,
        options: SourceOptions,
        policy: ReconnectPolicy | None = None,
        open_container: Callable[[], Any] | None = None,
    ) -> None:
        """Open the stream for the first time.

        Args:
            url: of the stream, or a device such as /dev/video0.
            options: which frames are wanted.
            policy: when to try again.
            open_container: opens the stream another way (a child process's pipe).
        Raises:
            InputError: the first try failed: a wrong address is not waited for.
        """
        self.name = redact(url)
        self.reconnects = self.damaged = 0
        scheme, found, rest = url.partition("://")
        self._url = scheme.lower() + found + rest if found else url  # FFmpeg knows lower case only
        self._policy = policy or ReconnectPolicy()
        self._av = import_av()
        self._open_container = open_container or self._open_url
        self._decoder = options.decoder
        self._selector, self._clock = Selector(options), LiveClock()
        self._colours = options.colours
        self._stopped = threading.Event()
        self._index = -1
        self._running = False
        self._container: Any = self._try_open()
        if isinstance(self._container, Exception):
            raise InputError(f"{self.name}: cannot be opened: {self._reason(self._container)}")

    @property
    def finite(self) -> bool:
        """Whether the address is a file on a server, which ends and need not be opened again."""
        return bool(self._container is not None and self._container.duration)

    def frames(self) -> Iterator[Frame]:
        """Frames until `close`; over breaks, with the index and the time going on."""
        self._running = True
        pause_s, last_frame = self._policy.first_s, time.monotonic()
        try:
            while not self._stopped.is_set():
                if self._container is not None:
                    for frame in self._frames_of(self._container):
                        pause_s, last_frame = self._policy.first_s, time.monotonic()
                        yield frame
                    self._drop_container()
                if self._has_ended() or self._stopped.wait(pause_s):
                    return
                pause_s = min(pause_s * 2, self._policy.longest_s)
                self._reopen(time.monotonic() - last_frame)
        finally:
            self._running = False
            self._drop_container()

    def close(self) -> None:
        """End; a read that is waiting in another thread ends by its own timeout."""
        self._stopped.set()
        if not self._running and self._container is not None:
            self._drop_container()

    def _has_ended(self) -> bool:
        """Whether the end of the connection was the end of the source."""
        return False

    def _frames_of(self, container: Any) -> Iterator[Frame]:
        """Frames of one connection, until it breaks, ends, or the source is closed."""
        decoder = Decoder(container, self.name, self._colours)
        self._clock.restart()
        try:
            for picture in decoder.pictures():
                if self._stopped.is_set():
                    return
                frame = self._frame(picture, decoder)
                if frame is not None:
                    yield frame
            reason = "it ended"
            if self._has_ended():
                return
        except (self._av.error.FFmpegError, OSError) as error:
            reason = self._reason(error)
        finally:
            self.damaged += decoder.damaged
        if not self._stopped.is_set():
            _LOG.warning("%s: lost (%s); opening it again", self.name, reason)

    def _frame(self, picture: Any, decoder: Decoder) -> Frame | None:
        self._index += 1
        stream_s = None if picture.time is None else float(picture.time)
        time_s = self._clock.time_of(stream_s, time.monotonic())
        if not self._selector.wants(self._index, time_s):
            return None
        image = decoder.image(picture)
        taken_s = decoder.taken_s()
        return Frame(image, time_s, self._index, self.name, taken_s, self._colours)

    def _reopen(self, silent_s: float) -> None:
        opened = self._try_open()
        if not isinstance(opened, Exception):
            self._container = opened
            self.reconnects += 1
            _LOG.warning("%s: open again", self.name)
        elif self._policy.give_up_s is not None and silent_s > self._policy.give_up_s:
            raise InputError(f"{self.name}: no frame for {silent_s:.0f} s: {self._reason(opened)}")

    def _try_open(self) -> Any:
        """An open container with a video stream, or the error."""
        try:
            container = self._open_container()
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            return error
        if container.streams.video:
            return container
        container.close()
        return InputError("has no video stream")

    def _open_url(self) -> Any:
        seconds = self._policy.timeout_s
        if self._url.startswith("/dev/video"):
            return self._av.open(self._url, format="v4l2", timeout=(seconds, seconds))
        options = {"rtsp_transport": "tcp"} if self._url.startswith("rtsp") else {}
        opened = functools.partial(
            open_input, self._url, options=options, timeout=(seconds, seconds)
        )
        return open_decoding(self._decoder, opened, self.name)

    def _drop_container(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def _reason(self, error: Exception) -> str:
        return redact(" ".join(str(error).split()))
