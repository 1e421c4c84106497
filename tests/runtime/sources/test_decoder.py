"""Decoding: fields become whole pictures, scalers are kept, forms may change in the middle."""

from __future__ import annotations

import enum
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import numpy.typing as npt
import pytest

from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.sources.decoder import deinterlaced, find_video
from taidpt.runtime.sources.open import open_source
from tests.runtime.videos import colour_frame, interlaced_video, moving_bar


def combing(image: npt.NDArray[np.uint8]) -> float:
    """How much neighbouring lines differ more than lines two apart."""
    grey = image.astype(float).mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() - np.abs(grey[2:] - grey[:-2]).mean())


def test_fields_become_whole_pictures(tmp_path: Path) -> None:
    path = interlaced_video(tmp_path / "fields.mp4")
    with av.open(str(path)) as container:
        raw = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    with open_source(path) as source:
        frames = list(source)
    assert np.mean([combing(image) for image in raw]) > 5
    assert np.mean([combing(frame.image) for frame in frames]) < 0.5
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 25 for i in range(30)])
    for frame in frames[2:-1]:
        fields = [moving_bar(2 * frame.index), moving_bar(2 * frame.index + 1)]
        assert min(np.abs(frame.image.astype(int) - field).mean() for field in fields) < 2


@pytest.mark.parametrize("kind", [enum.Flag, enum.IntFlag])
def test_a_cover_is_no_video_in_any_version_of_pyav(kind: type[enum.Flag]) -> None:
    """Versions 16 and 17 have flags that are no numbers, 18 has numbers, 12 to 13 have none."""
    flags = kind("Disposition", {"default": 1, "attached_pic": 0x400})
    cover = SimpleNamespace(disposition=flags["attached_pic"] | flags["default"])
    video, old = SimpleNamespace(disposition=flags["default"]), SimpleNamespace()
    for streams, expected in (([cover, video], video), ([cover], None), ([old], old)):
        container = SimpleNamespace(streams=SimpleNamespace(video=streams))
        assert find_video(container) is expected


def test_each_chosen_interlaced_frame_is_the_same_as_without_choosing(tmp_path: Path) -> None:
    path = interlaced_video(tmp_path / "fields.mp4")
    whole, some = list(open_source(path)), list(open_source(path, SourceOptions(every=7)))
    assert [frame.index for frame in some] == [0, 7, 14, 21, 28]
    for frame in some:
        np.testing.assert_array_equal(frame.image, whole[frame.index].image)


def picture(
    index: int, size: tuple[int, int] = (64, 48), interlaced: bool = False
) -> av.VideoFrame:
    made = av.VideoFrame.from_ndarray(colour_frame(index, size[1], size[0]), format="rgb24")
    made = made.reformat(format="yuv420p")
    made.pts, made.time_base = index, Fraction(1, 25)
    return made


def test_progressive_pictures_pass_untouched() -> None:
    pictures = [picture(index) for index in range(3)]
    assert [a is b for a, b in zip(deinterlaced(pictures), pictures, strict=True)] == [True] * 3


def test_a_stream_that_changes_its_size_keeps_every_picture(tmp_path: Path) -> None:
    """Two interlaced files of two sizes behind one another in one MPEG-TS."""
    parts = []
    for number, (width, height) in enumerate([(128, 96), (64, 64)]):
        part = tmp_path / f"{number}.ts"
        with av.open(str(part), "w") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.options = {"flags": "+ilme+ildct"}
            for index in range(10):
                frame = av.VideoFrame.from_ndarray(moving_bar(index, height, width), "rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        parts.append(part.read_bytes())
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(parts))
    frames = list(open_source(joined))
    sizes = [frame.image.shape[:2] for frame in frames]
    small = sizes.index((64, 64))
    assert set(sizes[:small]) == {(96, 128)}
    assert set(sizes[small:]) == {(64, 64)}
    assert small >= 9  # FFmpeg's own decoder drops the picture that it was holding back
    assert len(frames) - small == 10
    for index, frame in ((4, frames[4]), (4, frames[small + 4])):
        expected = moving_bar(index, *frame.image.shape[:2])
        assert np.abs(frame.image.astype(int) - expected).mean() < 6
    # the second part counts from its own beginning; the source's clock goes on
    steps = np.diff([frame.time_s or 0.0 for frame in frames])
    assert steps == pytest.approx(np.full(len(frames) - 1, 0.04), abs=1e-3)


def test_the_time_of_work_leaves_waiting_out(video_path: Path) -> None:
    with open_source(video_path) as source:
        frames = list(source)
    assert all(frame.decode_s is not None and 0 < frame.decode_s < 5 for frame in frames)
