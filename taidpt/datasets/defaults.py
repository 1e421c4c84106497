"""What a command on a data set uses when no option says otherwise: model and weights."""

from __future__ import annotations

from pathlib import Path

from taidpt.clip.source import EMBEDDED_MODEL, Source, resolve_source
from taidpt.runtime.errors import InputError

__all__ = ["find_source"]


def find_source(
    dataset: str,
    root: Path | None,
    model: str | None,
    pretrained: str | None,
    cache: Path,
    seed: int = 0,
) -> tuple[Path, Source]:
    """Root and model of a job; the toy world has its own model and is unpacked to the cache.

    Raises:
        InputError: one is missing, or the model or its weights are unknown.
    """
    if dataset == "toyworld":
        root, model = root or cache, model or EMBEDDED_MODEL
    if root is None or model is None:
        raise InputError(f"data set {dataset!r} needs --root and --model")
    return root, resolve_source(model, pretrained, seed)
