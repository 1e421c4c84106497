"""Output files of commands: refused before the work if unwritable, and written atomically."""

from __future__ import annotations

import os
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.atomic import write_atomically

__all__ = ["refuse_unwritable", "write_output"]


def refuse_unwritable(path: str | Path) -> None:
    """Raise InputError if a file cannot be written, before the work for it starts."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"{path}: is a folder; give a file's name")
    if not target.parent.is_dir():
        raise InputError(f"{path}: its folder {Path(path).parent} does not exist")
    is_device = target.exists() and not target.is_file()
    if not os.access(target if is_device else target.parent, os.W_OK):
        raise InputError(f"{path}: no permission to write in {Path(path).parent}")


def write_output(path: str | Path, data: bytes, advice: str = "") -> None:
    """Write a file atomically; devices and pipes are written directly.

    Args:
        advice: added to the error, with its own comma or semicolon.
    Raises:
        InputError: the file cannot be written.
    """
    try:
        write_atomically(Path(path), data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}{advice}") from None
