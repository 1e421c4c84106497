"""What a command on a data set uses when no option says otherwise: cache folder, model, weights."""

from __future__ import annotations

import os
from pathlib import Path

from taidpt.clip.model import EMBEDDED_MODEL, check_clip_source
from taidpt.runtime.errors import InputError

__all__ = ["default_cache", "find_source"]


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/taidpt`, or `~/.cache/taidpt`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taidpt"


def find_source(
    dataset: str, root: Path | None, model: str | None, pretrained: str | None, cache: Path
) -> tuple[Path, str, str]:
    """Root, model and weights of a job; the toy world has its own and is unpacked to the cache.

    Raises:
        InputError: one is missing, or the model or its weights are unknown.
    """
    if dataset == "toyworld":
        root, model = root or cache, model or EMBEDDED_MODEL
        pretrained = pretrained or ("embedded" if model == EMBEDDED_MODEL else None)
    if root is None or model is None or pretrained is None:
        raise InputError(f"data set {dataset!r} needs --root, --model and --pretrained")
    check_clip_source(model, pretrained)
    return root, model, pretrained
