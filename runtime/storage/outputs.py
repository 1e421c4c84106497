"""Output files of commands: refused before the work if unwritable, and written atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.atomic import write_atomically

__all__ = ["refuse_unwritable", "write_json", "write_output"]


def refuse_unwritable(path: str | Path | None) -> None:
    """Raise InputError if a file cannot be written, before the work for it starts.

    None and "-", standard output, pass.
    """
    if path is None or str(path) == "-":
        return
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"{path}: is a folder; give a file's name")
    if not target.parent.is_dir():
        raise InputError(f"{path}: its folder {Path(path).parent} does not exist")
    is_device = target.exists() and not target.is_file()
    if not os.access(target if is_device else target.parent, os.W_OK):
        raise InputError(f"{path}: no permission to write in {Path(path).parent}")


def write_output(path: str | Path, data: bytes) -> None:
    """Write a file atomically; devices and pipes are written directly.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        write_atomically(Path(path), data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def write_json(path: str | Path | None, document: Any) -> None:
    """Write what `--json FILE` asks for: to a file, to standard output for "-"; None writes none.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(document, ensure_ascii=False, indent=1)
    if str(path) == "-":
        print(text)
    elif path is not None:
        write_output(path, text.encode("utf-8", "backslashreplace") + b"\n")
