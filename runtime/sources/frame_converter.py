"""Decoded pictures → RGB or NV12 frames, upright, with square pixels, in the colours of BT.709."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import atan2, degrees
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.wide_colours import to_bt709, wide_transfer

__all__ = [
    "FrameConverter",
    "Nv12Colours",
    "Scaler",
    "Upright",
    "WholePicture",
    "nv12_picture",
    "pixel_aspect",
]

_LOG = logging.getLogger("taidpt.runtime")

# Matrix and range of NV12 frames: "bt601" or "bt709", "limited" or "full".
Nv12Colours = tuple[str, str]
_MATRICES = {"bt601": "ITU601", "bt709": "ITU709"}
_RANGES = {"limited": "MPEG", "full": "JPEG"}
# Pixel aspects outside of this range are errors of the writer: real ones are 0.5 to 2.
_ASPECTS = (0.1, 10)


@dataclass(frozen=True)
class Upright:
    """How a decoded picture is shown: with square pixels, mirrored, then turned.

    Attributes:
        height, width: with square pixels, before it is turned.
        quarter_turns: counter-clockwise.
        mirrored: whether left and right are exchanged, before it is turned.
    """

    height: int
    width: int
    quarter_turns: int
    mirrored: bool

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width as shown, in pixels."""
        sides = self.height, self.width
        return sides[::-1] if self.quarter_turns % 2 else sides

    def turn(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Mirror and turn an image [H, W, 3]."""
        image = image[:, ::-1] if self.mirrored else image
        return np.ascontiguousarray(np.rot90(image, self.quarter_turns))


# Scales a picture of PyAV to uint8 RGB [height, width, 3] of the model's input, or declines.
Scaler = Callable[[Any, Upright], npt.NDArray[np.uint8] | None]


class WholePicture:
    """A decoded picture, converted to RGB where it is shown; threads may share it."""

    def __init__(self, picture: Any, upright: Upright, converter: _RgbConverter) -> None:
        self.hw = upright.hw
        self._picture, self._upright, self._converter = picture, upright, converter

    def __call__(self) -> npt.NDArray[np.uint8]:
        """uint8 RGB [H, W, 3], upright."""
        return self._converter(self._picture, self._upright)


class _RgbConverter:
    """Converts pictures to RGB, one at a time.

    It keeps one scaler. `VideoFrame.to_ndarray` makes a new one for each picture, with a pool of
    threads that costs more than the conversion: 0.6 to 10 ms instead of 0.4 ms at 720p.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._scaler = VideoReformatter()
        self._lock = threading.Lock()

    def __call__(
        self, picture: Any, upright: Upright, transfer: str | None = None
    ) -> npt.NDArray[np.uint8]:
        """Convert one picture and turn it upright, [H, W, 3]."""
        if transfer is None:
            return upright.turn(self.reformat(picture, upright.width, "rgb24"))
        wide = self.reformat(picture, upright.width, "rgb48le")
        return upright.turn(to_bt709(wide, transfer))

    def reformat(self, picture: Any, width: int, form: str, **colours: Any) -> npt.NDArray[Any]:
        """Convert to another width and format of pixels."""
        with self._lock:
            converted = self._scaler.reformat(
                picture, width=width, format=form, threads=1, **colours
            )
        return np.asarray(converted.to_ndarray())


class FrameConverter:
    """Converts the pictures of one stream, in one thread."""

    def __init__(
        self,
        stream: Any,
        name: str = "video",
        colours: Nv12Colours | None = None,
        scaler: Scaler | None = None,
    ) -> None:
        """Prepare for a PyAV video stream.

        Args:
            stream: of PyAV; it has the shape of the pixels.
            name: the source's name, for the log.
            colours: matrix and range of NV12 frames, to which pictures with others are converted;
                None yields RGB.
            scaler: makes the model's input of pictures; None yields whole frames. HDR pictures and
                those that it declines stay whole.
        """
        self._stream, self._name, self._colours = stream, name, colours
        self._convert, self._scaler = _RgbConverter(), scaler
        self._transfer: str | None = None

    def __call__(self, picture: Any) -> tuple[npt.NDArray[np.uint8], WholePicture | None]:
        """Convert one picture.

        Returns:
            RGB [H, W, 3], upright, or NV12 [H · 3/2, W]; and the whole picture where the first is
            a scaled one.
        Raises:
            InputError: NV12 is asked for, and the picture must be turned, or has odd sides.
        """
        width = max(1, round(picture.width * pixel_aspect(self._stream)))
        upright = Upright(picture.height, width, *_turn(picture))
        transfer = wide_transfer(picture)
        if transfer != self._transfer:
            self._transfer = transfer
            self._log_transfer()
        if self._colours is not None:
            return self._nv12(picture, upright), None
        if self._scaler is not None and transfer is None:
            scaled = self._scaler(picture, upright)
            if scaled is not None:
                return scaled, WholePicture(picture, upright, self._convert)
        return self._convert(picture, upright, transfer), None

    def _nv12(self, picture: Any, upright: Upright) -> npt.NDArray[np.uint8]:
        assert self._colours is not None
        turned = upright.quarter_turns or upright.mirrored
        if turned or upright.width % 2 or picture.height % 2:
            what = "turned" if turned else f"{upright.width}x{picture.height}"
            raise InputError(
                f"a {what} video has no NV12 frames; export without --frame-format nv12"
            )
        return self._convert.reformat(picture, upright.width, "nv12", **_to(self._colours))

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
