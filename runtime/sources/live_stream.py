"""Cameras and network streams: reconnected when they break, on a clock that never runs back."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.redact import encoding_hint, redact
from taidpt.runtime.sources.address import Address, Kind, ffmpeg_url
from taidpt.runtime.sources.base import Frame, Selector, Source, SourceOptions
from taidpt.runtime.sources.decoder import Decoder, find_video
from taidpt.runtime.sources.hardware_decoders import open_decoding
from taidpt.runtime.sources.video_file import import_av, open_input

__all__ = ["LiveClock", "LiveSource", "ReconnectPolicy"]

_LOG = logging.getLogger("taidpt.runtime")

# A step of the stream's times that differs from the wall clock by more than this is a jump, not
# jitter: network buffers hold less than 5 seconds.
_LARGEST_JUMP_S = 5.0
# The stream's times may be ahead of the wall clock or behind it by 2 seconds, about what a camera
# sends at once on connecting. Within that, the difference fades by half in 20 seconds, slowly
# enough that steps between frames stay what the stream says.
_LARGEST_LEAD_S = 2.0
_FADE_S = 30.0
# FFmpeg's flag of formats without timestamps, for which it invents times of 25 frames a second,
# and the playlist formats, whose size is that of the playlist.
_NO_TIMESTAMPS = 0x80
_PLAYLISTS = ("hls", "dash", "sdp")


@dataclass(frozen=True)
class ReconnectPolicy:
    """When a stream is opened again; all in seconds.

    Attributes:
        first_s: pause before the first try; each further one doubles it.
        longest_s: the longest pause.
        timeout_s: silence after which a stream counts as broken.
        give_up_s: time without a frame after which the stream ends with an error; None: never.
    """

    first_s: float = 0.5
    longest_s: float = 30.0
    timeout_s: float = 10.0
    give_up_s: float | None = None


class LiveClock:
    """Seconds since the first frame, from the stream's own times, held close to the wall clock.

    A step backwards, or one that differs from the wall clock by more than five seconds, is a jump:
    for that step the wall clock counts. The sum of all steps never differs from the time since the
    first frame by more than two seconds, so neither reconnections nor a wrong rate add up.
    """

    def __init__(self) -> None:
        self.last_s = 0.0
        self._first_wall_s: float | None = None
        self._wall_s = 0.0
        self._stream_s: float | None = None

    def time_of(self, stream_s: float | None, wall_s: float) -> float:
        """The time of a frame.

        Args:
            stream_s: seconds by the stream; None if it has no times.
            wall_s: seconds at its arrival, on a monotonic clock.
        Returns:
            Seconds since the first frame, never less than before.
        """
        if self._first_wall_s is None:
            self._first_wall_s = wall_s
        else:
            wall_step_s, elapsed_s = wall_s - self._wall_s, wall_s - self._first_wall_s
            time_s = self.last_s + self._step(stream_s, wall_step_s)
            time_s += (elapsed_s - time_s) * min(wall_step_s / _FADE_S, 1)
            time_s = min(max(time_s, elapsed_s - _LARGEST_LEAD_S), elapsed_s + _LARGEST_LEAD_S)
            self.last_s = max(self.last_s, time_s)
        self._wall_s, self._stream_s = wall_s, stream_s
        return self.last_s

    def restart(self) -> None:
        """Forget the stream's times, which start anew after a reconnection."""
        self._stream_s = None

    def _step(self, stream_s: float | None, wall_step_s: float) -> float:
        if stream_s is None or self._stream_s is None:
            return wall_step_s
        step_s = stream_s - self._stream_s
        jumped = step_s < 0 or abs(step_s - wall_step_s) > _LARGEST_JUMP_S
        return wall_step_s if jumped else step_s


