"""A video with tags, their bars and optionally a heatmap painted on."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Interval
from taidpt.runtime.painting.drawing import letterbox
from taidpt.runtime.painting.tag_boxes import Painter
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sinks.soundtrack import Soundtrack
from taidpt.runtime.sources.video_file import import_av
from taidpt.runtime.stream.moment import Moment

__all__ = ["OverlaySink"]

_TIME_BASE = Fraction(1, 1000)
# A picture stays for two seconds, long enough to read six tags.
_PICTURE_MS = 2000
# Without its look-ahead, x264 does not keep back 10 to 40 frames.
_X264 = {"preset": "veryfast", "tune": "zerolatency"}
_SUFFIXES = (".mp4", ".mkv", ".mov", ".m4v")
_CODECS = ("libx264", "h264", "mpeg4")


def _fragments(path: str) -> dict[str, str]:
    """The options of a muxer that make it write what it has at least once a second."""
    if Path(path).suffix.lower() == ".mkv":
        return {"cluster_time_limit": "1000"}
    flags = "frag_keyframe+delay_moov+default_base_moof"
    return {"movflags": flags, "frag_duration": "1000000"}


class OverlaySink(Sink):
    """Encodes the frames with their tags, at their own times.

    The file is made of fragments of one second, each written at once, and the encoder keeps no
    frame back: a kill loses a second at most.
    """

    def __init__(self, path: str | Path, painter: Painter) -> None:
        """Create the file.

        Args:
            path: an .mp4, .mov, .m4v or .mkv file.
            painter: paints the tags of a frame.
        Raises:
            InputError: the file cannot be written.
        """
        self._path, self._painter = str(path), painter
        if Path(path).suffix.lower() not in _SUFFIXES and not Path(path).is_char_device():
            raise InputError(f"{path}: an overlay is a video of {' or '.join(_SUFFIXES)}")
        self._av = import_av()
        self._stream: Any = None
        self._source: str | None = None
        self._last_ms = -1
        self._offset_s = 0.0
        try:
            Path(path).open("wb").close()  # PyAV would fail only at the first frame
            # without the longest delay, frames wait 10 s for sound that has ended
            options = {"flush_packets": "1", "max_interleave_delta": "1000000"}
            # the prefix keeps FFmpeg from reading a protocol before a colon in the name
            self._container = self._av.open(
                f"file:{self._path}", "w", options=options | _fragments(self._path)
            )
        except (OSError, ValueError) as error:
            raise InputError(f"{self._path}: cannot be written as a video: {error}") from None
        self._sound = Soundtrack(self._container, self._path)

    def write(self, moment: Moment) -> None:
        """Paint and encode one frame, with the sound up to it.

        Raises:
            InputError: the frame cannot be encoded or written.
        """
        stream = self._stream
        image = self._painter.paint(moment, stream and (stream.width, stream.height))
        if stream is None:
            stream = self._stream = self._open_stream(image.width, image.height)
            image = letterbox(image, (stream.width, stream.height))  # an odd size
        if moment.frame.source != self._source:
            self._source = moment.frame.source
            if moment.time is not None:
                self._sound.begin(self._source, self._offset_s, first=self._last_ms < 0)
        picture = self._av.VideoFrame.from_image(image)
        picture.pts, picture.time_base = self._next_ms(moment.time), _TIME_BASE
        self._mux(picture, moment.time)

    def end_source(self, source: str, intervals: Sequence[Interval], end_s: float) -> None:
        """Continue the next source after this one."""
        self._copy_sound(end_s)
        self._sound.end()
        self._source = None
        self._offset_s = (self._last_ms + 40) / 1000

    def close(self) -> None:
        """Finish the file."""
        self._sound.end()
        if self._stream is not None and self._last_ms >= 0:
            self._mux(None)
        try:
            self._container.close()
        except (OSError, ValueError) as error:
            raise InputError(f"{self._path}: could not be finished: {error}") from None

    def _next_ms(self, time_s: float | None) -> int:
        if time_s is not None:
            target_ms = round((self._offset_s + time_s) * 1000)
        else:
            target_ms = 0 if self._last_ms < 0 else self._last_ms + _PICTURE_MS
        self._last_ms = max(target_ms, self._last_ms + 1)
        return self._last_ms

    def _open_stream(self, width: int, height: int) -> Any:
        for codec in _CODECS:
            if codec in self._av.codecs_available:
                stream = self._container.add_stream(codec, rate=30)
                stream.width, stream.height = max(width // 2, 1) * 2, max(height // 2, 1) * 2
                stream.pix_fmt = "yuv420p"
                stream.options = _X264 if codec == "libx264" else {}
                stream.codec_context.time_base = stream.time_base = _TIME_BASE
                stream.codec_context.gop_size = 30
                stream.codec_context.max_b_frames = 0  # they would shift the first time
                return stream
        raise InputError(f"{self._path}: this PyAV has no video encoder ({', '.join(_CODECS)})")

    def _copy_sound(self, time_s: float) -> None:
        try:
            self._sound.copy_until(time_s)
        except (OSError, ValueError) as error:
            raise InputError(f"{self._path}: cannot be written: {error}") from None

    def _mux(self, picture: Any, time_s: float | None = None) -> None:
        if time_s is not None:
            self._copy_sound(time_s)
        try:
            self._container.mux(self._stream.encode(picture))
        except (OSError, ValueError) as error:
            raise InputError(f"{self._path}: cannot be written: {error}") from None
