"""This machine's record of trusted engines, outside of all bundles.

An engine is executable code. It is loaded only if its hash is in this record, where building an
engine on this machine puts it, or with `--trust-engine`.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import BackendError, InputError
from taidpt.runtime.storage.atomic import hold_lock, write_atomically
from taidpt.runtime.storage.json_reader import JsonReader, parse_object
from taidpt.runtime.storage.regular_file import read_regular
from taidpt.runtime.storage.user_folders import state_folder

__all__ = ["is_trusted", "read_trusted", "record_path", "trust"]

_SCHEMA = 1
_OTHERS_MAY_WRITE = 0o022  # write permission of group or others


def record_path() -> Path:
    """Path of the record: `$XDG_STATE_HOME/taidpt/trusted.json`, or below `~/.local/state`."""
    return state_folder() / "trusted.json"


def trust(path: Path) -> str:
    """Record a file that was built here as trusted on this machine.

    Returns:
        Its SHA-256.
    Raises:
        InputError: the file or the record cannot be read or written.
    """
    record = record_path()
    try:
        digest = hashlib.sha256(read_regular(path)).hexdigest()
        record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with hold_lock(record.parent):
            files = _read_record()
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            files[digest] = {"name": path.name, "added": now}
            document = {"schema": _SCHEMA, "files": files}
            write_atomically(record, json.dumps(document, indent=1, sort_keys=True).encode())
    except OSError as error:
        raise InputError(f"{error.filename or record}: {error.strerror}") from None
    return digest


def is_trusted(data: bytes) -> bool:
    """Whether the record lists the hash of this content."""
    return hashlib.sha256(data).hexdigest() in _read_record()


def read_trusted(path: Path, trust_engine: bool = False) -> bytes:
    """Read an engine, and return its content if it is trusted.

    The returned bytes are the bytes that were checked, so the file cannot change in between.

    Raises:
        BackendError: the record does not list the engine, and `trust_engine` is False.
        InputError: the file cannot be read.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if not (trust_engine or is_trusted(data)):
        raise BackendError(
            f"{path}: not built on this machine, and an engine is executable code; build it here "
            "with taidpt-export, or pass --trust-engine if you trust its source"
        )
    return data


def _read_record() -> dict[str, Any]:
    record = record_path()
    try:
        status = record.stat()
        data = read_regular(record)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BackendError(f"{record}: cannot be read: {error.strerror}") from None
    if os.name == "posix" and status.st_mode & _OTHERS_MAY_WRITE:
        raise BackendError(f"{record}: others may write to it; chmod 600 it and check its content")
    reader = JsonReader(parse_object(data, str(record)), str(record))
    if reader.integer("schema") > _SCHEMA:
        raise BackendError(f"{record}: written by a newer taidpt; update, or pass --trust-engine")
    return reader.child("files").document