class LiveSource(Source):
    """A stream that is opened again, after growing pauses, whenever it breaks.

    Attributes:
        reconnects: how often it was opened again.
        damaged: packets that could not be decoded.
    """

    live = True

    def __init__(
        self,
        address: Address,
        options: SourceOptions,
        policy: ReconnectPolicy | None = None,
        open_container: Callable[[], Any] | None = None,
        has_ended: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open the stream for the first time.

        Args:
            address: a network stream, a camera, or a pipeline.
            options: which frames are used.
            policy: when it is opened again.
            open_container: opens the stream another way, such as the pipe of a child process.
            has_ended: whether the end of a connection is the end of the source.
        Raises:
            InputError: the first try failed; a wrong address is not tried again.
        """
        self.name = address.name
        self.reconnects = self.damaged = 0
        self._address = address
        self._policy = policy or ReconnectPolicy()
        self._av = import_av()
        self._open_container = open_container or self._open_address
        self._has_ended = has_ended
        self._options = options
        self._selector, self._clock = Selector(options), LiveClock()
        self._stopped = threading.Event()
        self._index = -1
        self._running = False
        self._container: Any = self._try_open()
        if isinstance(self._container, Exception):
            reason = self._reason(self._container) + encoding_hint(address.text)
            raise InputError(f"{self.name}: cannot be opened: {reason}")

    @property
    def finite(self) -> bool:
        """Whether the address is a file on a server, which has an end."""
        container = self._container
        if container is None or isinstance(container, Exception):
            return False
        sized = container.size > 0 and container.format.name not in _PLAYLISTS
        return bool(container.duration or sized)

    def frames(self) -> Iterator[Frame]:
        """Yield frames until `close`; index and time continue over reconnections."""
        self._running = True
        pause_s, last_frame_s = self._policy.first_s, time.monotonic()
        try:
            while not self._stopped.is_set():
                if self._container is not None:
                    for frame in self._frames_of(self._container):
                        pause_s, last_frame_s = self._policy.first_s, time.monotonic()
                        yield frame
                    self._drop_container()
                if self._has_ended() or self._stopped.wait(pause_s):
                    return
                pause_s = min(pause_s * 2, self._policy.longest_s)
                self._reopen(time.monotonic() - last_frame_s)
        finally:
            self._running = False
            self._drop_container()

    def close(self) -> None:
        """End; a read that waits in another thread ends by its own timeout."""
        self._stopped.set()
        if not self._running and self._container is not None:
            self._drop_container()

    def _frames_of(self, container: Any) -> Iterator[Frame]:
        """Yield the frames of one connection, until it breaks or ends, or the source is closed."""
        video = find_video(container)
        decoder = Decoder(container, video, self.name, self._options)
        has_times = not container.format.flags & _NO_TIMESTAMPS
        self._clock.restart()
        try:
            for picture in decoder.pictures():
                if self._stopped.is_set():
                    return
                frame = self._frame(picture, decoder, has_times)
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

    def _frame(self, picture: Any, decoder: Decoder, has_times: bool) -> Frame | None:
        self._index += 1
        stream_s = float(picture.time) if has_times and picture.time is not None else None
        time_s = self._clock.time_of(stream_s, time.monotonic())
        if not self._selector.wants(self._index, time_s):
            return None
        return decoder.frame(picture, time_s, self._index)

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
        if find_video(container) is not None:
            return container
        container.close()
        return InputError("has no video stream")

    def _open_address(self) -> Any:
        url, seconds = ffmpeg_url(self._address), self._policy.timeout_s
        if self._address.kind is Kind.CAMERA:
            return self._av.open(url, format="v4l2", timeout=(seconds, seconds))
        options = {"rtsp_transport": "tcp"} if url.startswith("rtsp") else {}
        opened = functools.partial(open_input, url, options=options, timeout=(seconds, seconds))
        return open_decoding(self._options.decoder, opened, self.name)

    def _drop_container(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def _reason(self, error: Exception) -> str:
        return redact(" ".join(str(error).split()))
