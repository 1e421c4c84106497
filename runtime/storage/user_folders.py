"""The user's own folders, by the XDG base directory specification."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder", "state_folder"]


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/taidpt`, or `~/.cache/taidpt`: what can be made again."""
    return _folder("XDG_CACHE_HOME", ".cache")


def state_folder() -> Path:
    """`$XDG_STATE_HOME/taidpt`, or `~/.local/state/taidpt`: records of this machine."""
    return _folder("XDG_STATE_HOME", ".local/state")


def _folder(variable: str, below_home: str) -> Path:
    """The specification says to ignore relative paths."""
    base = Path(os.environ.get(variable, ""))
    return (base if base.is_absolute() else Path.home() / below_home) / "taidpt"
