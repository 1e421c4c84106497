"""Features of scenes that are made of random numbers, with the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.adapting.similarity import Features
from taidpt.runtime.bank.class_bank import ClassBank, Threshold

__all__ = ["TAGS", "made_scene", "noise_scene", "unit"]

TAGS, DIM, PATCHES, FRAMES = 6, 32, 9, 120
Array = npt.NDArray[Any]


def unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def made_scene(seed: int, error: float = 1.2, part: int = 0) -> tuple[ClassBank, Features, Array]:
    """A bank, frames, and which tags each shows, bool [N, C].

    Patches lie around a common direction, plus that of the tag they show or of the background.

    Args:
        error: how far the bank's local rows are off.
        part: another part has other frames of the same scene.
    """
    generator = np.random.default_rng(seed)
    common = unit(generator.normal(size=DIM))
    centres = unit(generator.normal(size=(TAGS + 1, DIM)))  # the last: the background
    rows = [
        unit(centres[:TAGS] + much * unit(generator.normal(size=(TAGS, DIM))))
        for much in (error / 2, error)
    ]
    generator = np.random.default_rng((seed, part))
    labels = np.where(
        generator.random((FRAMES, PATCHES)) < 0.25,
        generator.integers(0, TAGS, (FRAMES, PATCHES)),
        TAGS,
    )
    noise = 0.9 * unit(generator.normal(size=(FRAMES, PATCHES, DIM)))
    patches = unit(common + centres[labels] + noise)
    shown = (labels[..., None] == np.arange(TAGS)).any(axis=1)
    bank = ClassBank.from_rows(
        tuple(f"tag {index}" for index in range(TAGS)),
        *(one.astype(np.float32) for one in rows),
        thresholds=(Threshold(1.0, 0.9, "default"),) * TAGS,
    )
    whole = unit(patches.mean(axis=1)).astype(np.float32)
    return bank, Features(whole, patches.astype(np.float32)), shown


def noise_scene() -> Features:
    """Frames of nothing."""
    generator = np.random.default_rng(99)
    patches = unit(generator.normal(size=(FRAMES, PATCHES, DIM))).astype(np.float32)
    whole = unit(generator.normal(size=(FRAMES, DIM))).astype(np.float32)
    return Features(whole, patches)
