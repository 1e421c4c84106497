"""Videos whose headers promise other than what the file holds, and files that are no videos."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.address import Address, Kind
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.sources.video_file import VideoSource
from tests.runtime.videos import colour_video


def encode(
    path: Path,
    times: list[float],
    codec: str = "libx264",
    sound_s: float = 0.0,
    **options: str,
) -> Path:
    """A video with frames at these seconds, and sound from 0 to `sound_s`."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        sound = container.add_stream("pcm_s16le", rate=8000) if sound_s else None
        for index, time_s in enumerate(times):
            # noise, so that the frames are most of the file
            noise = np.random.default_rng(index).integers(0, 256, (48, 64, 3)).astype(np.uint8)
            picture = av.VideoFrame.from_ndarray(noise, format="rgb24")
            picture.pts, picture.time_base = round(time_s * 25), Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        for start in range(0, int(sound_s * 8000), 800):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
            silence.rate, silence.pts, silence.time_base = 8000, start, Fraction(1, 8000)
            container.mux(sound.encode(silence))  # type: ignore[union-attr]  # there is sound
    return path


def edit_list(path: Path, duration: int, media_time: int) -> Path:
    """Change the edit list of an MP4 to show another part of it."""
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12
    struct.pack_into(">II", data, entry, duration, media_time)
    path.write_bytes(data)
    return path


def steps(count: int, start_s: float = 0.0) -> list[float]:
    return [start_s + index / 25 for index in range(count)]


def test_whole_videos_are_whole_whatever_their_headers_count(tmp_path: Path) -> None:
    gaps = [*steps(5), *steps(5, 1.0), *steps(5, 3.0)]
    cases = {
        encode(tmp_path / "gaps.avi", gaps, "mjpeg"): gaps,
        encode(tmp_path / "sound.mkv", steps(10), sound_s=4.0): steps(10),
        encode(tmp_path / "sound.avi", steps(10), "mpeg4", sound_s=3.0): steps(10),
        encode(tmp_path / "late.mkv", steps(30, 60.0)): steps(30),
        encode(tmp_path / "late.ts", steps(30, 60.0)): steps(30),
        encode(tmp_path / "live.mkv", steps(10), live="1"): steps(10),
        encode(tmp_path / "parts.mp4", steps(30), movflags="frag_keyframe+empty_moov"): steps(30),
        encode(tmp_path / "plain.flv", steps(20)): steps(20),
        encode(tmp_path / "plain.mjpeg", steps(10), "mjpeg"): steps(10),
        encode(tmp_path / "plain.webm", steps(10), "libvpx"): steps(10),
    }
    for path, times in cases.items():
        found = [frame.time_s for frame in open_source(path)]
        assert found == pytest.approx(times, abs=2e-3), path.name


@pytest.mark.parametrize(("duration", "media_time"), [(1000, 0), (2000, 12_800), (4000, 25_600)])
def test_an_edit_list_that_hides_frames_leaves_a_whole_video(
    tmp_path: Path, duration: int, media_time: int
) -> None:
    path = edit_list(colour_video(tmp_path / "edited.mp4"), duration, media_time)
    frames = list(open_source(path))
    assert 20 < len(frames) < 100
    assert frames[0].time_s == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("share", [0.5, 0.75, 0.97])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.avi", "mjpeg", {}),
        ("a.avi", "mpeg4", {}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx", {}),
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("a.mov", "mjpeg", {"movflags": "faststart"}),
        ("a.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_videos_that_are_cut_off_say_so(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], share: float
) -> None:
    whole = encode(tmp_path / name, steps(50), codec, **options)
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    frames = []
    with pytest.raises(InputError, match=rf"cut-{name}: truncated.*; \d+ frames could be read"):
        frames.extend(open_source(cut))
    assert 0 < len(frames) < 51


@pytest.mark.parametrize("suffix", [".m4a", ".mp4"])
def test_a_song_with_a_cover_has_no_video(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"song{suffix}"
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = 0x400
        sound = container.add_stream("aac", rate=8000)
        picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), format="rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with pytest.raises(InputError, match="has no video stream"):
        open_source(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.txt", "a dog runs\na cat sleeps\n" * 20),
        ("list.csv", "clip.mp4,3\n" * 200),
        ("notes", "Motorräder und Autos\r\n" * 100),
        ("readme.nfo", "short"),
        ("art.ans", "\tblocks\n"),
        ("cut.vt", "日本語の字幕" * 200),
    ],
)
def test_text_files_are_no_videos(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(
        InputError, match=r"a text file, not a picture or a video; .*xargs"
    ) as error:
        open_source(tmp_path / name)
    assert "\n" not in str(error.value)


def test_screens_of_text_art_are_no_videos(tmp_path: Path) -> None:
    """FFmpeg takes these for pictures by the suffix alone, whatever the bytes are."""
    for suffix in (".ans", ".bin", ".xb", ".adf", ".idf", ".txt"):
        path = tmp_path / f"art{suffix}"
        path.write_bytes(bytes(range(256)) * 20)
        with pytest.raises(InputError):
            list(open_source(path))


def test_playlists_are_text_and_videos(tmp_path: Path) -> None:
    colour_video(tmp_path / "part.ts", 20)
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.8,\npart.ts\n#EXT-X-ENDLIST\n"
    )
    assert len(list(open_source(tmp_path / "list.m3u8"))) == 20


class _Failing:
    """A container like the real one, until its demuxer or its decoder runs out of memory."""

    def __init__(self, container: Any, in_demuxer: bool) -> None:
        self._container, self._in_demuxer = container, in_demuxer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def demux(self, stream: Any) -> Any:
        for number, packet in enumerate(self._container.demux(stream)):
            if number == 5 and self._in_demuxer:
                raise av.error.MemoryError(12, "Cannot allocate memory")
            yield _FailingPacket(packet) if number == 5 else packet


class _FailingPacket:
    def __init__(self, packet: Any) -> None:
        self.size, self.is_corrupt = packet.size, False

    def decode(self) -> list[Any]:
        raise av.error.MemoryError(12, "Cannot allocate memory")


@pytest.mark.parametrize("in_demuxer", [True, False])
def test_running_out_of_memory_is_an_error_and_no_damaged_packet(
    video_path: Path, in_demuxer: bool, caplog: pytest.LogCaptureFixture
) -> None:
    source = VideoSource(
        Address(Kind.FILE, str(video_path)),
        SourceOptions(),
        lambda: _Failing(av.open(str(video_path)), in_demuxer),
    )
    frames = []
    with pytest.raises(InputError, match="not enough memory to decode"):
        frames.extend(source)
    assert len(frames) <= 5
    assert source.damaged == 0
    assert "damaged" not in caplog.text


def test_sources_are_closed_at_their_end_and_opened_at_their_turn(video_path: Path) -> None:
    opened: list[Any] = []

    def open_container() -> Any:
        opened.append(av.open(str(video_path)))
        return opened[-1]

    source = VideoSource(Address(Kind.FILE, str(video_path)), SourceOptions(), open_container)
    assert not opened
    assert len(list(source)) == 100
    assert len(opened) == 1
    with pytest.raises(AssertionError, match="not open"):
        next(opened[0].decode(video=0))
