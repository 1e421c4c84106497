"""A source through a tagger: frames in, moments out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.runtime.stream.stream import Stream as Stream, StreamSettings as StreamSettings

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "stream": (
            "Stream",
            "StreamSettings",
        )
    },
)
