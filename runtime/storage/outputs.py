"""Files that a command was asked to write: refused early where they cannot be, or written whole."""

from __future__ import annotations

import os
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.atomic import write_atomically

__all__ = ["refuse_unwritable", "write_output"]


def refuse_unwritable(path: str | Path) -> None:
    """Raise InputError where a file cannot be written, before work is done for it."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"{path}: is a folder; give a file's name")
    if not target.parent.is_dir():
        raise InputError(f"{path}: its folder {Path(path).parent} does not exist")
    is_device = target.exists() and not target.is_file()
    if not os.access(target if is_device else target.parent, os.W_OK):
        raise InputError(f"{path}: no permission to write in {Path(path).parent}")


def write_output(path: str | Path, data: bytes, advice: str = "") -> None:
    """Write a file by a temporary sibling and a rename; a device or a pipe as it is.

    Args:
        advice: what to add to the error, with its own comma or semicolon.
    Raises:
        InputError: it cannot be written.
    """
    try:
        write_atomically(Path(path), data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}{advice}") from None
