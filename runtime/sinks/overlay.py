"""A video with tags, bars and optionally a heatmap painted on."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Interval
from taidpt.runtime.painting.drawing import draw_tags, paint_heatmap, rgb_image
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sources.video_file import import_av
from taidpt.runtime.stream.moment import Moment

__all__ = ["OverlaySink"]

_TIME_BASE = Fraction(1, 1000)
# A picture stays for two seconds, long enough to read six tags; more would cover the picture.
_PICTURE_MS = 2000
_TAGS_SHOWN = 6
# Without its look-ahead, x264 does not keep back 10 to 40 frames.
_X264 = {"preset": "veryfast", "tune": "zerolatency"}
_SUFFIXES = (".mp4", ".mkv", ".mov", ".m4v")
_CODECS = ("libx264", "h264", "mpeg4")


def _fragments(path: str) -> dict[str, str]:
    """The options of a muxer that make it write what it has at least once a second."""
    if Path(path).suffix.lower() == ".mkv":
        return {"cluster_time_limit": "1000"}
    flags = "frag_keyframe+empty_moov+default_base_moof"
    return {"movflags": flags, "frag_duration": "1000000"}


class OverlaySink(Sink):
    """Encodes the frames with their tags, at their own times.

    The file is made of fragments of one second, each written at once, and the encoder keeps no
    frame back: a kill loses a second at most.
    """

    def __init__(
        self, path: str | Path, input_hw: tuple[int, int], heatmap: str | None = None
    ) -> None:
        """Create the file.

        Args:
            path: an .mp4, .mov, .m4v or .mkv file.
            input_hw: height and width of the model's input, in pixels.
            heatmap: a tag whose heatmap is painted too.
        Raises:
            InputError: the file cannot be written.
        """
        self._path, self._input_hw, self._heatmap = str(path), input_hw, heatmap
        if Path(path).suffix.lower() not in _SUFFIXES and not Path(path).is_char_device():
            raise InputError(f"{path}: an overlay is a video of {' or '.join(_SUFFIXES)}")
        self._av = import_av()
        self._stream: Any = None
        self._last_ms = -1
        self._offset_s = 0.0
        try:
            Path(path).open("wb").close()  # PyAV would fail only at the first frame
            options = {"flush_packets": "1", **_fragments(self._path)}
            # the prefix keeps FFmpeg from reading a protocol before a colon in the name
            self._container = self._av.open(f"file:{self._path}", "w", options=options)
        except (OSError, ValueError) as error:
            raise InputError(f"{self._path}: cannot be written as a video: {error}") from None

    def write(self, moment: Moment) -> None:
        """Paint and encode one frame.

        Raises:
            InputError: the frame cannot be encoded or written.
        """
        image = rgb_image(moment.frame.picture)
        if self._heatmap in moment.result.vocabulary.names:  # a new bank may lack the tag
            image = paint_heatmap(image, moment.result, self._heatmap, self._input_hw)
        image = draw_tags(image, list(moment.result.top(_TAGS_SHOWN)), moment.on)
        if self._stream is None:
            self._stream = self._open_stream(image.width, image.height)
        size = self._stream.width, self._stream.height
        if image.size != size:  # an odd size, or a stream that changed its own
            image = image.resize(size)
        picture = self._av.VideoFrame.from_image(image)
        picture.pts, picture.time_base = self._next_ms(moment.time), _TIME_BASE
        self._mux(picture)

    def end_source(self, source: str, intervals: Sequence[Interval], end_s: float) -> None:
        """Continue the next source after this one."""
        self._offset_s = (self._last_ms + 40) / 1000

    def close(self) -> None:
        """Finish the file."""
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

    def _mux(self, picture: Any) -> None:
        try:
            self._container.mux(self._stream.encode(picture))
        except (OSError, ValueError) as error:
            raise InputError(f"{self._path}: cannot be written: {error}") from None
