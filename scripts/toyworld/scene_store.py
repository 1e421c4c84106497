"""Rendered scenes with their captions kept on disk, and batches cut from them.

Scenes are rendered and worded once: pixels into a flat uint8 file, captions as tokens beside it. A
batch is gathered on the device that trains.
"""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scripts.toyworld.captions import TRAIN_WORDING, caption_naming
from scripts.toyworld.drawing.scenes import Scene, SceneSettings, render_scene
from scripts.toyworld.drawing.things import THINGS
from scripts.toyworld.tokenizer import load_tokenizer

__all__ = ["TRAIN_SPLIT", "Batch", "SceneStore", "render_store"]

TRAIN_SPLIT = 1
"""First number of a training scene's seed; held-out pictures and the video use others."""

WORDINGS = 4  # captions of each scene that name what is there
WRONG = 2  # and captions in which one thing is another
LONGEST = 40  # tokens of a caption; of 20,000 that name five things the longest had 33

_CHUNK = 500  # scenes rendered by one process at a time


@dataclass(frozen=True)
class Batch:
    """Pictures and captions of B scenes, on the device that trains.

    Attributes:
        images: uint8 [B, S, S, 3].
        tokens: captions [2B, L], first true ones, then those in which one thing is wrong.
        true: whether each caption tells the truth of each scene, [B, 2B].
    """

    images: Tensor
    tokens: Tensor
    true: Tensor


def _exchanged(rng: random.Random, things: list[int]) -> list[int]:
    """The things of a scene, one of them exchanged for a thing that is not there."""
    gone = rng.choice(things)
    new = rng.choice([thing for thing in range(len(THINGS)) if thing not in things])
    return [new if thing == gone else thing for thing in things]


def _worded(tokenizer: Any, scene: Scene, seed: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Tokens [WORDINGS + WRONG, LONGEST] of a scene's captions, and what each names."""
    rng = random.Random(seed)
    things = [placed.thing for placed in scene.placed]
    background = (scene.background.family, scene.background.colour)
    lists = [things] * WORDINGS + [_exchanged(rng, things) for _ in range(WRONG)]
    drawn = [caption_naming(rng, each, TRAIN_WORDING, background) for each in lists]
    named = np.zeros((len(drawn), len(THINGS)), bool)
    for row, (_, names) in enumerate(drawn):
        named[row, names] = True
    tokens = tokenizer([text for text, _ in drawn])
    return tokens[:, :LONGEST].numpy().astype(np.int16), named


def _render_chunk(job: tuple[str, str, int, int, int]) -> tuple[NDArray[np.generic], ...]:
    file, merges, total, start, size = job
    tokenizer = load_tokenizer(Path(merges))
    store = np.memmap(file, np.uint8, "r+", shape=(total, size, size, 3))
    things, tokens, named = [], [], []
    for index in range(start, min(start + _CHUNK, total)):
        scene = render_scene((TRAIN_SPLIT, index), SceneSettings(size=size))
        store[index] = scene.image
        things.append(np.bincount([each.thing for each in scene.placed], minlength=len(THINGS)))
        worded = _worded(tokenizer, scene, index)
        tokens.append(worded[0])
        named.append(worded[1])
    store.flush()
    return np.stack(things).astype(np.uint8), np.stack(tokens), np.stack(named)


def render_store(
    folder: Path, count: int, merges: Path, size: int = 160, processes: int = 2
) -> None:
    """Render and word `count` training scenes into `folder` unless it holds them already.

    Raises:
        MissingDependencyError: the emoji font is not installed.
    """
    index = folder / "scenes.npz"
    if index.is_file():
        with np.load(index) as facts:
            if len(facts["things"]) >= count:
                return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scenes.u8"
    np.memmap(file, np.uint8, "w+", shape=(count, size, size, 3)).flush()
    jobs = [(str(file), str(merges), count, start, size) for start in range(0, count, _CHUNK)]
    with ProcessPoolExecutor(processes) as pool:
        columns = zip(*pool.map(_render_chunk, jobs), strict=True)
        things, tokens, named = (np.concatenate(column) for column in columns)
    partial = index.with_suffix(".partial.npz")
    np.savez(partial, things=things, tokens=tokens, named=named, size=size)
    partial.replace(index)


class SceneStore:
    """Training scenes, on disk or in the memory of a GPU."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        with np.load(folder / "scenes.npz") as facts:
            things, tokens, named = (facts[name] for name in ("things", "tokens", "named"))
            self.size = int(facts["size"])
        shape = (len(things), self.size, self.size, 3)
        pixels = np.memmap(folder / "scenes.u8", np.uint8, "c", shape=shape)
        self._counts = things.sum(1)
        self._lengths = (tokens != 0).sum(2)
        self._order: tuple[object, NDArray[np.int64]] = (None, np.empty(0, np.int64))
        self._device = torch.device(device)
        self._pixels = torch.from_numpy(pixels).to(self._device)
        self._things = torch.from_numpy(things > 0).to(self._device)
        self._tokens = torch.from_numpy(tokens).to(self._device)
        self._named = torch.from_numpy(named).to(self._device)

    def __len__(self) -> int:
        return len(self._counts)

    def with_at_most(self, things: int) -> NDArray[np.int64]:
        """Indices of the scenes with at most this many emoji."""
        return np.flatnonzero(self._counts <= things)

    def shuffled(self, things: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
        """The scenes with at most this many emoji in an order that the seed decides."""
        if self._order[0] != (things, seed):
            order = np.random.default_rng(seed).permutation(self.with_at_most(things))
            self._order = (things, seed), order
        return self._order[1]

    def batch(self, indices: NDArray[np.int64], seed: int) -> Batch:
        """Cropped and mirrored pictures, a caption of each scene and a wrong one.

        One crop size per batch keeps the batch a single array. It removes at most a tenth of the
        side, so that things at the edge are rarely lost.
        """
        rng = np.random.default_rng((TRAIN_SPLIT, seed))
        count = len(indices)
        side = int(rng.integers(int(self.size * 0.9), self.size + 1))
        corners = rng.integers(0, self.size - side + 1, (2, count, 1))
        rows, columns = corners + np.arange(side)
        mirrored = rng.random(count) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
        wording = rng.integers(0, WORDINGS, count)
        wrong = WORDINGS + rng.integers(0, WRONG, count)
        longest = int(self._lengths[indices[:, None], np.stack([wording, wrong], 1)].max())
        scenes, rows, columns, wording, wrong = (
            torch.from_numpy(np.ascontiguousarray(part)).to(self._device, non_blocking=True)
            for part in (indices, rows, columns, wording, wrong)
        )
        images = self._pixels[scenes[:, None, None], rows[:, :, None], columns[:, None, :]]
        tokens = torch.cat([self._tokens[scenes, wording], self._tokens[scenes, wrong]]).long()
        tokens = tokens[:, :longest]
        named = torch.cat([self._named[scenes, wording], self._named[scenes, wrong]]).float()
        missing = (~self._things[scenes]).float() @ named.T  # things named and not there, [B, 2B]
        return Batch(images, tokens, missing < 0.5)
