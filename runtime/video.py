"""Video files through PyAV: upright RGB frames with times from the stream's own clock."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from math import atan2, degrees
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError, MissingDependencyError
from taidpt.runtime.redact import redact
from taidpt.runtime.sources import Frame, Selector, Source, SourceOptions

__all__ = ["VideoSource", "import_av", "open_input", "pixel_aspect", "upright_rgb"]

_LOG = logging.getLogger("taidpt.runtime")
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
        self._container = self._open(url)
        if not self._container.streams.video:
            self.close()
            raise InputError(f"{self.name}: has no video stream")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._selector = Selector(options)
        self._clock = _Clock(self._stream)
        self.damaged = 0
        self.total = _expected_frames(self._stream, self._container, options)

    def frames(self) -> Iterator[Frame]:
        """Decode, convert and turn the wanted frames."""
        aspect = pixel_aspect(self._stream)
        index = -1
        for index, picture in enumerate(self._decode()):
            time_s = self._clock.time_of(picture)
            if self._selector.wants(index, time_s):
                yield Frame(upright_rgb(picture, aspect), time_s, index, self.name)
        if index < 0:
            raise InputError(f"{self.name}: no frame could be decoded; the file is damaged")
        self._check_end()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _open(self, url: str) -> Any:
        av = self._av
        try:
            return open_input(url)
        except (av.error.InvalidDataError, av.error.EOFError):
            raise InputError(
                f"{self.name}: not a video or a picture that can be read; it may be truncated"
            ) from None
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{self.name}: cannot be opened: {redact(str(error))}") from None

    def _decode(self) -> Iterator[Any]:
        self._packets = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self._av.error.FFmpegError as error:
                self._count_damage(error)
                return
            self._packets += packet.size > 0
            try:
                yield from packet.decode()
            except self._av.error.EOFError:
                return
            except self._av.error.FFmpegError as error:
                self._count_damage(error)

    def _count_damage(self, error: Exception) -> None:
        self.damaged += 1
        if self.damaged == 1:
            _LOG.warning("%s: a damaged packet was skipped (%s)", self.name, error)

    def _check_end(self) -> None:
        expected = self._stream.frames
        if expected:
            short = self._packets < expected
            what = f"{self._packets} of {expected} frames"
        else:
            length_s = _length_s(self._stream, self._container)
            short = length_s is not None and self._clock.last_s < length_s - _MISSING_TAIL_S
            what = f"{self._clock.last_s:.1f} of {length_s or 0:.1f} seconds"
        if short:
            raise InputError(f"{self.name}: truncated: {what} could be read, and were used")


class _Clock:
    """Seconds since the stream's start, never falling; counts on where a frame has no time."""

    def __init__(self, stream: Any) -> None:
        base = stream.time_base
        self._base = float(base) if base else 0.0
        self._start = stream.start_time or 0
        rate = stream.average_rate or stream.guessed_rate
        self._step = 1.0 / float(rate) if rate else 0.04
        self.last_s = -self._step

    def time_of(self, picture: Any) -> float:
        if picture.pts is None:
            time_s = self.last_s + self._step
        else:
            time_s = (picture.pts - self._start) * self._base
        self.last_s = max(time_s, self.last_s, 0.0)
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


def upright_rgb(picture: Any, pixel_aspect: float) -> npt.NDArray[np.uint8]:
    """A decoded picture as RGB, turned as its display matrix says, with square pixels."""
    width = max(1, round(picture.width * pixel_aspect))
    image: npt.NDArray[np.uint8] = picture.to_ndarray(format="rgb24", width=width)
    quarter_turns = round(_rotation(picture) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def _rotation(picture: Any) -> float:
    """Degrees to turn the picture counter-clockwise; 0 without a display matrix."""
    try:
        matrix = picture.side_data.get("DISPLAYMATRIX")
    except (AttributeError, ValueError, KeyError):
        return 0.0
    if matrix is None:
        return 0.0
    a, b = struct.unpack("<2i", bytes(matrix)[:8])
    return -degrees(atan2(b, a)) if (a, b) != (0, 0) else 0.0


def pixel_aspect(stream: Any) -> float:
    """Width of a pixel by its height; 1 where the stream does not say, or says nonsense."""
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    aspect = float(ratio) if ratio else 1.0
    return aspect if 0.1 < aspect < 10 else 1.0
