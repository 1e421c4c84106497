"""A frame of any size → the uint8 crop that the graph takes, equal to open_clip's own transform.

The short side is resized (bicubic, antialiased, 8 bits a channel, as Pillow does it), then the
centre is cropped. Normalisation is inside the graph.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bundle.input_spec import NV12, InputSpec
from taidpt.runtime.errors import InputError

if TYPE_CHECKING:
    from taidpt.runtime.preprocess.device_frames import DeviceFrames
    from taidpt.runtime.preprocess.resize import BandedResize

__all__ = ["RESIZES", "Preprocessor", "U8Array", "host_frame", "to_u8"]

U8Array = npt.NDArray[np.uint8]
RESIZES = ("exact", "fast")
# Below it, the order of the passes shows at hard edges: up to 0.10 on the normalised tensor on
# photographs reduced 1.5-fold, 0.04 on those reduced 3-fold and more.
_FAST_REDUCTION = 3.0

_EXPECTED = "expected a NumPy array, uint8 RGB [height, width, 3]"


class Preprocessor:
    """Turns frames into the graph's input; may be called from several threads at once."""

    def __init__(self, spec: InputSpec, resize: str = "exact") -> None:
        """Prepare for a bundle's input.

        Args:
            spec: the manifest's `input`.
            resize: "exact" is Pillow's to one grey level; "fast" is up to a few levels away at
                hard edges and takes about 60 % of the time, where frames are reduced threefold
                or more (it is the same below, where the time is short).
        Raises:
            InputError: `resize` is neither.
        """
        if resize not in RESIZES:
            raise InputError(f"resize should be one of {', '.join(RESIZES)}, got {resize!r}")
        self.spec = spec
        self._hw = spec.height, spec.width
        # a few sizes at once: several cameras, or a folder of pictures
        self._resizer = functools.lru_cache(maxsize=8)(self._new_resizer)
        self._fast = resize == "fast"

    def __call__(self, frame: npt.NDArray[Any]) -> U8Array:
        """One frame as the graph takes it.

        Args:
            frame: uint8 RGB [H, W, 3]; also grey [H, W] or [H, W, 1], RGBA [H, W, 4] (resized as
                Pillow does it, then alpha is dropped), and uint16 or bool of these shapes.
                For a bundle that takes NV12: uint8 [H · 3/2, W] of exactly its size.
        Returns:
            uint8 RGB [height, width, 3]; the frame itself when it has that size already.
        Raises:
            InputError: it is no such array.
        """
        pixels = host_frame(frame)
        if self.spec.format == NV12:
            return self._nv12(pixels)
        pixels = to_u8(pixels)
        if pixels.shape[:2] == self._hw:
            return _as_rgb(pixels)
        if self.spec.baked_resize is not None:
            raise InputError(
                f"this bundle's graph resizes frames of {self._hw[1]}x{self._hw[0]} itself, got "
                f"{pixels.shape[1]}x{pixels.shape[0]}; export again for this size"
            )
        if pixels.shape[2] == 4:
            return _resize_rgba(pixels, self._hw)
        return _as_rgb(self._resizer(pixels.shape)(pixels))

    def _nv12(self, frame: npt.NDArray[Any]) -> U8Array:
        """A decoder's frame as it is: the graph converts its colours and resizes it."""
        shape = self.spec.frame_shape
        if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.shape == shape:
            return frame
        found = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else "none"
        raise InputError(
            f"this bundle's graph takes NV12 frames of {self._hw[1]}x{self._hw[0]}, uint8 "
            f"{list(shape)}, got {found}; for RGB pictures export again without --frame-format nv12"
        )

    def on_device(self, frames: object) -> DeviceFrames:
        """GPU frames as a batch [N, …], read where they lie.

        Raises:
            InputError: they are no DeviceFrames, or not exactly of the size and format that the
                graph takes.
        """
        from taidpt.runtime.preprocess.device_frames import DeviceFrames

        shape = self.spec.frame_shape
        if not isinstance(frames, DeviceFrames):
            raise InputError(f"{_EXPECTED}, got {_name(frames)}")
        if frames.shape == shape:
            return dataclasses.replace(frames, shape=(1, *shape))
        if frames.shape[1:] == shape:
            return frames
        raise InputError(
            f"this bundle takes GPU frames of {self._hw[1]}x{self._hw[0]}, uint8 {list(shape)} or "
            f"a batch of them, got {list(frames.shape)}; resize them on the GPU, or export with "
            "--frame WIDTHxHEIGHT for frames of another size"
        )

    def _new_resizer(self, shape: tuple[int, ...]) -> BandedResize:
        from taidpt.runtime.preprocess.resize import BandedResize

        return BandedResize((shape[0], shape[1]), self._hw, shape[2], self._is_exact(shape))

    def _is_exact(self, shape: tuple[int, ...]) -> bool:
        reduction = min(shape[0] / self._hw[0], shape[1] / self._hw[1])
        return not (self._fast and reduction >= _FAST_REDUCTION)

    def batch(self, frames: Sequence[npt.NDArray[Any]] | npt.NDArray[Any]) -> U8Array:
        """Frames, of any sizes, as one batch uint8 [N, height, width, 3] (or of NV12).

        Raises:
            InputError: there is none, or one of them is no frame.
        """
        if len(frames) == 0:
            raise InputError("a batch needs at least one frame, got none")
        shape = self.spec.frame_shape
        if _is_ready(frames, shape):
            return frames  # type: ignore[return-value]  # checked in the line above
        batch = np.empty((len(frames), *shape), np.uint8)
        for row, frame in zip(batch, frames, strict=True):
            row[...] = self(frame)
        return batch


