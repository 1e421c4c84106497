"""Reading a safetensors file: each tensor directly into its own array, from one open file.

The safetensors library maps the file or copies it through bytes. That takes several times as long,
and reading a map of a file that is truncated meanwhile ends the process with SIGBUS.
"""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.json_reader import JsonReader, parse_object
from taidpt.runtime.storage.regular_file import open_regular

__all__ = ["TensorFile"]

_MAX_HEADER = 64 << 20  # bytes; names and metadata of a million tags fit, a damaged length does not
_TYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64}


class _Place(NamedTuple):
    kind: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    size: int


class TensorFile(AbstractContextManager["TensorFile"]):
    """An open safetensors file of F32, F64 and I64 tensors.

    A rename that replaces the file meanwhile has no effect on an open one.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and read its header.

        Raises:
            InputError: the file cannot be opened.
            BundleError: the header is damaged.
        """
        self._path = path
        try:
            self._stream = open_regular(path)
        except IsADirectoryError:
            raise InputError(
                f"{path}: expected a bank, one file as `taidpt bank make` writes it, found a "
                "folder; a bundle's own bank needs no naming"
            ) from None
        except OSError as error:
            raise InputError(f"{path}: cannot read the bank: {error.strerror}") from None
        try:
            self._header, self._begin, self._size = self._read_header()
        except BaseException:
            self._stream.close()
            raise
        self._names = tuple(name for name in self._header if name != "__metadata__")

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def metadata(self, key: str) -> str:
        """A string of the header's metadata; BundleError if there is none."""
        where = f"{self._path} (its metadata)"
        return JsonReader(self._header.get("__metadata__"), where).string(key)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All tensors.

        Raises:
            BundleError: a tensor is damaged, or the tensors do not fill the file.
        """
        places = {name: self._place(name) for name in self._names}
        end = self._begin
        for place in sorted(places.values(), key=lambda place: (place.begin, place.size)):
            if place.begin != end:
                raise self._damaged("its tensors overlap or leave gaps")
            end += place.size
        if end != self._size:
            raise self._damaged(f"{self._size} bytes in place of {end}")
        return {name: self._read(place) for name, place in places.items()}

    def map(self, name: str) -> npt.NDArray[Any]:
        """Map a tensor read-only; its bytes are read when they are used.

        Raises:
            BundleError: there is no such tensor, or it is damaged.
        """
        place = self._place(name)
        try:
            return np.memmap(self._stream, place.kind, "r", place.begin, place.shape)
        except (OSError, ValueError) as error:
            raise self._damaged(str(error)) from None

    def _read(self, place: _Place) -> npt.NDArray[Any]:
        try:
            array = np.empty(place.shape, place.kind)
        except MemoryError:
            raise BundleError(
                f"{self._path}: a tensor of {place.size / 1e9:.1f} GB does not fit into memory; "
                "use a bank of fewer tags"
            ) from None
        try:
            self._stream.seek(place.begin)
            whole = not array.size or self._stream.readinto(array.data.cast("B")) == place.size
        except OSError as error:
            raise self._damaged(str(error.strerror)) from None
        if not whole:
            raise self._damaged("it was cut off while it was read")
        return array

    def _place(self, name: str) -> _Place:
        if name not in self._names:
            raise BundleError(f"{self._path}: the bank has no tensor {name!r}")
        entry = JsonReader(self._header[name], f"{self._path} ({name})")
        kind = np.dtype(_TYPES[entry.choice("dtype", tuple(_TYPES))])
        shape, offsets = entry.integers("shape"), entry.integers("data_offsets")
        size = math.prod(shape) * kind.itemsize
        fits = len(offsets) == 2 and min((*shape, *offsets)) >= 0
        if not fits or offsets[1] - offsets[0] != size or self._begin + offsets[1] > self._size:
            raise self._damaged(f"{name} is not where its header says")
        return _Place(kind, shape, self._begin + offsets[0], size)

    def _read_header(self) -> tuple[dict[str, Any], int, int]:
        """The JSON header, where the tensors begin, and the size of the file."""
        try:
            total = os.fstat(self._stream.fileno()).st_size
            size = int.from_bytes(self._stream.read(8), "little")
            raw = self._stream.read(size) if size <= _MAX_HEADER else b""
        except OSError as error:
            raise InputError(f"{self._path}: cannot read the bank: {error.strerror}") from None
        return parse_object(raw, f"{self._path} (a safetensors header)"), 8 + size, total

    def _damaged(self, why: str) -> BundleError:
        return BundleError(f"{self._path}: damaged bank ({why}); export the bundle again")
