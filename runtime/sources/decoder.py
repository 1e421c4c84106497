"""One video stream of an open container → whole pictures → frames."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.sources.deinterlace import deinterlaced
from taidpt.runtime.sources.frame_converter import FrameConverter, Nv12Colours

__all__ = ["Decoder"]

_LOG = logging.getLogger("taidpt.runtime")


class Decoder:
    """Decodes the first video stream; a damaged packet is skipped and counted.

    Attributes:
        stream: PyAV's stream.
        packets: packets with content that were read.
        damaged: packets that could not be decoded.
    """

    def __init__(self, container: Any, name: str, colours: Nv12Colours | None = None) -> None:
        """Begin with a container that has a video stream.

        Args:
            container: of PyAV.
            name: for the log.
            colours: of NV12 frames; None gives RGB.
        """
        self.stream = container.streams.video[0]
        self.packets = self.damaged = 0
        self._container, self._name = container, name
        self._convert = FrameConverter(self.stream, colours)
        self._since = self._waited = 0.0

    def pictures(self) -> Iterator[Any]:
        """Decoded pictures, deinterlaced where they need it.

        Raises:
            av.error.FFmpegError: the container cannot be read any further.
        """
        for picture in deinterlaced(self._decoded()):
            yield picture
            self._since, self._waited = time.perf_counter(), 0.0

    def image(self, picture: Any) -> npt.NDArray[np.uint8]:
        """A picture as uint8 RGB [H, W, 3], or NV12 [H · 3/2, W]."""
        return self._convert(picture)

    def taken_s(self) -> float:
        """Seconds of work on the last picture, without waiting for its packets."""
        return time.perf_counter() - self._since - self._waited

    def count_damage(self, error: Exception) -> None:
        """Note a packet that could not be decoded; the first one is logged."""
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
            except av.error.FFmpegError as error:
                self.count_damage(error)

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self.stream)
        self._since, self._waited = time.perf_counter(), 0.0
        while True:
            begun = time.perf_counter()
            packet = next(packets, None)
            self._waited += time.perf_counter() - begun
            if packet is None:
                return
            self.packets += packet.size > 0
            yield packet
