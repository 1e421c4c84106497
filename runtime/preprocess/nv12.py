"""NV12, the output format of video decoders: uint8 [H · 3/2, W], luma above chroma.

Each row of chroma interleaves U and V, one pair for 2 × 2 pixels. These conversions are the
reference for graphs that convert colours themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["nv12_to_rgb", "rgb_to_nv12", "yuv_to_rgb_matrix"]

U8 = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

# Kr and Kb of ITU-R BT.601 and BT.709.
_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def yuv_to_rgb_matrix(matrix: str, extent: str) -> tuple[Doubles, Doubles]:
    """The conversion `rgb = weights · yuv + offset` of values in 0 … 255.

    Args:
        matrix: "bt601" or "bt709".
        extent: "limited" (luma from 16 to 235) or "full".
    Returns:
        Weights [3, 3] and offset [3], float64.
    """
    kr, kb = _WEIGHTS[matrix]
    kg = 1 - kr - kb
    full = extent == "full"
    luma, chroma, black = (1.0, 1.0, 0.0) if full else (255 / 219, 255 / 224, 16.0)
    weights = np.array(
        [
            [luma, 0, 2 * (1 - kr) * chroma],
            [luma, -2 * (1 - kb) * kb / kg * chroma, -2 * (1 - kr) * kr / kg * chroma],
            [luma, 2 * (1 - kb) * chroma, 0],
        ]
    )
    return weights, -weights @ np.array([black, 128.0, 128.0])


def nv12_to_rgb(frame: U8, matrix: str, extent: str) -> U8:
    """Convert a frame [H · 3/2, W] to RGB [H, W, 3]; 2 × 2 pixels share a chroma pair."""
    height, width = frame.shape[0] * 2 // 3, frame.shape[1]
    chroma = frame[height:].reshape(height // 2, width // 2, 2)
    yuv = np.empty((height, width, 3))
    yuv[..., 0] = frame[:height]
    yuv[..., 1:] = chroma.repeat(2, axis=0).repeat(2, axis=1)
    weights, offset = yuv_to_rgb_matrix(matrix, extent)
    return _bytes(yuv @ weights.T + offset)


def rgb_to_nv12(frame: U8, matrix: str, extent: str) -> U8:
    """Convert RGB [H, W, 3] with even sides to [H · 3/2, W]; chroma is the mean of its pixels."""
    height, width, _ = frame.shape
    weights, offset = yuv_to_rgb_matrix(matrix, extent)
    yuv = (frame - offset) @ np.linalg.inv(weights).T
    blocks = yuv[..., 1:].reshape(height // 2, 2, width // 2, 2, 2)
    chroma = blocks.mean(axis=(1, 3)).reshape(height // 2, width)
    return np.concatenate([_bytes(yuv[..., 0]), _bytes(chroma)])


def _bytes(values: npt.NDArray[Any]) -> U8:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)
