"""The number and architecture of this machine's GPUs, asked of the CUDA driver alone."""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["gpu_architecture", "gpu_count"]

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute in cuda.h


def gpu_architecture() -> str | None:
    """The architecture of the first GPU, as in "sm_87"; None without a GPU or its driver."""
    driver, device = _driver(), ctypes.c_int()
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    numbers = [_attribute(driver, n, device) for n in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)]
    return None if None in numbers else f"sm_{numbers[0]}{numbers[1]}"


def gpu_count() -> int:
    """The number of GPUs that this process may use; 0 without a driver."""
    driver, count = _driver(), ctypes.c_int()
    return 0 if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) else count.value


def _driver() -> Any:
    """The driver's library, initialised; None if there is none, or no GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return None if driver.cuInit(0) else driver


def _attribute(driver: Any, number: int, device: ctypes.c_int) -> int | None:
    value = ctypes.c_int()
    failed = driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return None if failed else value.value
