"""HDR and wide-gamut video: colours come out as they went in; ordinary video is left alone."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from taidpt.runtime.preprocess.nv12 import rgb_to_nv12
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.sources.wide_colours import to_bt709

COLOURS = ((30, 200, 60), (190, 40, 40), (20, 60, 180), (128, 128, 128))
BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
TRANSFERS = {"PQ": 16, "HLG": 18, "BT.2020": 14}


def encode_light(light: npt.NDArray[np.float64], transfer: str) -> npt.NDArray[np.float64]:
    """Linear BT.2020 light, diffuse white = 1, to channel values, as the standards write it."""
    if transfer == "PQ":
        power = (light * 203 / 10_000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    if transfer == "HLG":
        nits = light * 203
        luminance = nits @ np.array([0.2627, 0.6780, 0.0593])
        scene = nits / 1000 * (luminance / 1000) ** (1 / 1.2 - 1)
        root = np.sqrt(3 * scene)
        log = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        return np.where(scene <= 1 / 12, root, log)
    return light ** (1 / 2.4)


def hdr_video(path: Path, colour: tuple[int, int, int], transfer: str) -> Path:
    """Three lossless 10-bit frames of one colour, which BT.709 would show as `colour`."""
    light = BT2020 @ (np.array(colour) / 255) ** 2.4
    r, g, b = encode_light(light, transfer)
    luma = 0.2627 * r + 0.6780 * g + 0.0593 * b
    yuv = (64 + 876 * luma, 512 + 896 * (b - luma) / 1.8814, 512 + 896 * (r - luma) / 1.4746)
    planes = [
        np.full(size, round(value)) for value, size in zip(yuv, (4096, 1024, 1024), strict=True)
    ]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc = 9, TRANSFERS[transfer]
        context.colorspace, context.color_range = 9, 1
        data = np.concatenate(planes).astype(np.uint16).reshape(96, 64)
        for index in range(3):
            picture = av.VideoFrame.from_ndarray(data, format="yuv420p10le")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            picture.color_range, picture.colorspace = 1, 9
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("transfer", TRANSFERS)
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_below_white_come_out_as_they_went_in(
    tmp_path: Path, colour: tuple[int, int, int], transfer: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "taidpt.runtime"):
        frames = list(open_source(hdr_video(tmp_path / "hdr.mkv", colour, transfer)))
    np.testing.assert_allclose(frames[1].image[20, 20], colour, atol=5)
    said = [record.getMessage() for record in caplog.records]
    assert [line.endswith(f"{transfer} colours are converted to BT.709") for line in said] == [True]


def test_nv12_frames_of_hdr_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = hdr_video(tmp_path / "hdr.mkv", COLOURS[0], "PQ")
    list(open_source(path, SourceOptions(colours=("bt709", "limited"))))
    assert "has PQ colours, which NV12 frames cannot show" in caplog.text


def test_highlights_keep_their_order_and_end_in_white() -> None:
    ramp = np.linspace(0, 65535, 200).astype(np.uint16)
    for transfer in TRANSFERS:
        levels = to_bt709(np.repeat(ramp[None, :, None], 3, axis=2), transfer)[0].astype(int)
        assert (np.diff(levels, axis=0) >= 0).all()
        assert (levels[0] == 0).all()
        assert (levels[-1] >= 254).all()


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("extent", ["limited", "full"])
def test_ordinary_video_keeps_its_colours(
    tmp_path: Path, matrix: str, extent: str, caplog: pytest.LogCaptureFixture
) -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:32, :32], frame[:32, 32:], frame[32:, :32], frame[32:, 32:] = COLOURS
    spaces = {"bt601": 6, "bt709": 1}
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = spaces[matrix], 2 if extent == "full" else 1
        nv12 = av.VideoFrame.from_ndarray(rgb_to_nv12(frame, matrix, extent), format="nv12")
        planes = nv12.to_ndarray()
        chroma = planes[64:].reshape(32, 32, 2)
        i420 = np.concatenate([planes[:64].ravel(), chroma[..., 0].ravel(), chroma[..., 1].ravel()])
        picture = av.VideoFrame.from_ndarray(i420.reshape(96, 64), format="yuv420p")
        picture.pts, picture.time_base = 0, Fraction(1, 25)
        picture.colorspace, picture.color_range = context.colorspace, context.color_range
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
    (only,) = list(open_source(tmp_path / "clip.mkv"))
    for y, x in ((8, 8), (8, 56), (56, 8), (56, 56)):
        np.testing.assert_allclose(only.image[y, x], frame[y, x], atol=4)
    assert "colours" not in caplog.text
