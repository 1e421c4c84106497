"""User input in messages: never more than a line of it."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

__all__ = ["listed", "quoted", "shortened"]

# A message shows the start of a value and at most this many values: enough to find them in a file.
_WIDTH = 72
_MOST_LISTED = 10

_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxlist, _REPR.maxdict, _REPR.maxtuple = 2, 4, 4, 4
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _WIDTH


def shortened(text: str, width: int = _WIDTH) -> str:
    """The text in at most `width` characters, with an ellipsis where it was cut."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def quoted(value: Any) -> str:
    """The `repr` of any value in at most a line, also of one that contains itself."""
    return shortened(_REPR.repr(value))


def listed(parts: Iterable[str], most: int = _MOST_LISTED) -> str:
    """The first parts with commas between them, and the number of the others."""
    every = list(parts)
    shown = ", ".join(every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most:,} more"
