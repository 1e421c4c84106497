"""Where frames come from: pictures, videos, cameras, pipelines, arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.runtime.sources.base import (
        Frame as Frame,
        Source as Source,
        SourceOptions as SourceOptions,
    )
    from taidpt.runtime.sources.combined import MergedSource as MergedSource
    from taidpt.runtime.sources.open import open_source as open_source
    from taidpt.runtime.sources.picture_files import read_image as read_image

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "base": ("Frame", "Source", "SourceOptions"),
        "combined": ("MergedSource",),
        "open": ("open_source",),
        "picture_files": ("read_image",),
    },
)
