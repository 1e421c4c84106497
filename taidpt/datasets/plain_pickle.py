"""Reads the plain values of official split files, which are pickles, without running their code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError

__all__ = ["load_plain_pickle"]


def _allowed() -> dict[tuple[str, str], Any]:
    """The callables that pickled sets and NumPy integers need."""
    import _codecs

    import numpy as np

    scalar = np.int64(0).__reduce__()[0]
    rebuild = {(module, "scalar"): scalar for module in _MULTIARRAY}
    return {
        **rebuild,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _codecs.encode,
        **{(module, name): kind for module in _BUILTINS for name, kind in _SETS.items()},
    }


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUILTINS = ("builtins", "__builtin__")
_SETS = {"set": set, "frozenset": frozenset}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _allowed()[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def load_plain_pickle(path: Path, source: str) -> Any:
    """Read a pickle of dicts, lists, sets, texts and numbers.

    Args:
        path: the file.
        source: where it comes from.
    Raises:
        InputError: it is missing, damaged, or contains anything else.
    """
    try:
        with path.open("rb") as stream:
            return _PlainUnpickler(stream).load()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; it comes from {source}") from None
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: refused or damaged ({error})") from None
    except (
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        KeyError,
        OSError,
    ) as error:
        raise InputError(f"{path}: not a readable pickle ({error})") from None
