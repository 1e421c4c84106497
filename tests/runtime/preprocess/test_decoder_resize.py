"""Videos scaled by their decoder, against the exact way; what is shown of them; what is refused."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from taidpt.export.demo import shipped
from taidpt.runtime.bundle.input_spec import BakedResize, InputSpec
from taidpt.runtime.bundle.view import View
from taidpt.runtime.errors import InputError
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from taidpt.runtime.sources.base import Frame, SourceOptions
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import MEAN, STD
from tests.runtime.videos import colour_frame, turn_video, write_video

# What docs/performance.md says of photographs, of values from 0 to 1.
USUAL, LARGEST = 0.03, 0.1
BT709, BT601, LIMITED, FULL = 1, 5, 1, 2  # FFmpeg's numbers


@dataclass(frozen=True)
class Video:
    """How the photographs become a video."""

    width: int
    height: int
    form: str = "yuv420p"
    matrix: int | None = None
    extent: int | None = None
    aspect: Fraction | None = None


def photographs(width: int, height: int) -> list[npt.NDArray[np.uint8]]:
    return [np.asarray(ImageOps.fit(picture, (width, height))) for picture in _opened()]


@functools.cache
def _opened() -> list[Image.Image]:
    paths = sorted(shipped.FOLDER.glob("*.jpg"))
    assert len(paths) == 12
    return [Image.open(path).convert("RGB") for path in paths]


def encode(path: Path, video: Video) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, video.form
        stream.options = {"preset": "ultrafast", "crf": "16"}
        context = stream.codec_context
        if video.matrix is not None:
            context.colorspace = video.matrix
        if video.extent is not None:
            context.color_range = video.extent
        if video.aspect is not None:
            context.sample_aspect_ratio = video.aspect
        for picture in photographs(video.width, video.height):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def spec(height: int = 224, width: int = 224, view: str = "crop") -> InputSpec:
    return InputSpec(height, width, MEAN, STD, view=View(view))


def scaled_frames(path: Path, wanted: InputSpec) -> list[Frame]:
    options = Preprocessor(wanted, "decoder").source_options(SourceOptions())
    return list(open_source(path, options))


def differences(path: Path, wanted: InputSpec) -> npt.NDArray[np.float64]:
    """Of all values from the exact way, where 1 is white."""
    exact = Preprocessor(wanted)
    frames = scaled_frames(path, wanted)
    assert all(frame.image.shape == wanted.frame_shape for frame in frames)
    expected = [exact(frame.image) for frame in open_source(path)]
    found = np.stack([frame.image for frame in frames]).astype(int)
    return np.abs(found - np.stack(expected)) / 255


@pytest.mark.parametrize(
    "video",
    [
        Video(960, 540),
        Video(640, 480, "yuv420p", BT709, LIMITED),
        Video(640, 480, "yuv420p", BT601, FULL),
        Video(462, 824, "yuvj420p", BT709),
        Video(501, 515, "yuv444p"),
        Video(640, 480, "yuv420p10le"),
        Video(720, 576, "yuv422p", aspect=Fraction(3, 4)),
    ],
    ids=lambda video: f"{video.width}x{video.height}-{video.form}",
)
def test_photographs_are_within_the_bound(tmp_path: Path, video: Video) -> None:
    apart = differences(encode(tmp_path / "photographs.mp4", video), spec())
    assert np.quantile(apart, 0.999) <= USUAL
    assert apart.max() <= LARGEST


@pytest.mark.parametrize(
    "wanted",
    [spec(160, 160, "whole"), spec(128, 224, "wide"), spec(144, 192)],
    ids=["whole", "wide", "crop"],
)
def test_other_views_see_the_same_part(tmp_path: Path, wanted: InputSpec) -> None:
    apart = differences(encode(tmp_path / "photographs.mp4", Video(640, 360)), wanted)
    assert np.quantile(apart, 0.999) <= USUAL
    assert apart.max() <= LARGEST


@pytest.mark.parametrize(
    "abcd", [(0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1), (0, 1, 1, 0)]
)
def test_turned_and_mirrored_videos_are_upright(
    tmp_path: Path, abcd: tuple[int, int, int, int]
) -> None:
    """502 x 321 pixels lie half a pixel off the centre of a crop of 100."""
    plain = write_video(tmp_path / "plain.mp4", photographs(502, 320)[:3])
    turned = turn_video(plain, tmp_path / "turned.mp4", abcd)
    apart = differences(turned, spec(100, 100))
    assert np.quantile(apart, 0.999) <= USUAL
    frames, whole = scaled_frames(turned, spec(100, 100)), list(open_source(turned))
    assert frames[1].picture_hw == whole[1].image.shape[:2]
    np.testing.assert_array_equal(frames[1].picture, whole[1].image)


def test_whole_pictures_are_shown_after_the_source_is_closed(video_path: Path) -> None:
    wanted = spec(32, 32)
    frames = scaled_frames(video_path, wanted)
    for scaled, whole in zip(frames[::40], list(open_source(video_path))[::40], strict=True):
        assert scaled.image.shape == (32, 32, 3)
        np.testing.assert_array_equal(scaled.picture, whole.image)
        assert repr(scaled) == repr(whole)


def test_small_pictures_are_left_to_the_exact_way(video_path: Path) -> None:
    """128 x 96 is less than twice 64 x 64."""
    for frame in scaled_frames(video_path, spec(64, 64))[:3]:
        assert frame.image.shape == (96, 128, 3)
        assert frame.whole is None


def test_a_video_that_changes_its_size_is_scaled_anew(tmp_path: Path) -> None:
    sizes = (96, 128), (128, 128)
    parts = [
        write_video(tmp_path / f"{height}.ts", [colour_frame(0, height, width)] * 5)
        for height, width in sizes
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = scaled_frames(joined, spec(32, 32))
    assert {frame.picture_hw for frame in frames} == set(sizes)
    assert {frame.image.shape for frame in frames} == {(32, 32, 3)}


def test_what_was_never_a_video_is_refused_in_one_line(bundle_path: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 48)).save(picture)
    with Tagger.load(bundle_path, device="cpu", threads=1, resize="decoder") as tagger:
        for source in (picture, np.zeros((2, 48, 64, 3), np.uint8), [np.zeros((9, 9, 3))]):
            with pytest.raises(InputError, match="--resize decoder is for videos and cameras"):
                tagger.stream(source)
        with pytest.raises(InputError, match="takes whole frames"):
            tagger.stream(picture, roi=(0, 0, 9, 9))
        assert len(tagger(picture).scores) == len(tagger.names)  # a frame that is given: exact
    baked = InputSpec(96, 128, MEAN, STD, baked_resize=BakedResize((32, 32)))
    with pytest.raises(InputError, match="graph resizes frames itself"):
        Preprocessor(baked, "decoder")


@pytest.mark.parametrize("command", ["bench", "adapt"])
def test_commands_that_decode_nothing_refuse_it(command: str, bundle_path: Path) -> None:
    words = [sys.executable, "-m", "taidpt", command, str(bundle_path), "--resize", "decoder"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --resize decoder is for")
    assert done.stderr.count("\n") == 1


def test_a_stream_tags_what_the_decoder_scaled(bundle_path: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "photographs.mp4", photographs(320, 240))
    with Tagger.load(bundle_path, device="cpu", threads=1, resize="decoder") as tagger:
        moments = list(tagger.stream(video, batch=4))
        scaled = [moment.frame.image for moment in moments]
        assert {image.shape for image in scaled} == {tagger.bundle.manifest.input.frame_shape}
        expected = tagger.tag_batch(scaled[:4]).scores
    assert all(moment.frame.picture.shape == (240, 320, 3) for moment in moments)
    np.testing.assert_allclose([moment.result.scores for moment in moments[:4]], expected)
