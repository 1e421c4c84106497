"""Still frames: those that hardly differ from the last tagged frame repeat its result.

The change is measured on a sketch: a few rows of the frame, each cut into cells whose mean colours
are compared. The sketch reads a few percent of the pixels, before the frame is resized, and the
means average out sensor noise. The reference is the last tagged frame, not the previous frame, so
slow changes add up.

The effect on the tags is measured while running: one of `check_every` still frames is tagged as
well, and compared with the result that would have been repeated.
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

__all__ = ["FrameChange", "StillCounts", "StillFilter", "change", "sketch"]

# Rows and cells of a sketch: 22 pixels apart in a 1080p frame, half a patch of ViT-L/14 at 336
# pixels there, so an object that fits between two rows is too small to be tagged.
_ROWS = _CELLS = 48
# Tagging 1 of 25 still frames costs 4 % of the saving and samples a 25 fps camera once a second.
_CHECK_EVERY = 25

Sketch = npt.NDArray[np.float32]


class FrameChange(Enum):
    """How a frame differs from the last tagged frame, which decides whether it is tagged."""

    CHANGED = "changed"  # tagged
    STILL = "still"  # not tagged: repeats the last result
    SAMPLED = "sampled"  # still, and tagged to measure the effect of repeating


@dataclass
class StillCounts:
    """How many frames were skipped, and how their tags would have differed.

    Attributes:
        frames: frames seen.
        repeated: frames that were not tagged.
        checked: still frames that were tagged as well.
        tags_compared, tags_changed: tags of the checked frames, and those of them whose on/off
            state differs from the repeated result.
        largest_change: largest score difference in a checked frame.
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
    """Decides for each frame of each source whether it is still."""

    def __init__(self, levels: float, check_every: int = _CHECK_EVERY) -> None:
        """Set the threshold.

        Args:
            levels: a frame is still when no cell's mean colour differs by more than this from the
                last tagged frame, in grey levels of 0 … 255.
            check_every: one of this many still frames is tagged as well.
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

    def compare(self, source: str, image: npt.NDArray[Any]) -> FrameChange:
        """Compare the next frame of a source with its last tagged one; for one thread."""
        self.counts.frames += 1
        current, reference = sketch(image), self._tagged.get(source)
        still = reference is not None and change(reference, current) <= self._levels
        if still and self._repeats[source] < self._check_every:
            self._repeats[source] += 1
            self.counts.repeated += 1
            return FrameChange.STILL
        self._tagged[source], self._repeats[source] = current, 0
        return FrameChange.SAMPLED if still else FrameChange.CHANGED

    def forget(self) -> None:
        """Tag the next frame of each source, however little it differs."""
        self._tagged.clear()

    def repeat(self, source: str) -> TagResult:
        """The last result of a source, which its still frames repeat."""
        return self._results[source]

    def keep(self, source: str, result: TagResult, frame_change: FrameChange) -> None:
        """Store the result of a tagged frame; compare it with the last one if it is a sample."""
        last = self._results.get(source)
        same_tags = last is not None and last.vocabulary is result.vocabulary
        if frame_change is FrameChange.SAMPLED and last is not None and same_tags:
            counts = self.counts
            counts.checked += 1
            counts.tags_compared += len(result.scores)
            counts.tags_changed += int((result.on != last.on).sum())
            largest = float(np.abs(result.scores - last.scores).max(initial=0.0))
            counts.largest_change = max(counts.largest_change, largest)
        self._results[source] = result


def sketch(image: npt.NDArray[Any]) -> Sketch:
    """Mean colours of cells along rows of a frame.

    Args:
        image: [H, W, channels] or [H, W].
    Returns:
        float32 [rows, cells, channels], at most 48 × 48 cells.
    """
    pixels = image[:, :, None] if image.ndim == 2 else image
    height, width, channels = pixels.shape
    count, cells = min(_ROWS, height), min(_CELLS, width)
    cell_width = width // cells
    rows = ((np.arange(count) + 0.5) * height / count).astype(int)
    left = (width - cell_width * cells) // 2
    parts = pixels[rows, left : left + cell_width * cells].astype(np.float32)
    # one small matrix product stays on this thread and is 20 times as fast as NumPy's mean
    return parts.reshape(count, cells, cell_width * channels) @ _averaging(cell_width, channels)


@functools.lru_cache(maxsize=8)
def _averaging(cell_width: int, channels: int) -> Sketch:
    """Matrix that averages the pixels of a cell: [cell_width · channels, channels]."""
    weights = np.kron(np.ones((cell_width, 1)), np.eye(channels)) / cell_width
    return np.asarray(weights, np.float32)


def change(before: Sketch, after: Sketch) -> float:
    """The largest difference of two sketches, in grey levels; infinite when shapes differ."""
    if before.shape != after.shape:
        return float("inf")
    return float(np.abs(after - before).max())
