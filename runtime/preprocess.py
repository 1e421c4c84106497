"""A frame of any size → the uint8 crop that the graph takes, equal to open_clip's own transform.

The short side is resized (bicubic, antialiased, 8 bits a channel, as Pillow does it), then the
centre is cropped. Normalisation is inside the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.manifest import InputSpec

__all__ = ["CropPlan", "Preprocessor", "U8Array", "plan_crop", "to_u8"]

U8Array = npt.NDArray[np.uint8]

_EXPECTED = "expected a NumPy array, uint8 RGB [height, width, 3]"


@dataclass(frozen=True)
class CropPlan:
    """Where the crop lies: the resized frame's size, and the crop's top left corner in it."""

    resized_height: int
    resized_width: int
    top: int
    left: int

    def box(
        self, frame_hw: tuple[int, int], crop_hw: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """The crop as (left, top, right, bottom) in pixels of the frame before resizing."""
        scale_y = frame_hw[0] / self.resized_height
        scale_x = frame_hw[1] / self.resized_width
        return (
            self.left * scale_x,
            self.top * scale_y,
            min((self.left + crop_hw[1]) * scale_x, frame_hw[1]),
            min((self.top + crop_hw[0]) * scale_y, frame_hw[0]),
        )


def plan_crop(frame_hw: tuple[int, int], crop_hw: tuple[int, int]) -> CropPlan:
    """Resize the short side to the crop and centre the rest, rounding as torchvision does.

    Args:
        frame_hw: the frame's height and width, in pixels.
        crop_hw: the crop's height and width, in pixels.
    """
    (height, width), (crop_height, crop_width) = frame_hw, crop_hw
    if crop_height * width >= crop_width * height:  # the height is the side that must fit
        resized = crop_height, max(int(crop_height * width / height), crop_width)
    else:
        resized = max(int(crop_width * height / width), crop_height), crop_width
    top = round((resized[0] - crop_height) / 2.0)
    left = round((resized[1] - crop_width) / 2.0)
    return CropPlan(resized[0], resized[1], top, left)


class Preprocessor:
    """Turns frames into the graph's input."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self._hw = spec.height, spec.width

    def __call__(self, frame: npt.NDArray[Any]) -> U8Array:
        """One frame as the graph takes it.

        Args:
            frame: uint8 RGB [H, W, 3]; also grey [H, W] or [H, W, 1], RGBA [H, W, 4] (resized as
                Pillow does it, then alpha is dropped), and uint16 or bool of these shapes.
        Returns:
            uint8 RGB [height, width, 3]; the frame itself when it has that size already.
        Raises:
            InputError: it is no such array.
        """
        pixels = to_u8(frame)
        if pixels.shape[:2] == self._hw:
            return _as_rgb(pixels)
        if self.spec.baked_resize is not None:
            raise InputError(
                f"this bundle's graph resizes frames of {self._hw[1]}x{self._hw[0]} itself, got "
                f"{pixels.shape[1]}x{pixels.shape[0]}; export again for this size"
            )
        return _resize_exact(pixels, self._hw)

    def batch(self, frames: list[npt.NDArray[Any]] | npt.NDArray[Any]) -> U8Array:
        """Frames, of any sizes, as one batch uint8 [N, height, width, 3].

        Raises:
            InputError: there is none, or one of them is no frame.
        """
        if len(frames) == 0:
            raise InputError("a batch needs at least one frame, got none")
        if _is_ready(frames, self._hw):
            return frames  # type: ignore[return-value]  # checked in the line above
        batch = np.empty((len(frames), *self._hw, 3), np.uint8)
        for row, frame in zip(batch, frames, strict=True):
            row[...] = self(frame)
        return batch


def to_u8(frame: npt.NDArray[Any]) -> U8Array:
    """Check a frame and bring it to uint8 [H, W, 1], [H, W, 3] or [H, W, 4].

    Raises:
        InputError: wrong type, shape, or an empty frame.
    """
    if not isinstance(frame, np.ndarray):
        raise InputError(f"{_EXPECTED}, got {type(frame).__module__}.{type(frame).__qualname__}")
    pixels = frame[:, :, None] if frame.ndim == 2 else frame
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        hint = "; move the channels last" if pixels.ndim == 3 and pixels.shape[0] in (1, 3) else ""
        raise InputError(f"{_EXPECTED}, got shape {list(frame.shape)}{hint}")
    if pixels.size == 0:
        raise InputError(f"{_EXPECTED}, got an empty frame of shape {list(frame.shape)}")
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        deep: npt.NDArray[np.uint32] = pixels.astype(np.uint32)
        return ((deep * 255 + 32767) // 65535).astype(np.uint8)
    if pixels.dtype == np.bool_:
        return np.asarray(pixels.view(np.uint8) * 255, np.uint8)
    hint = "; multiply by 255 and convert" if pixels.dtype.kind == "f" else ""
    raise InputError(f"{_EXPECTED}, got {frame.dtype}{hint}")


def _is_ready(frames: list[npt.NDArray[Any]] | npt.NDArray[Any], hw: tuple[int, int]) -> bool:
    return (
        isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.shape[1:] == (*hw, 3)
    )


def _as_rgb(pixels: U8Array) -> U8Array:
    if pixels.shape[2] == 3:
        return pixels
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels[:, :, :3]


def _resize_exact(pixels: U8Array, crop_hw: tuple[int, int]) -> U8Array:
    """Pillow's own resize of no more than the crop: rows first, then columns.

    Pillow 13 may begin with the columns when a box is given; one call a direction keeps the order
    in which it resizes whole pictures, and with it the rounding between the two.
    """
    from PIL import Image

    frame_hw = pixels.shape[0], pixels.shape[1]
    height, width = crop_hw
    left, top, right, bottom = plan_crop(frame_hw, crop_hw).box(frame_hw, crop_hw)
    reach = 2 * max((bottom - top) / height, 1.0) + 1
    first, last = max(int(top - reach), 0), min(int(bottom + reach) + 1, frame_hw[0])
    plain = pixels[first:last, :, 0] if pixels.shape[2] == 1 else pixels[first:last]
    image = Image.fromarray(np.ascontiguousarray(plain))
    alpha = image.mode == "RGBA"
    image = image.convert("RGBa") if alpha else image  # colours weigh by their alpha
    bicubic = Image.Resampling.BICUBIC
    image = image.resize((width, last - first), bicubic, box=(left, 0, right, last - first))
    image = image.resize((width, height), bicubic, box=(0, top - first, width, bottom - first))
    array = np.asarray(image.convert("RGBA") if alpha else image)
    return _as_rgb(array[:, :, None] if array.ndim == 2 else array)
