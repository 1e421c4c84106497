"""Frames that hardly differ from the last tagged one: their tags are taken from it.

The change is measured on a sketch: a few lines across the frame, each cut into cells whose mean
colours are compared. It reads a few percent of the pixels, before the frame is resized, and the
means take the sensor's noise away. The comparison is with the last tagged frame and not with the
one before, so slow changes add up.

How much the tags suffer is measured as it goes: one of many still frames is tagged all the same,
and compared with what would have been told of it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.results import TagResult

__all__ = ["Look", "StillCounts", "StillFilter", "change", "sketch"]

# About 22 pixels of a 1080p frame, the size of one patch of no CLIP: what passes between two lines
# is too small to be tagged.
_LINES = _CELLS = 48
_CHECK_EVERY = 25

Sketch = npt.NDArray[np.float32]


class Look(Enum):
    """What to do with a frame."""

    TAG = "tag"  # it has changed
    REPEAT = "repeat"  # still: the last result counts for it
    CHECK = "check"  # still, but tagged all the same


@dataclass
class StillCounts:
    """What skipping saved, and what it changed.

    Attributes:
        frames: looked at.
        repeated: not tagged.
        checked: still, tagged all the same.
        tags_compared, tags_changed: of the checked frames, and of these on where the repeated
            result says off, or off where it says on.
        largest_change: of a score of a checked frame.
    """

    frames: int = 0
    repeated: int = 0
    checked: int = 0
    tags_compared: int = 0
    tags_changed: int = 0
    largest_change: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.repeated} of {self.frames} frames were still and not tagged; in {self.checked} "
            f"that were checked {self.tags_changed} of {self.tags_compared} tags differed, scores "
            f"by at most {self.largest_change:.3g}"
        )


class StillFilter:
    """Says of each frame of each source whether it is still."""

    def __init__(self, levels: float, check_every: int = _CHECK_EVERY) -> None:
        """Compare with a threshold.

        Args:
            levels: a frame is still when no cell's mean colour has moved by more than this, in
                grey levels of 0 … 255, since the last tagged frame.
            check_every: of so many still frames, one is tagged all the same.
        Raises:
            InputError: `levels` is not positive.
        """
        if not levels > 0:
            raise InputError(f"skip_still should be above 0 grey levels, got {levels}")
        self.counts = StillCounts()
        self._levels, self._check_every = levels, check_every
        self._tagged: dict[str, Sketch] = {}
        self._repeats: dict[str, int] = {}
        self._results: dict[str, TagResult] = {}

    def look(self, source: str, image: npt.NDArray[Any]) -> Look:
        """Decide what to do with the next frame of a source; called by one thread."""
        self.counts.frames += 1
        seen, known = sketch(image), self._tagged.get(source)
        still = known is not None and change(known, seen) <= self._levels
        if still and self._repeats[source] < self._check_every:
            self._repeats[source] += 1
            self.counts.repeated += 1
            return Look.REPEAT
        self._tagged[source], self._repeats[source] = seen, 0
        return Look.CHECK if still else Look.TAG

    def forget(self) -> None:
        """Tag the next frame of each source whatever it looks like."""
        self._tagged.clear()

    def repeat(self, source: str) -> TagResult:
        """The result that counts for a still frame."""
        return self._results[source]

    def tagged(self, source: str, result: TagResult, look: Look) -> None:
        """Keep a result, and compare it where it was to be checked."""
        told = self._results.get(source)
        if look is Look.CHECK and told is not None and told.vocabulary is result.vocabulary:
            self._compare(told, result)
        self._results[source] = result

    def _compare(self, told: TagResult, found: TagResult) -> None:
        counts = self.counts
        counts.checked += 1
        counts.tags_compared += len(found.scores)
        counts.tags_changed += int((told.on != found.on).sum())
        moved = float(np.abs(told.scores - found.scores).max())
        counts.largest_change = max(counts.largest_change, moved)


def sketch(image: npt.NDArray[Any]) -> Sketch:
    """Mean colours of cells along lines across a frame [H, W, channels] or [H, W]."""
    pixels = image[:, :, None] if image.ndim == 2 else image
    height, width, channels = pixels.shape
    lines, cells = min(_LINES, height), min(_CELLS, width)
    each = width // cells
    rows = ((np.arange(lines) + 0.5) * height / lines).astype(int)
    left = (width - each * cells) // 2
    parts = pixels[rows, left : left + each * cells].astype(np.float32)
    # a product a line, small enough to stay on this thread; 20 times as fast as NumPy's mean
    return parts.reshape(lines, cells, each * channels) @ _averaging(each, channels)


@functools.lru_cache(maxsize=8)
def _averaging(each: int, channels: int) -> Sketch:
    """Of `each` pixels side by side, the mean colour: [each · channels, channels]."""
    weights = np.kron(np.ones((each, 1)), np.eye(channels)) / each
    return np.asarray(weights, np.float32)


def change(before: Sketch, after: Sketch) -> float:
    """The largest difference of two sketches, in levels; infinite between two shapes."""
    if before.shape != after.shape:
        return float("inf")
    return float(np.abs(after - before).max())
