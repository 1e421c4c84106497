"""A frame of any size → the uint8 input that the graph takes, equal to open_clip's transform.

The resize is bicubic and antialiased, with 8 bits a channel, as in Pillow. The bundle's view says
whether the sides are cut off. The graph itself normalises.
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
from taidpt.runtime.preprocess import RESIZES

if TYPE_CHECKING:
    from taidpt.runtime.preprocess.device_frames import DeviceFrames
    from taidpt.runtime.preprocess.resize import BandedResize
    from taidpt.runtime.sources.base import SourceOptions

__all__ = ["Preprocessor", "U8Array", "host_frame", "to_u8"]

U8Array = npt.NDArray[np.uint8]
# "fast" applies from this reduction on. Below it the order of the passes is visible at hard edges:
# the normalised tensor of photographs differed by up to 0.10 at a reduction of 1.5, and by 0.04 at
# 3 and more. Kept frame sizes: several cameras, or a folder of pictures of a few sizes.
_FAST_REDUCTION = 3.0
_KEPT_SIZES = 8

_EXPECTED = "expected a NumPy array, uint8 RGB [height, width, 3]"


class Preprocessor:
    """Converts frames to the graph's input; several threads may call it at once."""

    def __init__(self, spec: InputSpec, resize: str = "exact") -> None:
        """Prepare for the input of a bundle.

        Args:
            spec: `input` of the manifest.
            resize: "exact" equals Pillow's result to one grey level. "fast" differs by a few
                levels at hard edges and takes about 60 % of the time for frames that are reduced
                threefold or more; smaller reductions are exact. "decoder" lets FFmpeg scale videos
                and streams as they are decoded (`source_options`); frames given here are exact.
        Raises:
            InputError: `resize` is another word, or "decoder" for a graph that resizes itself.
        """
        if resize not in RESIZES:
            raise InputError(f"resize should be one of {', '.join(RESIZES)}, got {resize!r}")
        if resize == "decoder" and spec.baked_resize is not None:
            raise InputError(
                "--resize decoder: this bundle's graph resizes frames itself; leave the option out"
            )
        self.spec = spec
        self._hw = spec.height, spec.width
        self._resizer = functools.lru_cache(maxsize=_KEPT_SIZES)(self._new_resizer)
        self._fast, self._in_decoder = resize == "fast", resize == "decoder"

    def __call__(self, frame: npt.NDArray[Any]) -> U8Array:
        """Convert one frame.

        Args:
            frame: uint8 RGB [H, W, 3]; also grey [H, W] or [H, W, 1], RGBA [H, W, 4] (resized
                with premultiplied alpha as in Pillow, then alpha is dropped), and uint16 or bool
                of these shapes. For a bundle that takes NV12: uint8 [H · 3/2, W] of its size.
        Returns:
            uint8 RGB [height, width, 3], or NV12; the frame itself if it has this size already.
        Raises:
            InputError: `frame` is no such array.
        """
        pixels = host_frame(frame)
        if self.spec.format == NV12:
            return self._nv12(pixels)
        pixels = to_u8(pixels)
        if pixels.shape[:2] == self._hw:
            return _as_rgb(pixels)
        if self.spec.baked_resize is not None:
            raise InputError(
                f"this bundle takes frames of {self._hw[1]}x{self._hw[0]} alone, which its graph "
                f"resizes, got {pixels.shape[1]}x{pixels.shape[0]}; export again for this size"
            )
        if pixels.shape[2] == 4:
            return _resize_rgba(pixels, self.spec)
        return _as_rgb(self._resizer(pixels.shape)(pixels))

    def _nv12(self, frame: npt.NDArray[Any]) -> U8Array:
        """Check a decoder's frame; the graph converts its colours and resizes it."""
        shape = self.spec.frame_shape
        if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.shape == shape:
            return frame
        got = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else "none"
        raise InputError(
            f"this bundle takes NV12 frames of {self._hw[1]}x{self._hw[0]}, uint8 {list(shape)}, "
            f"got {got}; for RGB pictures export again without --frame-format nv12"
        )

    def source_options(self, options: SourceOptions) -> SourceOptions:
        """Options of a source whose frames are for this input."""
        if not self._in_decoder:
            return dataclasses.replace(options, colours=self.spec.source_colours)
        from taidpt.runtime.preprocess.decoder_resize import DecoderResize

        return dataclasses.replace(options, scaler=functools.partial(DecoderResize, self.spec))

    def on_device(self, frames: object) -> DeviceFrames:
        """Check GPU frames and return them as a batch [N, …], without a copy.

        Raises:
            InputError: they are not DeviceFrames, or not of the graph's size and format.
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
            "--frame-size WIDTHxHEIGHT for frames of another size"
        )

    def _new_resizer(self, shape: tuple[int, ...]) -> BandedResize:
        from taidpt.runtime.preprocess.resize import BandedResize

        size, exact = (shape[0], shape[1]), self._is_exact(shape)
        return BandedResize(size, self._hw, shape[2], exact, self.spec.view)

    def _is_exact(self, shape: tuple[int, ...]) -> bool:
        reduction = min(shape[0] / self._hw[0], shape[1] / self._hw[1])
        return not (self._fast and reduction >= _FAST_REDUCTION)

    def batch(self, frames: Sequence[npt.NDArray[Any]] | npt.NDArray[Any]) -> U8Array:
        """Convert frames of any sizes to one batch, uint8 [N, height, width, 3] or NV12.

        Raises:
            InputError: `frames` is empty, or one of them is not a frame.
        """
        if len(frames) == 0:
            raise InputError("a batch needs at least one frame, got none")
        shape = self.spec.frame_shape
        ready = getattr(frames, "dtype", None) == np.uint8 and np.shape(frames)[1:] == shape
        if ready and isinstance(frames, np.ndarray):
            return frames
        batch = np.empty((len(frames), *shape), np.uint8)
        for row, frame in zip(batch, frames, strict=True):
            row[...] = self(frame)
        return batch


def host_frame(frame: Any) -> npt.NDArray[Any]:
    """View a frame in host memory, of NumPy or of a library with DLPack, without a copy.

    Raises:
        InputError: the frame is in GPU memory, or its type is not supported.
    """
    if isinstance(frame, np.ndarray):
        return frame
    from taidpt.runtime.preprocess.device_frames import DeviceFrames, take_frames

    array = take_frames(frame)
    if isinstance(array, DeviceFrames):
        raise InputError(
            f"{_EXPECTED}, got one on GPU {array.device}; give GPU frames to the tagger itself, "
            "one by one or as one array [N, height, width, 3]"
        )
    return frame if array is None else array


def to_u8(frame: npt.NDArray[Any]) -> U8Array:
    """Check a frame and convert it to uint8 [H, W, 1], [H, W, 3] or [H, W, 4].

    Raises:
        InputError: wrong type or shape, or an empty frame.
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


def _as_rgb(pixels: U8Array) -> U8Array:
    if pixels.shape[2] == 3:
        return pixels
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels[:, :, :3]


def _resize_rgba(pixels: U8Array, spec: InputSpec) -> U8Array:
    """Resize with Pillow, which weights colours by alpha; rows first, then columns.

    Pillow 13 may resize the columns first when a box is given. One call for each direction keeps
    the order, and with it the intermediate rounding, of whole pictures.
    """
    from PIL import Image

    frame_hw = pixels.shape[0], pixels.shape[1]
    height, width = spec.crop_hw
    left, top, right, bottom = spec.plan(frame_hw).box(frame_hw, spec.crop_hw)
    reach = 2 * max((bottom - top) / height, 1.0) + 1
    first, last = max(int(top - reach), 0), min(int(bottom + reach) + 1, frame_hw[0])
    image = Image.fromarray(np.ascontiguousarray(pixels[first:last])).convert("RGBa")
    bicubic = Image.Resampling.BICUBIC
    image = image.resize((width, last - first), bicubic, box=(left, 0, right, last - first))
    image = image.resize((width, height), bicubic, box=(0, top - first, width, bottom - first))
    return _as_rgb(np.asarray(image.convert("RGBA")))
