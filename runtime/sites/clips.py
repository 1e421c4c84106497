"""Clips of events: the last packets of a camera, remuxed and not encoded again."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from taidpt.runtime.sites.config import ClipConfig

__all__ = ["PacketRing"]

_LOG = logging.getLogger("taidpt.runtime")
# Bytes of packets that are kept: ten seconds of a 4K camera. More than any ring needs, so a camera
# that sends pictures without compression, of which a second would not fit, has no clips.
_MOST_BYTES = 32 << 20


@dataclass(frozen=True)
class _Packet:
    """A packet by its arrival, on the clock of `time.monotonic`."""

    arrived_s: float
    data: bytes
    pts: int | None
    dts: int | None
    is_keyframe: bool


@dataclass(frozen=True)
class _Wish:
    begin_s: float
    end_s: float
    done: Callable[[bytes], None]


class PacketRing:
    """Keeps the newest packets of one camera; `take` is called in the camera's own thread.

    Clips are made there too, because the container that describes the packets belongs to it: a
    copy of some megabytes, without encoding.
    """

    def __init__(self, config: ClipConfig) -> None:
        self._config = config
        self._packets: deque[_Packet] = deque()
        self._bytes = 0
        self._stream: Any = None
        self._wishes: list[_Wish] = []
        self._lock = threading.Lock()

    def take(self, packet: Any) -> None:
        """Keep a packet of PyAV, and make the clips whose time has come."""
        if packet.stream is not self._stream:  # the camera was opened again
            self._make(float("inf"))
            self._packets.clear()
            self._stream, self._bytes = packet.stream, 0
        if packet.size and (packet.dts is not None or packet.pts is not None):
            now_s = time.monotonic()
            data = bytes(packet)
            self._packets.append(
                _Packet(now_s, data, packet.pts, packet.dts, bool(packet.is_keyframe))
            )
            self._bytes += len(data)
            self._forget(now_s)
        self._make(time.monotonic())

    def wish(self, at_s: float, done: Callable[[bytes], None]) -> None:
        """Ask for the clip of a moment; any thread may call this.

        Args:
            at_s: on the clock of `time.monotonic`.
            done: called in the camera's thread with the MP4, or not at all.
        """
        with self._lock:
            end_s = at_s + self._config.after
            self._wishes.append(_Wish(at_s - self._config.before, end_s, done))

    def _forget(self, now_s: float) -> None:
        """Drop what is older than a clip with a keyframe before it, or beyond the bytes."""
        span_s = self._config.before + self._config.after + self._config.longest_gop
        while self._packets and (
            self._packets[0].arrived_s < now_s - span_s or self._bytes > _MOST_BYTES
        ):
            self._bytes -= len(self._packets.popleft().data)

    def _make(self, now_s: float) -> None:
        if not self._wishes:
            return
        with self._lock:
            due = [wish for wish in self._wishes if wish.end_s <= now_s]
            self._wishes = [wish for wish in self._wishes if wish.end_s > now_s]
        for wish in due:
            try:
                clip = self._clip(wish)
            except Exception as error:  # a codec that MP4 cannot hold; the camera goes on
                _LOG.warning("a clip cannot be made: %s", error)
                continue
            if clip is not None:
                wish.done(clip)

    def _clip(self, wish: _Wish) -> bytes | None:
        """From the last keyframe before the beginning to the end; None without a keyframe."""
        packets = list(self._packets)
        keys = [at for at, packet in enumerate(packets) if packet.is_keyframe]
        before = [at for at in keys if packets[at].arrived_s <= wish.begin_s]
        if not keys:
            return None
        first = before[-1] if before else keys[0]
        chosen = [packet for packet in packets[first:] if packet.arrived_s <= wish.end_s]
        return _remux(chosen, self._stream) if chosen else None


def _remux(packets: list[_Packet], stream: Any) -> bytes:
    import av

    start = next(time for time in (packets[0].dts, packets[0].pts) if time is not None)
    file = io.BytesIO()
    # fragmented, as the index of a plain MP4 is written by a second pass over a named file
    with av.open(
        file, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}
    ) as container:
        out = container.add_stream_from_template(stream)
        for kept in packets:
            packet = av.Packet(kept.data)
            packet.stream, packet.time_base = out, stream.time_base
            packet.pts = None if kept.pts is None else kept.pts - start
            packet.dts = None if kept.dts is None else kept.dts - start
            packet.is_keyframe = kept.is_keyframe
            container.mux(packet)
    return file.getvalue()
