"""HDR and wide-gamut pictures → BT.709, the colours that models are trained on.

Standards: SMPTE ST 2084 (PQ), ITU-R BT.2100 (HLG), BT.2020 (primaries), BT.1886 (display gamma),
BT.2408 (203 cd/m² is diffuse white, which becomes the white of BT.709).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["to_bt709", "wide_transfer"]

F32Array = npt.NDArray[np.float32]

# FFmpeg's numbers: transfer characteristics of PQ and HLG, and the primaries of BT.2020.
_TRANSFERS = {16: "PQ", 18: "HLG"}
_BT2020 = 9
_GAMMA = "BT.2020"
_WHITE_NITS = 203.0
_DISPLAY_GAMMA = 2.4
# Linear BT.2020 RGB to BT.709 RGB, and the luminance of BT.2020 RGB.
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
# Linear light above the knee is compressed, and at 4 times white it is clipped: highlights keep
# their shape, and all below the knee, which covers skin and most surfaces, is exact.
_KNEE, _CLIP = 0.8, 4.0
# Tables have as many entries as a 12-bit channel has values, the deepest that cameras record.
_ENTRIES = 4096
# Pixels at a time: products below this size stay on the calling thread (see preprocess/resize).
_BAND_PIXELS = 1 << 14


def wide_transfer(picture: Any) -> str | None:
    """How a PyAV picture's colours differ from BT.709: "PQ", "HLG" or "BT.2020"; None: not."""
    transfer = _TRANSFERS.get(int(getattr(picture, "color_trc", 0) or 0))
    wide = int(getattr(picture, "color_primaries", 0) or 0) == _BT2020
    return transfer or (_GAMMA if wide else None)


def to_bt709(pixels: npt.NDArray[np.uint16], transfer: str) -> npt.NDArray[np.uint8]:
    """Convert BT.2020 RGB to BT.709.

    Args:
        pixels: uint16 RGB [H, W, 3] of the full range.
        transfer: as `wide_transfer` returns it.
    Returns:
        uint8 RGB [H, W, 3].
    """
    to_linear, to_levels = _linear_table(transfer), _level_table(transfer != _GAMMA)
    flat = pixels.reshape(-1, 3)
    levels = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _BAND_PIXELS):
        light = to_linear[flat[start : start + _BAND_PIXELS] >> 4]
        if transfer == "HLG":  # the display's system gamma of 1.2, for a display of 1,000 cd/m²
            light *= (light @ _LUMINANCE)[:, None] ** np.float32(0.2) * (1000 / _WHITE_NITS)
        light = np.clip(light @ _TO_BT709.T, 0, _CLIP)
        index = np.sqrt(light / _CLIP) * (_ENTRIES - 1) + 0.5
        levels[start : start + _BAND_PIXELS] = to_levels[index.astype(np.int32)]
    return levels.reshape(pixels.shape)


@functools.cache
def _linear_table(transfer: str) -> F32Array:
    """Channel value → linear light, where diffuse white is 1 (HLG: scene light of 0 … 1)."""
    value = np.linspace(0, 1, _ENTRIES)
    if transfer == "PQ":
        power = value ** (32 / 2523)
        nits = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
        light = 10_000 / _WHITE_NITS * nits ** (8192 / 1305)
    elif transfer == "HLG":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
    else:
        light = value**_DISPLAY_GAMMA
    return light.astype(np.float32)


@functools.cache
def _level_table(hdr: bool) -> npt.NDArray[np.uint8]:
    """Square root of linear light as a share of the clip → level of BT.709, 0 … 255."""
    light = np.linspace(0, 1, _ENTRIES) ** 2 * _CLIP
    room = 1 - _KNEE
    compressed = _KNEE + room * (1 - np.exp(-(light - _KNEE) / room))
    shown = np.where(light > _KNEE, compressed, light) if hdr else np.minimum(light, 1)
    return np.rint(255 * shown ** (1 / _DISPLAY_GAMMA)).astype(np.uint8)
