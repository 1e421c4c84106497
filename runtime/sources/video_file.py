"""Video files through PyAV: upright RGB frames with times from the stream's own clock."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from taidpt.runtime.errors import InputError, MissingDependencyError
from taidpt.runtime.redact import redact
from taidpt.runtime.sources.base import Frame, Selector, Source, SourceOptions
from taidpt.runtime.sources.decoder import Decoder
from taidpt.runtime.sources.hardware_decoders import open_decoding

__all__ = ["VideoSource", "import_av", "open_input"]

_MISSING_TAIL_S = 1.0


class VideoSource(Source):
    """The first video stream of a file.

    A damaged packet is skipped and counted. A file that ends before its own index says gives all
    frames that there are, and then raises InputError.
    """

    def __init__(self, url: str, options: SourceOptions) -> None:
        """Open the file and look at its streams.

        Raises:
            InputError: not a video, damaged, or without a video stream.
        """
        self.name = redact(url)
        self._av = import_av()
        self._container = self._open(url, options.decoder)
        if not self._container.streams.video:
            self.close()
            raise InputError(f"{self.name}: has no video stream")
        self._colours = options.colours
        self._decoder = Decoder(self._container, self.name, options.colours)
        self._stream = self._decoder.stream
        self._stream.thread_type = "AUTO"
        self._selector = Selector(options)
        self._clock = _Clock(self._stream)
        self.total = _expected_frames(self._stream, self._container, options)

    @property
    def damaged(self) -> int:
        """Packets that could not be decoded."""
        return self._decoder.damaged

    def frames(self) -> Iterator[Frame]:
        """Decode, convert and turn the wanted frames."""
        decoder, index = self._decoder, -1
        for index, picture in enumerate(self._pictures()):
            time_s = self._clock.time_of(picture)
            if self._selector.wants(index, time_s):
                image = decoder.image(picture)
                taken_s = decoder.taken_s()
                yield Frame(image, time_s, index, self.name, taken_s, self._colours)
        if index < 0:
            raise InputError(f"{self.name}: no frame could be decoded; the file is damaged")
        self._check_end()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _open(self, url: str, decoder: str) -> Any:
        av = self._av
        try:
            return open_decoding(decoder, functools.partial(open_input, url), self.name)
        except (av.error.InvalidDataError, av.error.EOFError):
            raise InputError(
                f"{self.name}: not a video or a picture that can be read; it may be truncated"
            ) from None
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{self.name}: cannot be opened: {redact(str(error))}") from None

    def _pictures(self) -> Iterator[Any]:
        """Pictures up to where the file cannot be read any further."""
        try:
            yield from self._decoder.pictures()
        except self._av.error.FFmpegError as error:
            self._decoder.count_damage(error)

    def _check_end(self) -> None:
        expected = self._stream.frames
        if expected:
            short = self._decoder.packets < expected
            what = f"{self._decoder.packets} of {expected} frames"
        else:
            length_s = _length_s(self._stream, self._container)
            short = length_s is not None and self._clock.last_s < length_s - _MISSING_TAIL_S
            what = f"{self._clock.last_s:.1f} of {length_s or 0:.1f} seconds"
        if short:
            raise InputError(f"{self.name}: truncated: {what} could be read, and were used")


class _Clock:
    """Seconds since the stream's start, by its own times; goes on where they are missing or fall.

    They fall where recordings were joined.
    """

    def __init__(self, stream: Any) -> None:
        self._start_s = float((stream.start_time or 0) * (stream.time_base or 0))
        rate = stream.average_rate or stream.guessed_rate
        self._step = 1.0 / float(rate) if rate else 0.04
        self.last_s = -self._step

    def time_of(self, picture: Any) -> float:
        expected_s = self.last_s + self._step
        time_s = expected_s if picture.time is None else picture.time - self._start_s
        if time_s < self.last_s:
            self._start_s -= expected_s - time_s
            time_s = expected_s
        self.last_s = max(time_s, 0.0)
        return self.last_s


def import_av() -> Any:
    """PyAV, or a MissingDependencyError that says how to get it."""
    try:
        import av
        import av.error
    except ImportError as error:
        raise MissingDependencyError(f"PyAV cannot be loaded ({error}); pip install av") from None
    return av


def _length_s(stream: Any, container: Any) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return float(container.duration) / 1e6
    return None


def _expected_frames(stream: Any, container: Any, options: SourceOptions) -> int | None:
    length_s = _length_s(stream, container)
    count = stream.frames
    if not count and length_s is not None and stream.average_rate:
        count = round(length_s * float(stream.average_rate))
    if not count:
        return None
    wanted = -(-count // options.every)
    if options.max_fps is not None and length_s is not None:
        wanted = min(wanted, int(length_s * options.max_fps) + 1)
    return int(wanted)


def open_input(url: str, **options: Any) -> Any:
    """PyAV's `open`, whatever bytes the metadata holds.

    PyAV before 19 has an option for it and decodes strictly without; 19 has none and does not.
    """
    av = import_av()
    if int(av.__version__.split(".")[0]) < 19:
        options["metadata_errors"] = "replace"
    return av.open(url, **options)
