"""Videos of FFmpeg's own muxers with odd options: whole, cut off, and with damaged bytes.

A whole file gives every frame that was written, in rising times from zero, whatever its headers
count. A damaged one gives some frames, or none, and at most one InputError: no other exception.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import av
import numpy as np
import pytest

from taidpt.runtime import open_source
from taidpt.runtime.errors import InputError

RATE = 10


class Muxer(NamedTuple):
    """A container as FFmpeg writes it.

    Attributes:
        ending: of the file's name, which chooses the muxer.
        codec: of the video.
        options: of the muxer.
        has_gaps: whether it can leave out frames and start late.
    """

    ending: str
    codec: str
    options: Mapping[str, str] = MappingProxyType({})
    has_gaps: bool = True


MUXERS = {
    "mp4": Muxer("mp4", "libx264"),
    "mp4-index-first": Muxer("mp4", "libx264", {"movflags": "faststart"}),
    "mp4-fragments": Muxer("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    "mp4-fragments-indexed": Muxer(
        "mp4", "mpeg4", {"movflags": "frag_every_frame+global_sidx+dash"}
    ),
    "mp4-without-edits": Muxer("mp4", "libx264", {"use_editlist": "0"}),
    "mov": Muxer("mov", "mjpeg"),
    "3gp": Muxer("3gp", "mpeg4"),
    "matroska": Muxer("mkv", "libx264"),
    "matroska-live": Muxer("mkv", "mpeg4", {"live": "1"}),
    "matroska-small-clusters": Muxer("mkv", "ffv1", {"cluster_time_limit": "100"}),
    "matroska-index-first": Muxer("mkv", "libx264", {"reserve_index_space": "4096"}),
    "webm": Muxer("webm", "libvpx"),
    "mpegts": Muxer("ts", "libx264"),
    "mpegts-late-tables": Muxer("ts", "mpeg2video", {"pat_period": "5"}),
    "avi": Muxer("avi", "mpeg4", has_gaps=False),
    "flv": Muxer("flv", "flv"),
    "nut": Muxer("nut", "mpeg4"),
    "asf": Muxer("asf", "mpeg4"),
}


def write(path: Path, muxer: Muxer, chance: random.Random) -> list[float]:
    """Write a short video with gaps, a late start, or long sound.

    Returns:
        The frames' times since the first one, in seconds.
    """
    count = chance.randrange(8, 30)
    start = chance.randrange(40) if muxer.has_gaps else 0
    sound_s = chance.choice([0.0, 0.0, 2.0 * count / RATE])
    with av.open(str(path), "w", options=dict(muxer.options)) as container:
        video = container.add_stream(muxer.codec, rate=RATE)
        video.width, video.height = 64, 48
        video.pix_fmt = "yuvj420p" if muxer.codec == "mjpeg" else "yuv420p"
        video.codec_context.gop_size = chance.choice([1, 5, 50])
        sound = None
        if sound_s and muxer.ending not in ("webm", "flv"):
            sound = container.add_stream("mp2" if muxer.ending in ("avi", "ts") else "aac", 44100)
        pts, times = start, []
        for index in range(count):
            picture = np.full((48, 64, 3), 8 * index % 250, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format=video.pix_fmt
            )
            frame.pts, frame.time_base = pts, Fraction(1, RATE)
            container.mux(video.encode(frame))
            times.append((pts - start) / RATE)
            pts += chance.choice([1, 1, 1, 7]) if muxer.has_gaps else 1
        container.mux(video.encode())
        if sound is not None:
            write_silence(container, sound, sound_s)
    return times


def write_silence(
    container: av.container.OutputContainer, sound: av.AudioStream, length_s: float
) -> None:
    size = sound.codec_context.frame_size or 1024
    for index in range(int(44100 * length_s) // size):
        frame = av.AudioFrame(format=sound.format.name, layout="stereo", samples=size)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts = 44100, index * size
        container.mux(sound.encode(frame))
    container.mux(sound.encode())


def read(path: Path) -> tuple[list[float], str]:
    """Times of all frames, and the InputError's text ("" without one); others come through."""
    times: list[float] = []
    try:
        with open_source(path) as source:
            times.extend(frame.time_s or 0.0 for frame in source)
    except InputError as error:
        return times, str(error)
    return times, ""


@pytest.mark.parametrize("name", MUXERS)
def test_whole_videos_are_read_whole(name: str, tmp_path: Path) -> None:
    chance = random.Random(name)
    for round_number in range(4):
        path = tmp_path / f"{round_number}.{MUXERS[name].ending}"
        expected = write(path, MUXERS[name], chance)
        times, error = read(path)
        assert error == ""
        assert times == pytest.approx(expected, abs=2e-3)  # containers round to milliseconds


@pytest.mark.parametrize("name", MUXERS)
def test_cut_videos_give_frames_or_one_line(name: str, tmp_path: Path) -> None:
    chance = random.Random(f"cut {name}")
    path, cut = (tmp_path / f"{part}.{MUXERS[name].ending}" for part in ("whole", "cut"))
    count = len(write(path, MUXERS[name], chance))
    data = path.read_bytes()
    for _ in range(8):
        cut.write_bytes(data[: chance.randrange(len(data))])
        times, error = read(cut)
        assert len(times) <= count
        assert times or error, "nothing was read, and nothing was said"
        assert "\n" not in error


@pytest.mark.parametrize("name", MUXERS)
def test_damaged_videos_give_frames_or_one_line(name: str, tmp_path: Path) -> None:
    chance = random.Random(f"damage {name}")
    path, damaged = (tmp_path / f"{part}.{MUXERS[name].ending}" for part in ("whole", "damaged"))
    write(path, MUXERS[name], chance)
    data = path.read_bytes()
    for _ in range(8):
        changed = bytearray(data)
        for _ in range(chance.choice([1, 4, 30])):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        damaged.write_bytes(bytes(changed))
        times, error = read(damaged)
        assert times or error, "nothing was read, and nothing was said"
        assert "\n" not in error