def host_frame(frame: Any) -> npt.NDArray[Any]:
    """A frame in host memory, of NumPy or of a library that gives it by DLPack, without a copy.

    Raises:
        InputError: it is neither, or lies on a GPU.
    """
    if isinstance(frame, np.ndarray):
        return frame
    from taidpt.runtime.preprocess.device_frames import DeviceFrames, take_frames

    taken = take_frames(frame)
    if isinstance(taken, DeviceFrames):
        raise InputError(
            f"{_EXPECTED}, got one on GPU {taken.device}; GPU frames go to the tagger itself, one "
            "by one or as one array [N, height, width, 3]"
        )
    return frame if taken is None else taken


def to_u8(frame: npt.NDArray[Any]) -> U8Array:
    """Check a frame and bring it to uint8 [H, W, 1], [H, W, 3] or [H, W, 4].

    Raises:
        InputError: wrong type, shape, or an empty frame.
    """
    if not isinstance(frame, np.ndarray):
        raise InputError(f"{_EXPECTED}, got {_name(frame)}")
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


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_ready(
    frames: Sequence[npt.NDArray[Any]] | npt.NDArray[Any], shape: tuple[int, ...]
) -> bool:
    return isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.shape[1:] == shape


def _as_rgb(pixels: U8Array) -> U8Array:
    if pixels.shape[2] == 3:
        return pixels
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels[:, :, :3]


def _resize_rgba(pixels: U8Array, crop_hw: tuple[int, int]) -> U8Array:
    """Pillow's own resize, in which colours weigh by their alpha; rows first, then columns.

    Pillow 13 may begin with the columns when a box is given; one call a direction keeps the order
    in which it resizes whole pictures, and with it the rounding between the two.
    """
    from PIL import Image

    from taidpt.runtime.preprocess.resize import plan_crop

    frame_hw = pixels.shape[0], pixels.shape[1]
    height, width = crop_hw
    left, top, right, bottom = plan_crop(frame_hw, crop_hw).box(frame_hw, crop_hw)
    reach = 2 * max((bottom - top) / height, 1.0) + 1
    first, last = max(int(top - reach), 0), min(int(bottom + reach) + 1, frame_hw[0])
    image = Image.fromarray(np.ascontiguousarray(pixels[first:last])).convert("RGBa")
    bicubic = Image.Resampling.BICUBIC
    image = image.resize((width, last - first), bicubic, box=(left, 0, right, last - first))
    image = image.resize((width, height), bicubic, box=(0, top - first, width, bottom - first))
    return _as_rgb(np.asarray(image.convert("RGBA")))
