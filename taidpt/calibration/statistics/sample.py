"""Scores of many tags, compressed to a few weighted values a tag."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["TYPICAL_LIFT", "Sample", "compress"]

Floats = npt.NDArray[np.float64]

# Before any score: how far frames with a tag lie above its background, in spreads of the latter.
# Half of that is beyond any threshold's help.
TYPICAL_LIFT = 3.5

# A fit's cost grows with the values, not with the frames. Each end keeps its scores one by one,
# because a rare tag lies there; the middle becomes blocks of about equal weight.
_ENDS = 64
_BLOCKS = 128


@dataclass(frozen=True)
class Sample:
    """Scores of each tag in rising order, [C, B], and the frames behind each of them, [C, B]."""

    values: Floats
    counts: Floats

    def of_tags(self, rows: slice | npt.NDArray[np.intp]) -> Sample:
        """The sample of some of the tags."""
        return Sample(self.values[rows], self.counts[rows])

    def quantile(self, level: float) -> Floats:
        """The score below which a share `level` of the frames lies, [C]."""
        below = np.cumsum(self.counts, axis=1) / self.counts.sum(1, keepdims=True)
        index = np.minimum((below < level).sum(1), self.values.shape[1] - 1)
        return np.asarray(np.take_along_axis(self.values, index[:, None], 1)[:, 0])


def compress(scores: Floats) -> Sample:
    """Weighted values of scores [N, C]: both ends one by one, the middle as means of blocks."""
    ordered = np.sort(scores, axis=0).T
    frames = ordered.shape[1]
    if frames <= 2 * _ENDS + _BLOCKS:
        return Sample(ordered, np.ones_like(ordered))
    middle = np.linspace(_ENDS, frames - _ENDS, _BLOCKS + 1).astype(int)
    edges = np.concatenate([np.arange(_ENDS), middle, np.arange(frames - _ENDS + 1, frames + 1)])
    counts = np.diff(edges)
    values = np.add.reduceat(ordered, edges[:-1], axis=1) / counts
    return Sample(values, np.broadcast_to(counts, values.shape).astype(float))
