"""The bundle on disk: its manifest, loading with checks, and writing in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.runtime.bundle.bundle import Bundle as Bundle
    from taidpt.runtime.bundle.manifest import Manifest as Manifest
    from taidpt.runtime.bundle.writer import BundleWriter as BundleWriter

__getattr__, __dir__ = lazy_names(
    __name__, {"bundle": ("Bundle",), "manifest": ("Manifest",), "writer": ("BundleWriter",)}
)
