"""Tags of whole archives: shards of clips to parquet tables, on many processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.runtime.archive.ray_tagger import RayTagger as RayTagger

# Which features of a frame are stored.
FEATURES = ("none", "global", "patches", "patches-int8")
__getattr__, __dir__ = lazy_names(__name__, {"ray_tagger": ("RayTagger",)}, {"ray_tagger": "ray"})
