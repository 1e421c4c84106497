"""Decoded pictures → RGB or NV12 frames, upright, with square pixels, in the colours of BT.709."""

from __future__ import annotations

import functools
import logging
import struct
from collections.abc import Mapping
from math import atan2, degrees
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.wide_colours import to_bt709, wide_transfer

__all__ = ["FrameConverter", "Nv12Colours", "nv12_picture", "pixel_aspect"]

_LOG = logging.getLogger("taidpt.runtime")

# Matrix and range of NV12 frames: "bt601" or "bt709", "limited" or "full".
Nv12Colours = tuple[str, str]
_MATRICES = {"bt601": "ITU601", "bt709": "ITU709"}
_RANGES = {"limited": "MPEG", "full": "JPEG"}
# Pixel aspects outside of this range are errors of the writer: real ones are 0.5 to 2.
_ASPECTS = (0.1, 10)


class FrameConverter:
    """Converts the pictures of one stream, in one thread.

    It keeps one scaler. `VideoFrame.to_ndarray` makes a new one for each picture, with a pool of
    threads that costs more than the conversion: 0.6 to 10 ms instead of 0.4 ms at 720p.
    """

    def __init__(
        self, stream: Any, name: str = "video", colours: Nv12Colours | None = None
    ) -> None:
        """Prepare for a PyAV video stream.

        Args:
            stream: of PyAV; it has the shape of the pixels.
            name: the source's name, for the log.
            colours: matrix and range of NV12 frames, to which pictures with others are converted;
                None yields RGB.
        """
        from av.video.reformatter import VideoReformatter

        self._stream, self._name, self._colours = stream, name, colours
        self._scaler = VideoReformatter()
        self._transfer: str | None = None

    def __call__(self, picture: Any) -> npt.NDArray[np.uint8]:
        """Convert one picture and turn it upright: RGB [H, W, 3], or NV12 [H · 3/2, W].

        Raises:
            InputError: NV12 is asked for, and the picture must be turned, or has odd sides.
        """
        width = max(1, round(picture.width * pixel_aspect(self._stream)))
        quarter_turns, mirrored = _turn(picture)
        transfer = wide_transfer(picture)
        if transfer != self._transfer:
            self._transfer = transfer
            self._log_transfer()
        if self._colours is not None:
            if quarter_turns or mirrored or width % 2 or picture.height % 2:
                what = "turned" if quarter_turns or mirrored else f"{width}x{picture.height}"
                raise InputError(
                    f"a {what} video has no NV12 frames; export without --frame-format nv12"
                )
            return self._reformat(picture, width, "nv12", **_to(self._colours))
        if transfer is None:
            image = self._reformat(picture, width, "rgb24")
        else:
            image = to_bt709(self._reformat(picture, width, "rgb48le"), transfer)
        if mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, quarter_turns))

    def _log_transfer(self) -> None:
        if self._transfer is None:
            return
        if self._colours is None:
            _LOG.info("%s: %s colours are converted to BT.709", self._name, self._transfer)
        else:
            _LOG.warning(
                "%s: has %s colours, which NV12 frames cannot show: tags will be worse; export "
                "without --frame-format nv12",
                *(self._name, self._transfer),
            )

    def _reformat(self, picture: Any, width: int, form: str, **colours: Any) -> npt.NDArray[Any]:
        converted = self._scaler.reformat(
            picture, width=width, format=form, **colours, **_scaler_options()
        )
        return np.asarray(converted.to_ndarray())


def nv12_picture(frame: npt.NDArray[np.uint8], colours: Nv12Colours) -> npt.NDArray[np.uint8]:
    """Convert an NV12 frame [H · 3/2, W] to RGB [H, W, 3], for display."""
    import av

    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="nv12")
    source = {key.replace("dst", "src"): value for key, value in _to(colours).items()}
    return np.asarray(picture.reformat(format="rgb24", **source).to_ndarray(), np.uint8)


def _to(colours: Nv12Colours) -> dict[str, Any]:
    matrix, extent = colours
    return {"dst_colorspace": _MATRICES[matrix], "dst_color_range": _RANGES[extent]}


def pixel_aspect(stream: Any) -> float:
    """Width of a pixel divided by its height; 1 if the stream has none, or an absurd one."""
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    aspect = float(ratio) if ratio else 1.0
    return aspect if _ASPECTS[0] < aspect < _ASPECTS[1] else 1.0


def _turn(picture: Any) -> tuple[int, bool]:
    """Quarter turns counter-clockwise, and whether to mirror left and right before them.

    A display matrix is a rotation, or a mirror image and a rotation, as telephones' front cameras
    write. Other angles are rounded to the nearest quarter.
    """
    try:
        matrix = picture.side_data.get("DISPLAYMATRIX")
    except (AttributeError, ValueError, KeyError):
        return 0, False
    if matrix is None:
        return 0, False
    a, b, _, c, d = struct.unpack("<5i", bytes(matrix)[:20])
    mirrored = a * d - b * c < 0
    a, b = (-a, -b) if mirrored else (a, b)  # the rotation that remains
    return round(-degrees(atan2(b, a)) / 90) % 4, mirrored


@functools.cache
def _scaler_options() -> Mapping[str, int]:
    """One thread for the scaler, if this PyAV has the option; older versions use one anyway."""
    import av
    from av.video.reformatter import VideoReformatter

    try:
        VideoReformatter().reformat(av.VideoFrame(16, 16, "rgb24"), threads=1)
    except TypeError:
        return {}
    return {"threads": 1}
