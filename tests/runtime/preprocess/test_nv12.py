"""NV12 against what the standards say, and against FFmpeg's own conversion through PyAV."""

from __future__ import annotations

import numpy as np
import pytest

from taidpt.runtime.preprocess.nv12 import nv12_to_rgb, rgb_to_nv12, yuv_to_rgb_matrix


def test_black_white_and_the_primaries() -> None:
    for matrix, red in (("bt601", (81, 90, 240)), ("bt709", (63, 102, 240))):
        weights, offset = yuv_to_rgb_matrix(matrix, "limited")
        np.testing.assert_allclose(weights @ [16, 128, 128] + offset, 0, atol=1e-3)
        np.testing.assert_allclose(weights @ [235, 128, 128] + offset, 255, atol=1e-3)
        np.testing.assert_allclose(weights @ red + offset, [255, 0, 0], atol=2.5)
        full, shift = yuv_to_rgb_matrix(matrix, "full")
        np.testing.assert_allclose(full @ [255, 128, 128] + shift, 255, atol=1e-3)


def smooth(height: int, width: int) -> np.ndarray:
    """Blocks of 2 × 2 equal pixels, so that halving the chroma loses nothing."""
    rows, columns = np.mgrid[0 : height // 2, 0 : width // 2]
    colours = np.stack([rows * 5, columns * 3, 255 - rows * 4], axis=2).clip(0, 255)
    return colours.repeat(2, axis=0).repeat(2, axis=1).astype(np.uint8)


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("extent", ["limited", "full"])
def test_there_and_back(matrix: str, extent: str) -> None:
    frame = smooth(96, 128)
    low = rgb_to_nv12(frame, matrix, extent)
    assert (low.shape, low.dtype) == ((144, 128), np.uint8)
    back = nv12_to_rgb(low, matrix, extent)
    assert np.abs(back.astype(int) - frame).max() <= 3


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("extent", ["limited", "full"])
def test_ffmpeg_agrees(matrix: str, extent: str) -> None:
    av = pytest.importorskip("av")
    frame = smooth(96, 128)
    names = {"bt601": "ITU601", "bt709": "ITU709", "limited": "MPEG", "full": "JPEG"}
    made = av.VideoFrame.from_ndarray(frame, "rgb24").reformat(
        format="nv12", dst_colorspace=names[matrix], dst_color_range=names[extent]
    )
    difference = made.to_ndarray().astype(int) - rgb_to_nv12(frame, matrix, extent)
    assert np.abs(difference).max() <= 2
