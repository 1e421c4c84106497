"""The held-out pictures: scenes with seeds and background families unseen in training."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taidpt.runtime.storage.json_reader import parse_json
from taidpt.toyworld import assets

__all__ = ["load_heldout"]


def load_heldout(
    path: Path | None = None, every: int = 1
) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64], tuple[str, ...]]:
    """Read the held-out set.

    Args:
        path: a zip of the same form, None for the shipped one.
        every: reads every so many of the pictures alone, from the first on.
    Returns:
        Pictures, uint8 RGB [H, W, 3]; labels 0 or 1, [N, C]; the C tag names.
    """
    with zipfile.ZipFile(path or assets.heldout_path()) as archive:
        facts = parse_json(archive.read("labels.json"))
        names = tuple(facts["tags"])
        chosen = facts["pictures"][::every]
        labels = np.zeros((len(chosen), len(names)), np.int64)
        images: list[NDArray[np.uint8]] = []
        for row, picture in enumerate(chosen):
            stored = Image.open(io.BytesIO(archive.read(picture["file"])))
            images.append(np.asarray(stored.convert("RGB")))
            labels[row, [names.index(tag) for tag in picture["tags"]]] = 1
    return images, labels, names
