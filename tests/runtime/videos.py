"""Small real videos, made with PyAV."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

__all__ = [
    "COLOURS",
    "colour_frame",
    "colour_video",
    "interlaced_video",
    "moving_bar",
    "turn_video",
    "write_video",
]

COLOURS = ((200, 30, 30), (20, 200, 40), (30, 30, 220), (240, 240, 10))


def colour_frame(index: int, height: int = 96, width: int = 128) -> npt.NDArray[np.uint8]:
    """One of four colours, changing every 25 frames, its left third dark."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = COLOURS[index // 25 % len(COLOURS)]
    frame[:, : width // 3] //= 4
    return frame


def colour_video(path: Path, frames: int = 100, rate: int = 25, **options: str) -> Path:
    """A video of `colour_frame`s."""
    return write_video(path, [colour_frame(index) for index in range(frames)], rate, **options)


def write_video(
    path: Path, frames: list[npt.NDArray[np.uint8]], rate: int = 25, **options: str
) -> Path:
    """Encode RGB frames with x264."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "10"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def turn_video(path: Path, target: Path, abcd: tuple[int, int, int, int] = (0, 1, -1, 0)) -> Path:
    """The same MP4 with a display matrix; the default turns by a quarter, clockwise."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd")
    matrix = header + 4 + 4 + 36  # behind version, flags, times, track, layer and volume
    one = 1 << 16
    a, b, c, d = (value * one for value in abcd)
    struct.pack_into(">9i", data, matrix, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


def moving_bar(step: int, height: int = 96, width: int = 128) -> npt.NDArray[np.uint8]:
    """A bright bar that moves four pixels a step."""
    picture = np.full((height, width, 3), 40, np.uint8)
    left = 4 * step % (width - 24)
    picture[:, left : left + 24] = 220
    return picture


def interlaced_video(path: Path, frames: int = 30) -> Path:
    """25 frames a second of two fields each, the upper one first, of a moving bar."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "5", "x264-params": "tff=1"}
        for index in range(frames):
            woven = moving_bar(2 * index)
            woven[1::2] = moving_bar(2 * index + 1)[1::2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(woven, format="rgb24")))
        container.mux(stream.encode())
    return path
