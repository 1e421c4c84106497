"""Videos that end (files, pipes, files on servers): frames with the video's own times."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError, MissingDependencyError
from taidpt.runtime.redact import redact
from taidpt.runtime.sources.address import Address, Kind, ffmpeg_url
from taidpt.runtime.sources.base import Frame, Selector, Source, SourceOptions
from taidpt.runtime.sources.decoder import Decoder, find_video
from taidpt.runtime.sources.hardware_decoders import open_decoding

__all__ = ["VideoSource", "declared_end", "import_av", "open_input"]

# FFmpeg's demuxers that draw text or bytes as a picture: it chooses them by a file's name alone.
_NOT_VIDEO = frozenset(["tty", "bin", "xbin", "adf", "idf"])
# Enough of a file to tell text from a video, whose headers hold zero bytes. Playlists and session
# descriptions are text and videos all the same.
_HEAD_BYTES = 1024
_TEXT_VIDEOS = (b"#EXTM3U", b"v=0", b"YUV4MPEG2", b"ffconcat")
_BINARY = set(range(32)) - set(b"\t\n\r\f")
# Frames that a rate is assumed for where a video has none: 25 a second, as FFmpeg assumes.
_STEP_S = 0.04


class VideoSource(Source):
    """The first video stream of something that ends; the cover picture of a song is none.

    A damaged packet is skipped and counted. A file that is cut off yields all frames that it has,
    and then raises InputError. Files are opened when they are iterated, and closed at the end.

    Attributes:
        damaged: packets that could not be decoded.
    """

    damaged = 0

    def __init__(
        self,
        address: Address,
        options: SourceOptions,
        open_container: Callable[[], Any] | None = None,
    ) -> None:
        """Prepare to read a video.

        Args:
            address: a file, a pipe, or a file on a server.
            options: which frames are used.
            open_container: opens it another way, such as the pipe of a child process.
        Raises:
            MissingDependencyError: PyAV is not installed.
        """
        self.name = address.name
        self._av = import_av()
        self._address, self._options = address, options
        self._open_container = open_container or self._open_address
        self._container: Any = None
        self._decoder: Decoder | None = None

    def open(self) -> None:
        """Open the video and find its stream.

        Raises:
            InputError: not a video, damaged, or without a video stream.
        """
        if self._container is not None:
            return
        self._refuse_text()
        container = self._try_open()
        try:
            decoder = self._new_decoder(container)
        except BaseException:
            container.close()
            raise
        self._container, self._decoder = container, decoder
        stream = decoder.stream
        stream.thread_type = "AUTO"
        self._is_picture = container.format.name.endswith("_pipe")
        self.total = _expected_frames(stream, container, self._options)

    def frames(self) -> Iterator[Frame]:
        """Decode and convert the frames that the options ask for."""
        decoder, options, index = self._decoder, self._options, -1
        assert decoder is not None  # the source is open
        selector, clock = Selector(options), _Clock(decoder.stream)
        for index, picture in enumerate(self._pictures(decoder)):
            time_s = None if self._is_picture else clock.time_of(picture)
            if selector.wants(index, time_s):
                yield decoder.frame(picture, time_s, index)
        if index < 0:
            hint = self._pipe_hint() or "the file is damaged"
            raise InputError(f"{self.name}: no frame could be decoded; {hint}")
        self.damaged = decoder.damaged
        self._refuse_cut_file(decoder, index + 1)

    def close(self) -> None:
        """Close the file, and drop the decoder, whose memory is that of several frames."""
        container, self._container, self._decoder = self._container, None, None
        if container is not None:
            container.close()

    def _new_decoder(self, container: Any) -> Decoder:
        if container.format.name in _NOT_VIDEO:
            raise self._text_error()
        stream = find_video(container)
        if stream is None:
            raise InputError(f"{self.name}: has no video stream")
        return Decoder(container, stream, self.name, self._options)

    def _refuse_text(self) -> None:
        """Raise InputError for a text file, before FFmpeg takes it for a terminal's screen."""
        if self._address.kind is not Kind.FILE:
            return
        head = _head(self._address.text)
        if head.startswith(_TEXT_VIDEOS) or set(head) & _BINARY:
            return
        if len(head) - len(head.decode(errors="ignore").encode()) < 4:  # the last may be cut
            raise self._text_error()

    def _text_error(self) -> InputError:
        return InputError(
            f"{self.name}: a text file, not a picture or a video; for a list of sources, one a "
            f"line: xargs -d '\\n' -a {self.name} taidpt tag BUNDLE"
        )

    def _try_open(self) -> Any:
        av = self._av
        try:
            return self._open_container()
        except (av.error.InvalidDataError, av.error.EOFError):
            hint = self._pipe_hint() or "it may be truncated"
            raise InputError(
                f"{self.name}: not a video or a picture that can be read; {hint}"
            ) from None
        except MemoryError:
            raise InputError(f"{self.name}: not enough memory to open the video") from None
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{self.name}: cannot be opened: {redact(str(error))}") from None

    def _pipe_hint(self) -> str:
        is_pipe = self._address.kind is Kind.PIPE
        return "a pipe needs Matroska, MPEG-TS, or MP4 with its index first" if is_pipe else ""

    def _open_address(self) -> Any:
        opened = functools.partial(open_input, ffmpeg_url(self._address))
        return open_decoding(self._options.decoder, opened, self.name)

    def _pictures(self, decoder: Decoder) -> Iterator[Any]:
        """Yield pictures up to the first read error."""
        try:
            yield from decoder.pictures()
        except self._av.error.FFmpegError as error:
            decoder.count_damage(error)
            decoder.is_cut = True

    def _refuse_cut_file(self, decoder: Decoder, count: int) -> None:
        """Raise InputError if the container itself shows that data are missing at the end.

        Counts and durations in headers do not show it: they count frames that were never
        recorded, frames that an edit list hides, and sound that is longer than the picture.
        """
        size = self._container.size
        end = max(_index_end(decoder.stream), self._declared_end())
        if decoder.is_cut or end > size > 0:
            missing = f" ({end - size} bytes are missing)" if end > size > 0 else ""
            raise InputError(
                f"{self.name}: truncated{missing}; {count} frames could be read, and were used"
            )

    def _declared_end(self) -> int:
        return declared_end(_head(self._address.text)) if self._address.kind is Kind.FILE else 0


