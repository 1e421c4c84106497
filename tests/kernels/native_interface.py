"""The C library's interface for ctypes, without a heavy import."""

from __future__ import annotations

import ctypes

__all__ = ["Arguments", "declared"]


class Arguments(ctypes.Structure):
    """taidpt_local_similarity_args."""

    _fields_ = (
        ("patches", ctypes.c_void_p),
        ("class_embeddings", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("mask", ctypes.c_void_p),
        ("similarities", ctypes.c_void_p),
        ("batch", ctypes.c_int32),
        ("patch_count", ctypes.c_int32),
        ("class_count", ctypes.c_int32),
        ("dim", ctypes.c_int32),
        ("temperature", ctypes.c_float),
        ("dtype", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("stream", ctypes.c_void_p),
    )


def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The same library, told of its functions' types."""
    library.taidpt_local_similarity.argtypes = [ctypes.POINTER(Arguments)]
    library.taidpt_competing_similarity.argtypes = [ctypes.POINTER(Arguments), ctypes.c_void_p]
    library.taidpt_competing_workspace.argtypes = [ctypes.POINTER(Arguments)]
    library.taidpt_competing_workspace.restype = ctypes.c_size_t
    library.taidpt_last_error.restype = ctypes.c_char_p
    return library
