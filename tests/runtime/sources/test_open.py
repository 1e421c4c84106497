"""Pictures, folders, arrays and videos as frames."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import Selector, SourceOptions
from taidpt.runtime.sources.open import open_source
from tests.runtime.videos import colour_frame, colour_video, turn_video, write_video

U8 = np.ndarray


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, grey in (("b.png", 20), ("a.jpg", 10), ("sub/c.png", 30)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), (grey, grey, grey)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path


def test_folders_are_read_in_order(folder: Path) -> None:
    with open_source(folder) as source:
        frames = list(source)
        assert source.total == 2
    assert [Path(frame.source).name for frame in frames] == ["a.jpg", "b.png"]
    assert [frame.index for frame in frames] == [0, 1]
    assert all(frame.time_s is None and frame.image.shape == (4, 6, 3) for frame in frames)
    deep = list(open_source(folder, SourceOptions(recursive=True)))
    assert [Path(frame.source).name for frame in deep] == ["a.jpg", "b.png", "c.png"]
    every = list(open_source(folder, SourceOptions(recursive=True, every=2)))
    assert [frame.index for frame in every] == [0, 2]


def test_a_broken_picture_in_a_folder_is_told_and_passed_over(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "aa.jpg").write_bytes(b"broken")
    caplog.set_level(logging.WARNING, "taidpt.runtime")
    assert len(list(open_source(folder))) == 2
    assert "passed over" in caplog.text
    assert re.search(r"1 of 3 pictures could not be read, the first is .*aa\.jpg", caplog.text)
    with pytest.raises(InputError, match="not a picture"):
        list(open_source(folder / "aa.jpg"))


def test_arrays_and_iterators() -> None:
    batch = np.zeros((3, 4, 6, 3), np.uint8)
    assert [frame.index for frame in open_source(batch)] == [0, 1, 2]
    assert [frame.image.shape for frame in open_source(batch[0])] == [(4, 6, 3)]
    timed = list(open_source(iter(batch), SourceOptions(fps=10)))
    assert [frame.time_s for frame in timed] == [0.0, 0.1, 0.2]
    assert repr(timed[1]) == "Frame(1 at 0.100 s, 6x4, 'array')"
    with pytest.raises(InputError, match="cannot take frames from int"):
        open_source(3)  # type: ignore[arg-type]


def test_a_video_gives_upright_rgb_and_its_own_times(video_path: Path) -> None:
    with open_source(video_path) as source:
        frames = list(source)
        assert source.total == 100
        assert not source.live
    assert [frame.time_s for frame in frames] == pytest.approx([i / 25 for i in range(100)])
    for frame in frames[::10]:
        assert frame.image.shape == (96, 128, 3)
        difference = np.abs(frame.image.astype(int) - colour_frame(frame.index))
        assert np.median(difference) < 12


def test_every_and_max_fps_choose_by_count_and_by_time(video_path: Path) -> None:
    every = list(open_source(video_path, SourceOptions(every=10)))
    assert [frame.index for frame in every] == list(range(0, 100, 10))
    slow = open_source(video_path, SourceOptions(max_fps=10))
    assert slow.total == 41
    frames = list(slow)
    assert len(frames) == 40
    assert max(np.diff([frame.time_s for frame in frames])) < 0.13


@pytest.mark.parametrize(("rate", "limit", "expected"), [(25, 10, 10), (30, 7, 7), (10, 30, 10)])
def test_the_rate_is_kept_on_average(rate: int, limit: float, expected: float) -> None:
    selector = Selector(SourceOptions(max_fps=limit))
    taken = sum(selector.wants(index, index / rate) for index in range(rate * 20))
    assert taken / 20 == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("rate", [24, 25, 30, 50, 60])
def test_times_in_milliseconds_keep_the_rate(rate: int) -> None:
    """Matroska and FLV round times to milliseconds."""
    for limit in (rate, rate / 2, rate / 3):
        selector = Selector(SourceOptions(max_fps=limit))
        count = sum(selector.wants(index, round(index / rate, 3)) for index in range(rate * 20))
        assert count / 20 == pytest.approx(limit, abs=0.1)


def test_a_frame_at_most_a_millisecond_early_is_in_time() -> None:
    def wants_second_frame(time_s: float) -> bool:
        selector = Selector(SourceOptions(max_fps=10))
        assert selector.wants(0, 0.0)
        return selector.wants(1, time_s)

    assert wants_second_frame(0.1)
    assert wants_second_frame(0.1 - 0.9e-3)
    assert not wants_second_frame(0.1 - 1.1e-3)


def test_a_turned_video_is_turned_back(tmp_path: Path) -> None:
    """Telephones film on their side and say so in the display matrix."""
    plain = colour_video(tmp_path / "plain.mp4", 5)
    turned = list(open_source(turn_video(plain, tmp_path / "turned.mp4")))
    flat = list(open_source(plain))
    assert turned[0].image.shape == (128, 96, 3)
    np.testing.assert_array_equal(turned[2].image, np.rot90(flat[2].image, -1))


@pytest.mark.parametrize(
    ("abcd", "seen"),
    [
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: image.swapaxes(0, 1)[::-1, ::-1]),
        ((0, -1, 1, 0), np.rot90),
    ],
)
def test_mirrored_videos_are_mirrored_back(
    tmp_path: Path, abcd: tuple[int, int, int, int], seen: Callable[[U8], U8]
) -> None:
    """x' = a x + c y and y' = b x + d y, as ISO 14496-12 has it."""
    corner = np.zeros((64, 96, 3), np.uint8)
    corner[:32, :32] = 250
    plain = write_video(tmp_path / "plain.mp4", [corner] * 3)
    turned = turn_video(plain, tmp_path / "turned.mp4", abcd)
    (flat, *_), (found, *_) = list(open_source(plain)), list(open_source(turned))
    np.testing.assert_array_equal(found.image, seen(flat.image))


def test_a_variable_rate_keeps_the_streams_clock(tmp_path: Path) -> None:
    path = tmp_path / "vfr.mkv"
    times = [0, 40, 80, 500, 540, 2000]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        stream.codec_context.time_base = stream.time_base = __import__("fractions").Fraction(
            1, 1000
        )
        for index, time in enumerate(times):
            picture = av.VideoFrame.from_ndarray(colour_frame(index), format="rgb24")
            picture.pts, picture.time_base = time, stream.codec_context.time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    frames = list(open_source(path))
    assert [frame.time_s for frame in frames] == pytest.approx([time / 1000 for time in times])


def test_a_truncated_video_gives_what_there_is_and_then_says_so(tmp_path: Path) -> None:
    whole = colour_video(tmp_path / "whole.mp4", movflags="faststart")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    frames = []
    with pytest.raises(InputError, match=r"cut\.mp4: truncated \(\d+ bytes are missing\); \d+ fr"):
        frames.extend(open_source(cut))
    assert 10 < len(frames) < 100
    tail_cut = tmp_path / "tail.mp4"
    plain = colour_video(tmp_path / "plain.mp4")
    tail_cut.write_bytes(plain.read_bytes()[:-2000])
    with pytest.raises(InputError, match="it may be truncated"):
        open_source(tail_cut)


def test_a_truncated_matroska_file_says_so(tmp_path: Path) -> None:
    whole = colour_video(tmp_path / "whole.mkv")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    with pytest.raises(InputError, match=r"truncated \(\d+ bytes are missing\); \d+ frames"):
        list(open_source(cut))


def test_damaged_packets_are_skipped(tmp_path: Path, video_path: Path) -> None:
    data = bytearray(video_path.read_bytes())
    middle = data.index(b"mdat") + 5000
    data[middle : middle + 400] = b"\xff" * 400
    (tmp_path / "damaged.mp4").write_bytes(data)
    frames = list(open_source(tmp_path / "damaged.mp4"))
    assert len(frames) > 20


def test_what_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 50)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        silence.rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    (tmp_path / "bare").mkdir()
    cases = {
        "none.mp4": "no such file or folder",
        "empty.mp4": "the file is empty",
        "noise.mp4": "not a video or a picture that can be read",
        "sound.mp4": "has no video stream",
        "bare": "no pictures or videos in this folder; --recursive looks into its folders",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=f"{name}: {message}") as caught:
            list(open_source(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_options_are_checked() -> None:
    for options in ({"every": 0}, {"max_fps": 0}, {"max_fps": -1.0}, {"fps": float("nan")}):
        with pytest.raises(InputError):
            SourceOptions(**options)  # type: ignore[arg-type]


def test_pictures_with_another_suffix_are_recognised(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "upload", format="png")
    assert [frame.time_s for frame in open_source(tmp_path / "upload")] == [None]


def test_small_videos_with_odd_pixels(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        picture = av.VideoFrame.from_ndarray(colour_frame(0, 64, 64), format="rgb24")
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
    assert next(iter(open_source(path))).image.shape == (64, 128, 3)
