"""One video stream of an open container → whole pictures → frames.

Interlaced pictures are made whole by FFmpeg's filter bwdif.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import Frame, SourceOptions
from taidpt.runtime.sources.frame_converter import FrameConverter

__all__ = ["Decoder", "deinterlaced", "find_video"]

_LOG = logging.getLogger("taidpt.runtime")

# FFmpeg's disposition of a song's cover.
_ATTACHED_PICTURE = 0x400
# One picture out for each one in; pictures flagged as progressive pass unchanged.
_BWDIF = "mode=send_frame:parity=auto:deint=interlaced"


def find_video(container: Any) -> Any:
    """The first video stream of a PyAV container that is not a cover picture, or None."""
    for stream in container.streams.video:
        flags = getattr(stream, "disposition", 0)
        # PyAV 16 and 17 have flags that are no numbers
        if not int(getattr(flags, "value", flags)) & _ATTACHED_PICTURE:
            return stream
    return None


class Decoder:
    """Decodes one video stream; damaged packets are skipped and counted.

    Attributes:
        stream: PyAV's stream.
        damaged: packets that could not be decoded.
        is_cut: whether the last packet was incomplete.
    """

    def __init__(self, container: Any, stream: Any, name: str, options: SourceOptions) -> None:
        """Prepare to decode.

        Args:
            container: of PyAV.
            stream: one of its video streams.
            name: the source's name, for the log and errors.
            options: what frames are to be, and who sees their packets.
        """
        self._on_packet, self._colours = options.on_packet, options.colours
        self.stream = stream
        self.damaged, self.is_cut = 0, False
        self._container, self._name = container, name
        scaler = None if options.scaler is None else options.scaler()
        self._convert = FrameConverter(stream, name, options.colours, scaler)
        self._start_s = self._waited_s = 0.0

    def pictures(self) -> Iterator[Any]:
        """Yield decoded pictures, deinterlaced if needed.

        Raises:
            av.error.FFmpegError: the container cannot be read any further.
            InputError: there is not enough memory.
        """
        for picture in deinterlaced(self._decoded()):
            yield picture
            self._start_s, self._waited_s = time.perf_counter(), 0.0

    def frame(self, picture: Any, time_s: float | None, index: int) -> Frame:
        """Convert a picture to a frame of the source."""
        try:
            image, whole = self._convert(picture)
        except MemoryError:
            raise self._out_of_memory() from None
        work_s = time.perf_counter() - self._start_s - self._waited_s
        return Frame(image, time_s, index, self._name, work_s, self._colours, whole)

    def count_damage(self, error: Exception) -> None:
        """Count a packet that could not be decoded; log the first one."""
        self.damaged += 1
        if self.damaged == 1:
            _LOG.warning("%s: a damaged packet was skipped (%s)", self._name, error)

    def _decoded(self) -> Iterator[Any]:
        import av.error

        for packet in self._packets():
            try:
                yield from packet.decode()
            except av.error.EOFError:
                return
            except MemoryError:  # PyAV's is an FFmpegError too
                raise self._out_of_memory() from None
            except av.error.FFmpegError as error:
                self.count_damage(error)

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self.stream)
        self._start_s, self._waited_s = time.perf_counter(), 0.0
        while True:
            start_s = time.perf_counter()
            try:
                packet = next(packets, None)
            except MemoryError:
                raise self._out_of_memory() from None
            self._waited_s += time.perf_counter() - start_s
            if packet is None:
                return
            if packet.size:
                self.is_cut = bool(packet.is_corrupt)
            if self._on_packet is not None:
                self._on_packet(packet)
            yield packet

    def _out_of_memory(self) -> InputError:
        return InputError(
            f"{self._name}: not enough memory to decode; try --decoder software, a smaller video, "
            "or fewer sources at once"
        )


def deinterlaced(pictures: Iterable[Any]) -> Iterator[Any]:
    """Yield the same pictures, with their times; those flagged as interlaced are made whole.

    From the first interlaced picture on, each comes out when the next one goes in, because the
    filter needs it. Until then pictures pass straight through.
    """
    graph = _Deinterlacer()
    for picture in pictures:
        yield from graph.push(picture)
    yield from graph.flush()


class _Deinterlacer:
    """The filter for pictures of one size and format; rebuilt when either changes."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._form: tuple[int, int, str] | None = None

    def push(self, picture: Any) -> Iterator[Any]:
        """Add a picture; yield those that are ready."""
        form = picture.width, picture.height, picture.format.name
        if self._graph is not None and form != self._form:
            yield from self.flush()
        if self._graph is None:
            if not picture.interlaced_frame:
                yield picture
                return
            self._graph, self._form = _filter_graph(picture), form
        self._graph.push(picture)
        yield from self._ready()

    def flush(self) -> Iterator[Any]:
        """Yield the pictures that the filter still holds, and drop the filter."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._ready()
            self._graph = None

    def _ready(self) -> Iterator[Any]:
        import av.error

        while True:
            try:
                yield self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return


def _filter_graph(picture: Any) -> Any:
    import av.filter

    graph = av.filter.Graph()
    first = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=picture.time_base,
    )
    bwdif, last = graph.add("bwdif", _BWDIF), graph.add("buffersink")
    first.link_to(bwdif)
    bwdif.link_to(last)
    graph.configure()
    return graph
