"""A bundle that takes banks, and pictures to show it: what the calibration tests work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.runtime.tiny import TinySpec, tiny_bundle

__all__ = ["SPEC", "bundle_in", "draw_pictures"]

SPEC = TinySpec(bank_as="input")


def bundle_in(folder: Path) -> Path:
    """A bundle whose tags are SPEC's."""
    return tiny_bundle(folder / "scene.taidpt", SPEC)


def draw_pictures(folder: Path, count: int) -> Path:
    """Fill a folder with 00.png, 01.png, …: noise of 16 x 16, always the same."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for index in range(count):
        frame = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(frame).save(folder / f"{index:02}.png")
    return folder
