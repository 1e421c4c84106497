"""The sound of a video file beside painted frames: its packets copied, not encoded again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taidpt.runtime.sources.video_file import import_av, open_input

__all__ = ["Soundtrack"]

_LOG = logging.getLogger("taidpt.runtime")
# Codecs whose decoder needs a header. Streams made for broadcast repeat it in each packet, where
# neither MP4 nor Matroska look for it.
_NEED_HEADER = frozenset(["aac", "alac", "flac", "opus", "vorbis"])


class Soundtrack:
    """Copies sound into a container that is being written.

    The first file decides the sound's format, because a container declares its streams at its
    start. A later file with another format is silent.
    """

    def __init__(self, container: Any, path: str) -> None:
        """Prepare a track.

        Args:
            container: PyAV's output container, before its first packet.
            path: its name, for messages.
        """
        self._av, self._container, self._path = import_av(), container, path
        self._target: Any = None
        self._format: tuple[Any, ...] | None = None
        self._input: Any = None
        self._packets: Iterator[Any] = iter(())
        self._waiting: Any = None
        self._start_s = self._offset_s = 0.0
        self._last_s = -1.0

    def begin(self, source: str, offset_s: float, first: bool) -> None:
        """Begin with another source; one that is no file with sound is silent.

        Args:
            source: the name of the source.
            offset_s: the time in the output at which the source begins, in seconds.
            first: whether the container has no packet yet, so that a stream can be declared.
        """
        self.end()
        if not Path(source).is_file():
            return
        try:
            opened = open_input(f"file:{source}")
        except (self._av.error.FFmpegError, OSError, ValueError):
            return
        sound = next(iter(opened.streams.audio), None)
        if sound is None or not self._accepts(sound, first):
            opened.close()
            return
        video = next(iter(opened.streams.video), None)
        start = video if video is not None and video.start_time is not None else sound
        self._start_s = float((start.start_time or 0) * (start.time_base or 0))
        self._input, self._offset_s = opened, offset_s
        self._packets = opened.demux(sound)

    def copy_until(self, time_s: float) -> None:
        """Write the packets that begin before a time of the source, in seconds."""
        while self._input is not None:
            packet = self._waiting or self._next()
            self._waiting = None
            if packet is None:
                self.end()
                return
            if packet.pts is None or packet.dts is None:
                continue
            begin_s = float(packet.pts * packet.time_base) - self._start_s
            if begin_s > time_s:
                self._waiting = packet
                return
            if begin_s >= 0:
                self._write(packet)

    def end(self) -> None:
        """Close the source."""
        opened, self._input, self._waiting = self._input, None, None
        self._packets = iter(())
        if opened is not None:
            opened.close()

    def _accepts(self, sound: Any, first: bool) -> bool:
        context = sound.codec_context
        kind = (context.name, context.sample_rate, context.layout.name, context.extradata)
        if not first:
            return self._format == kind
        name = sound.codec.canonical_name
        bare = name in _NEED_HEADER and not context.extradata
        if bare or name not in self._container.supported_codecs:
            suffix = Path(self._path).suffix
            why = "without a header" if bare else f"is none of {suffix}"
            _LOG.warning("%s: the sound (%s) is left out: it %s", self._path, name, why)
            return False
        self._target, self._format = self._container.add_stream_from_template(sound), kind
        return True

    def _next(self) -> Any:
        try:
            return next(self._packets, None)
        except (self._av.error.FFmpegError, OSError):  # a cut file: the frames end there too
            return None

    def _write(self, packet: Any) -> None:
        shift = round((self._offset_s - self._start_s) / packet.time_base)
        packet.pts += shift
        packet.dts += shift
        place_s = float(packet.dts * packet.time_base)
        if place_s > self._last_s:  # joined recordings fall back
            self._last_s = place_s
            packet.stream = self._target
            self._container.mux(packet)
