"""Tags of archives in pipelines of one's own: `taidpt.archive.RayTagger` (needs `taidpt[ray]`)."""

from __future__ import annotations

from taidpt.runtime.archive import RayTagger

__all__ = ["RayTagger"]
