"""TensorRT plugins of a library that the user names, such as ours (docs/kernels.md).

Loading a library runs its code, so the environment variable names it, never a bundle.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import BackendError
from taidpt.runtime.storage.atomic import sha256_of

__all__ = ["PLUGIN_VARIABLE", "load_plugins", "named_library", "plugin_sha256"]

PLUGIN_VARIABLE = "TAIDPT_PLUGIN"
_BUILD = (
    "cmake -S . -B build/native -DTENSORRT_INCLUDE_DIR=/path/to/TensorRT/include && "
    "cmake --build build/native"
)
# Libraries in the registry of each TensorRT package: a process registers a library once, and the
# handles must stay alive.
_LOADED: dict[tuple[str, Path], tuple[Any, Any]] = {}


def named_library() -> Path | None:
    """The library that the environment variable names; None if it is not set.

    Raises:
        BackendError: there is no such file.
    """
    name = os.environ.get(PLUGIN_VARIABLE, "")
    if not name:
        return None
    path = Path(name)
    if not path.is_file():
        raise _fault(path, "there is no such file")
    return path.resolve()


def plugin_sha256() -> str | None:
    """Hash of the named library, for the key of an engine built with it; None without one.

    Raises:
        BackendError: there is no such file, or it cannot be read.
    """
    path = named_library()
    if path is None:
        return None
    try:
        return sha256_of(path)
    except OSError as error:
        raise _fault(path, f"it cannot be read: {error.strerror}") from None


def load_plugins(trt: Any) -> Path | None:
    """Load the named library and register its plugins, once in a process.

    Args:
        trt: the package `tensorrt` or `tensorrt_rtx`.
    Returns:
        The library; None if none is named.
    Raises:
        BackendError: the library is missing, does not load, or holds no plugin for this package.
    """
    path = named_library()
    key = (str(trt.__name__), path) if path is not None else None
    if key is None or key in _LOADED:
        return path
    try:
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise _fault(key[1], f"it does not load: {error}") from None
    handle = trt.get_plugin_registry().load_library(str(path))
    if handle is None:
        reason = f"{trt.__name__} {trt.__version__} registers no plugin of it"
        raise _fault(key[1], reason)
    _LOADED[key] = (library, handle)
    return path


def _fault(path: Path, reason: str) -> BackendError:
    return BackendError(
        f"{PLUGIN_VARIABLE}={path}: {reason}; build it for the TensorRT that is installed: "
        f"{_BUILD}; or unset {PLUGIN_VARIABLE}"
    )
