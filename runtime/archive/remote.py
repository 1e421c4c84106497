"""Clips at addresses that fsspec opens: s3://, gs://, sftp:// and whatever has a package for it.

Credentials and options are fsspec's own (the environment, ~/.config/fsspec), or part of the
address; names and errors hide them.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import BackendError, InputError, MissingDependencyError, TaidptError
from taidpt.runtime.redact import protect, redact
from taidpt.runtime.sources.open import MEDIA_SUFFIXES

__all__ = ["fetch", "list_remote"]

_BLOCK = 4 << 20
_SIGN_OF_LIFE_S = 1.0
# What file systems call the time of the last change, the first that is there.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modify", "created")


def list_remote(url: str) -> Iterator[tuple[str, int, int]]:
    """Address, size in bytes and time of change (ns, 0 where unknown) of each clip at an address.

    Args:
        url: of a file, a folder with all folders inside it, or a pattern.
    Raises:
        InputError: there is no picture or video, or it cannot be listed.
        MissingDependencyError: the package for its protocol is missing.
    """
    try:
        system, path = _open(url)
        named = not glob.has_magic(path) or system.exists(path)
        found = [system.info(path)] if named else system.glob(path, detail=True).values()
        files = [info for entry in found for info in _files(system, entry)]
    except TaidptError:
        raise
    except Exception as error:  # each file system has exceptions of its own
        raise InputError(f"{redact(url)}: cannot be listed: {_line(error)}") from None
    alone = named and [info["name"] for info in files] == [path]
    clips = [i for i in files if alone or Path(i["name"]).suffix.lower() in MEDIA_SUFFIXES]
    if not clips:
        raise InputError(f"{redact(url)}: no pictures or videos there")
    for info in clips:
        yield _address(url, system, path, info["name"]), int(info.get("size") or 0), _time_ns(info)


def fetch(url: str, target: Path) -> Iterator[None]:
    """Copy a file from an address; yield about once a second while it arrives.

    Raises:
        InputError: it is gone, or may not be read.
        BackendError: the connection or the local disk fails, so that no clip can be read.
    """
    try:
        system, path = _open(url)
        seen_s = time.monotonic()
        with system.open(path, "rb") as source, target.open("wb") as copy:
            while block := source.read(_BLOCK):
                copy.write(block)
                if time.monotonic() - seen_s > _SIGN_OF_LIFE_S:
                    yield
                    seen_s = time.monotonic()
    except TaidptError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise InputError(f"{redact(url)}: cannot be read: {_line(error)}") from None
    except Exception as error:  # each file system has exceptions of its own
        raise BackendError(
            f"{redact(url)}: cannot be copied to this machine: {_line(error)}; finished shards are "
            "kept: run the same command again to continue"
        ) from None


def _open(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    import fsspec

    protect(url)
    if "::" in url:
        raise InputError(f"{redact(url)}: chained addresses (::) are not read; give the inner file")
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingDependencyError(f"{redact(url)}: {error}: pip install it") from None
    except ValueError as error:
        raise InputError(f"{redact(url)}: {_line(error)}; fsspec has no such file system") from None
    return system, str(path)


def _files(system: Any, entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A file itself, or all files in a folder."""
    if entry["type"] != "directory":
        yield entry
    else:
        yield from system.find(entry["name"], detail=True).values()


def _address(url: str, system: Any, path: str, name: str) -> str:
    """The address of a file that was found at an address, whose path in its file system is given.

    Hosts and credentials are in the address alone.
    """
    prefix = url.rstrip("/").removesuffix(path)
    return f"{prefix}{name}" if prefix != url.rstrip("/") else str(system.unstrip_protocol(name))


def _time_ns(info: Mapping[str, Any]) -> int:
    """The time of change in ns; of a text that is no date, a number that changes with it."""
    value: Any = next((info[name] for name in _TIMES if info.get(name)), 0)
    if isinstance(value, str):
        digits = "".join(filter(str.isdecimal, value))[:18]
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:  # such as FTP's 20261128153000
            return int(digits or 0)
    return int((value.timestamp() if isinstance(value, datetime) else float(value)) * 1e9)


def _line(error: Exception) -> str:
    """An exception as one line, without credentials."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return redact(text)[:300] or type(error).__name__
