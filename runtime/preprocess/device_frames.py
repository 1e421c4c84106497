"""Frames in GPU memory or in arrays of other libraries, read without a copy.

Two protocols, neither of which needs a package: DLPack (PyTorch, CuPy, PyNvVideoCodec, …) and
`__cuda_array_interface__` (CuPy, Numba, NVIDIA's VPI, DeepStream's buffers through CuPy, …).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError

__all__ = ["DeviceFrames", "take_frames"]

# DLPack's numbers of device types, and of the data type uint8.
_CPU, _CUDA, _CUDA_HOST, _CUDA_MANAGED = 1, 2, 3, 13
_IN_HOST_MEMORY = (_CPU, _CUDA_HOST)
_UINT, _BITS = 1, 8
# Both protocols number the default streams: 1 is the legacy stream, 2 that of each thread.
_LEGACY_STREAM = 1


@dataclass(frozen=True, eq=False)
class DeviceFrames:
    """A dense uint8 batch of frames in GPU memory.

    Attributes:
        address: address of the first byte.
        shape: [N, …], N frames of one shape.
        device: the number of the GPU.
        stream: the CUDA stream whose work must finish before the frames are read; None if there
            is nothing to wait for.
        owner: the object that keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    device: int
    stream: int | None
    owner: object

    @property
    def nbytes(self) -> int:
        """Size of the whole batch in bytes."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]


def take_frames(frames: object) -> npt.NDArray[Any] | DeviceFrames | None:
    """View a frame or a batch of another library, without a copy.

    Args:
        frames: an object with `__dlpack__` or `__cuda_array_interface__`.
    Returns:
        An array for host memory; DeviceFrames of the same shape for GPU memory; None if the
        object supports neither protocol.
    Raises:
        InputError: GPU frames are not uint8 or not dense, or the device is of another kind.
    """
    if isinstance(frames, (np.ndarray, DeviceFrames)):
        return frames
    # preferred, because it names the producer's stream; DLPack asks for a stream of the consumer
    interface = getattr(frames, "__cuda_array_interface__", None)
    if isinstance(interface, Mapping):
        return _from_interface(interface, frames)
    if hasattr(frames, "__dlpack__") and hasattr(frames, "__dlpack_device__"):
        return _from_dlpack(frames)
    return None


def _from_interface(interface: Mapping[str, Any], owner: object) -> DeviceFrames:
    where = f"{_name(owner)} (__cuda_array_interface__)"
    try:
        shape = tuple(int(size) for size in interface["shape"])
        dtype = np.dtype(interface["typestr"])
        address = int(interface["data"][0])
        # before version 3 the interface had no stream
        strides, stream = interface.get("strides"), interface.get("stream", _LEGACY_STREAM)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{where}: damaged: {error!r}") from None
    _check(where, dtype == np.uint8, str(dtype), shape, strides)
    return DeviceFrames(address, shape, 0, None if stream is None else int(stream), owner)


def _from_dlpack(frames: Any) -> npt.NDArray[Any] | DeviceFrames:
    kind, device = (int(value) for value in frames.__dlpack_device__())
    where = f"{_name(frames)} (DLPack)"
    if kind in _IN_HOST_MEMORY:
        try:
            return np.from_dlpack(frames)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{where}: cannot be read: {error}") from None
    if kind not in (_CUDA, _CUDA_MANAGED):
        raise InputError(
            f"{where}: on a device of DLPack type {kind}; expected host memory or an NVIDIA GPU"
        )
    # the producer makes the legacy stream wait for its own work; the backend waits for that
    capsule = frames.__dlpack__(stream=_LEGACY_STREAM)
    tensor = _tensor_of(capsule)
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = [tensor.strides[axis] for axis in range(tensor.ndim)] if tensor.strides else None
    is_u8 = (tensor.code, tensor.bits, tensor.lanes) == (_UINT, _BITS, 1)
    _check(where, is_u8, f"DLPack type ({tensor.code}, {tensor.bits} bits)", shape, strides)
    address = (tensor.data or 0) + tensor.byte_offset
    # the capsule still owns the tensor: its producer frees it with the capsule
    return DeviceFrames(address, shape, device, _LEGACY_STREAM, (capsule, frames))


class _DLTensor(ctypes.Structure):
    """DLPack's `DLTensor`, which is the same in all versions."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _tensor_of(capsule: object) -> Any:
    """The tensor in an unversioned capsule, which producers return if no version is asked for."""
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype = ctypes.c_void_p
    pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)
    return _DLTensor.from_address(pointer_of(capsule, b"dltensor") or 0)


def _check(where: str, is_u8: bool, dtype: str, shape: tuple[int, ...], strides: Any) -> None:
    """Refuse other types and gaps; strides in elements and in bytes are the same for uint8."""
    if not is_u8:
        raise InputError(f"{where}: GPU frames should be uint8, got {dtype}")
    if not shape or 0 in shape:
        raise InputError(f"{where}: GPU frames should not be empty, got shape {list(shape)}")
    dense = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if strides is not None and any(
        size > 1 and int(stride) != step
        for size, stride, step in zip(shape, strides, dense, strict=True)
    ):
        raise InputError(
            f"{where}: GPU frames should be dense, got strides {list(strides)} for shape "
            f"{list(shape)}; make it contiguous on the GPU first"
        )


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
