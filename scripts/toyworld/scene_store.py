"""Rendered scenes kept on disk, and batches cut from them.

Scenes are rendered once into a flat uint8 file, which is memory-mapped. Each draw of a scene words
a new caption.
"""

from __future__ import annotations

import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.toyworld.captions import TRAIN_WORDING, caption
from scripts.toyworld.drawing.scenes import SceneSettings, render_scene

__all__ = ["TRAIN_SPLIT", "Batch", "SceneStore", "render_store"]

TRAIN_SPLIT = 1
"""First number of a training scene's seed; held-out pictures and the video use others."""

_CHUNK = 500  # scenes rendered by one process at a time


@dataclass(frozen=True)
class Batch:
    """Pictures uint8 [B, S, S, 3] and one caption a picture."""

    images: NDArray[np.uint8]
    captions: list[str]


def _render_chunk(job: tuple[str, int, int, int]) -> list[dict[str, object]]:
    file, total, start, size = job
    store = np.memmap(file, np.uint8, "r+", shape=(total, size, size, 3))
    facts: list[dict[str, object]] = []
    for index in range(start, min(start + _CHUNK, total)):
        scene = render_scene((TRAIN_SPLIT, index), SceneSettings(size=size))
        store[index] = scene.image
        facts.append(
            {
                "things": [placed.thing for placed in scene.placed],
                "background": [scene.background.family, scene.background.colour],
            }
        )
    store.flush()
    return facts


def render_store(folder: Path, count: int, size: int = 160, processes: int = 2) -> None:
    """Render `count` training scenes into `folder` unless it holds them already.

    Raises:
        MissingDependencyError: the emoji font is not installed.
    """
    index = folder / "scenes.json"
    if index.is_file() and len(json.loads(index.read_text())["scenes"]) >= count:
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scenes.u8"
    np.memmap(file, np.uint8, "w+", shape=(count, size, size, 3)).flush()
    jobs = [(str(file), count, start, size) for start in range(0, count, _CHUNK)]
    with ProcessPoolExecutor(processes) as pool:
        facts = [fact for chunk in pool.map(_render_chunk, jobs) for fact in chunk]
    index.write_text(json.dumps({"size": size, "scenes": facts}))


class SceneStore:
    """Training scenes on disk."""

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / "scenes.json").read_text())
        self._scenes = facts["scenes"]
        self.size: int = facts["size"]
        self._counts = np.array([len(scene["things"]) for scene in self._scenes])
        shape = (len(self._scenes), self.size, self.size, 3)
        self._pixels = np.memmap(folder / "scenes.u8", np.uint8, "r", shape=shape)

    def __len__(self) -> int:
        return len(self._scenes)

    def with_at_most(self, things: int) -> NDArray[np.int64]:
        """Indices of the scenes with at most this many emoji."""
        return np.flatnonzero(self._counts <= things)

    def batch(self, indices: NDArray[np.int64], seed: int) -> Batch:
        """Cropped and mirrored pictures with newly worded captions.

        One crop size per batch keeps the batch a single array. It removes at most a tenth of the
        side, so that things at the edge are rarely lost.
        """
        rng = np.random.default_rng((TRAIN_SPLIT, seed))
        words = random.Random(seed)
        side = int(rng.integers(int(self.size * 0.9), self.size + 1))
        images = np.empty((len(indices), side, side, 3), np.uint8)
        for row, index in enumerate(indices):
            top, left = rng.integers(0, self.size - side + 1, 2)
            crop = self._pixels[index, top : top + side, left : left + side]
            images[row] = crop[:, ::-1] if rng.random() < 0.5 else crop
        return Batch(images, [self._caption(words, int(index)) for index in indices])

    def _caption(self, words: random.Random, index: int) -> str:
        scene = self._scenes[index]
        family, colour = scene["background"]
        return caption(words, scene["things"], TRAIN_WORDING, (family, colour))
