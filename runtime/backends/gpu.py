"""The architecture of this machine's GPU, asked of the CUDA driver without any package."""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["gpu_architecture"]

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute in cuda.h


def gpu_architecture() -> str | None:
    """The architecture of the first GPU, as in "sm_87"; None without a GPU or its driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    numbers = [_attribute(driver, n, device) for n in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)]
    return None if None in numbers else f"sm_{numbers[0]}{numbers[1]}"


def _attribute(driver: Any, number: int, device: ctypes.c_int) -> int | None:
    value = ctypes.c_int()
    failed = driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return None if failed else value.value