class _Clock:
    """Seconds since the start of a stream, by its own times; continues if they are missing or fall.

    They fall where recordings were joined.
    """

    def __init__(self, stream: Any) -> None:
        self._start_s = float((stream.start_time or 0) * (stream.time_base or 0))
        rate = stream.average_rate or stream.guessed_rate
        self._step_s = 1.0 / float(rate) if rate else _STEP_S
        self.last_s = -self._step_s

    def time_of(self, picture: Any) -> float:
        expected_s = self.last_s + self._step_s
        time_s = expected_s if picture.time is None else picture.time - self._start_s
        if time_s < self.last_s:
            self._start_s -= expected_s - time_s
            time_s = expected_s
        self.last_s = max(time_s, 0.0)
        return self.last_s


def _head(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror or error}") from None


def import_av() -> Any:
    """Import PyAV.

    Raises:
        MissingDependencyError: it cannot be loaded; the message says how to install it.
    """
    try:
        import av
        import av.error
    except ImportError as error:
        raise MissingDependencyError(f"PyAV cannot be loaded ({error}); pip install av") from None
    return av


def open_input(url: str, **options: Any) -> Any:
    """PyAV's `open`, for metadata of any bytes, and for paths of any bytes.

    PyAV 17 and 18 decode metadata strictly unless told otherwise; 19 does not, and has no option.
    """
    av = import_av()
    if int(av.__version__.split(".")[0]) < 19:
        options["metadata_errors"] = "replace"
    try:
        url.encode()
    except UnicodeEncodeError:  # PyAV passes names as UTF-8; Python opens a name of other bytes
        return av.open(Path(url.removeprefix("file:")).open("rb"), **options)
    return av.open(url, **options)


def _index_end(stream: Any) -> int:
    """The end of the last frame that the container's index holds, in bytes; 0 without an index."""
    entries = getattr(stream, "index_entries", None)
    if not entries:
        return 0
    last = entries[len(entries) - 1]
    return int(last.pos + last.size)


def declared_end(head: bytes) -> int:
    """Where a file should end by its first bytes, in bytes; 0 if they do not say.

    A RIFF file (AVI) has its size behind its identifier. Some writers count its 8 bytes as well,
    and some leave out a last byte of padding.

    A Matroska file is an EBML header and a segment: each an identifier, a size and that many
    bytes. A size is 1 to 8 bytes long, as the leading zero bits of its first byte say; if all
    further bits are set, it is unknown, as in a live recording.
    """
    if head[:4] == b"RIFF":
        size = int.from_bytes(head[4:8], "little")
        return size - 1 if 1 < size < 0xFFFFFFFF else 0
    position = 0
    for identifier in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        position += len(identifier)
        first = head[position] if position < len(head) else 0
        if head[position - len(identifier) : position] != identifier or not first:
            return 0
        length = 9 - first.bit_length()
        bits = int.from_bytes(head[position : position + length], "big")
        size = bits - (1 << 7 * length)
        if size == (1 << 7 * length) - 1:
            return 0
        position += length + size
    return position


def _expected_frames(stream: Any, container: Any, options: SourceOptions) -> int | None:
    """About how many frames will be used, for a progress bar: headers may be wrong."""
    length_s = _length_s(stream, container)
    count = stream.frames
    if not count and length_s is not None and stream.average_rate:
        count = round(length_s * float(stream.average_rate))
    if not count:
        return None
    used = -(-count // options.every)
    if options.max_fps is not None and length_s is not None:
        used = min(used, int(length_s * options.max_fps) + 1)
    return int(used)


def _length_s(stream: Any, container: Any) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return float(container.duration) / 1e6 if container.duration else None
