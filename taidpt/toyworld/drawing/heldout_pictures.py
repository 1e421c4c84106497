"""Renders the held-out set: at least twenty pictures with each tag, as WebP in one zip."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from pathlib import Path

from PIL import Image

from taidpt.toyworld.drawing.backgrounds import HELDOUT_FAMILIES
from taidpt.toyworld.drawing.scenes import Scene, SceneSettings, render_scene
from taidpt.toyworld.drawing.things import TAG_NAMES

__all__ = ["HELDOUT_SPLIT", "choose_scenes", "encode_webp", "write_heldout"]

HELDOUT_SPLIT = 2
"""First number of the seed of a held-out scene; training scenes have another."""

_EPOCH = (2024, 1, 1, 0, 0, 0)


def choose_scenes(positives: int = 20, split: int = HELDOUT_SPLIT) -> list[Scene]:
    """Scenes in the order of their seeds, each kept if it shows a tag that still lacks pictures.

    Args:
        positives: how many pictures every tag must have.
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
    """A scene's picture as the held-out set holds it."""
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, "WEBP", quality=85, method=6)
    return buffer.getvalue()


def write_heldout(target: Path, positives: int = 20) -> int:
    """Write the zip that `load_heldout` reads; returns how many pictures it holds."""
    scenes = choose_scenes(positives)
    pictures = [
        {
            "file": f"{row:04d}.webp",
            "tags": [TAG_NAMES[thing] for thing in scene.things],
            "background": scene.background.family,
        }
        for row, scene in enumerate(scenes)
    ]
    facts = json.dumps({"tags": TAG_NAMES, "pictures": pictures}, indent=1).encode()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo("labels.json", _EPOCH), facts, zipfile.ZIP_DEFLATED)
        for picture, scene in zip(pictures, scenes, strict=True):
            archive.writestr(zipfile.ZipInfo(str(picture["file"]), _EPOCH), encode_webp(scene))
    return len(scenes)
