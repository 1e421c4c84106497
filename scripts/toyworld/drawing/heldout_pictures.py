"""Choose and encode the scenes of a data set split, with enough pictures of every tag."""

from __future__ import annotations

import io
from collections import Counter

from PIL import Image

from scripts.toyworld.drawing.backgrounds import HELDOUT_FAMILIES
from scripts.toyworld.drawing.scenes import Scene, SceneSettings, render_scene
from scripts.toyworld.drawing.things import TAG_NAMES

__all__ = ["HELDOUT_SPLIT", "choose_scenes", "encode_webp"]

HELDOUT_SPLIT = 2
"""First number of a held-out scene's seed; other splits use other numbers."""


def choose_scenes(positives: int = 20, split: int = HELDOUT_SPLIT) -> list[Scene]:
    """Scenes in the order of their seeds that each show a tag still short of pictures.

    Args:
        positives: pictures that every tag must have.
        split: first number of the scenes' seeds.
    """
    counts: Counter[int] = Counter()
    kept: list[Scene] = []
    index = 0
    while min(counts[tag] for tag in range(len(TAG_NAMES))) < positives:
        scene = render_scene((split, index), SceneSettings(families=HELDOUT_FAMILIES))
        index += 1
        if any(counts[thing] < positives for thing in scene.things):
            counts.update(scene.things)
            kept.append(scene)
    return kept


def encode_webp(scene: Scene) -> bytes:
    """A scene's picture as the data set stores it."""
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, "WEBP", quality=85, method=6)
    return buffer.getvalue()
