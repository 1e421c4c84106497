"""A stub of PyNvVideoCodec: PyAV decodes, and the frames lie in the stub driver's memory.

Each has DLPack for the "GPU", as the real ones do.
"""

from __future__ import annotations

import ctypes
import enum
from typing import Any

import av
import numpy as np

_DRIVER = ctypes.CDLL("libcuda.so.1")
_CUDA = 2


class OutputColorType(enum.Enum):
    NATIVE = 0
    RGB = 1


class DecodedFrame:
    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, 0

    def __dlpack__(self, stream: int | None = None) -> Any:
        assert stream == 1, "the consumer must name the stream that it waits for"
        return self._pixels.__dlpack__()


class SimpleDecoder:
    def __init__(
        self,
        enc_file_path: str,
        gpu_id: int,
        use_device_memory: bool,
        output_color_type: OutputColorType,
    ) -> None:
        assert gpu_id == 0
        assert use_device_memory
        assert output_color_type is OutputColorType.RGB
        with av.open(enc_file_path) as container:
            self._frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> DecodedFrame:
        frame = self._frames[index]
        _DRIVER.cuCtxSetCurrent(ctypes.c_void_p(0x77))
        address = ctypes.c_void_p()
        assert _DRIVER.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(frame.nbytes)) == 0
        raw = (ctypes.c_uint8 * frame.nbytes).from_address(address.value or 0)
        pixels = np.frombuffer(raw, np.uint8).reshape(frame.shape)
        pixels[...] = frame
        return DecodedFrame(pixels)
