"""How many independent frames a sample is worth: copies and neighbours in time count as one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["distinct_frames", "effective_frames"]

Floats = npt.NDArray[np.float64]

_NOTHING = 0.05  # correlation below which two frames of a recording count as independent

# Frames whose scores differ by less than this share of the spread of all scores (over frames and
# tags) are copies: a picture encoded again moves by less than 0.01, two pictures of one street by
# more than 0.1. With few tags, unlike frames come this close by chance, so there only rounding
# counts as equal. Distances over 64 tags are as good as over thousands.
_COPY, _COPY_OF_FEW_TAGS = 0.03, 1e-5
_FEW_TAGS = 5
_COMPARED_TAGS = 64


def distinct_frames(scores: Floats) -> int:
    """Number of frames that are no copies of an earlier one, from 1 to N.

    Args:
        scores: of pictures in any order, [N, C].
    """
    tags = scores.shape[1]
    compared = scores[:, :: -(-tags // _COMPARED_TAGS)]
    share = _COPY_OF_FEW_TAGS if tags < _FEW_TAGS else _COPY
    nearest = (share * compared.std()) ** 2
    kept = np.empty_like(compared)
    count = 0
    for row in compared:
        if count == 0 or ((kept[:count] - row) ** 2).mean(axis=1).min() > nearest:
            kept[count] = row
            count += 1
    return count


def effective_frames(scores: Floats) -> float:
    """Frames divided by the integrated autocorrelation time of their scores.

    Args:
        scores: of consecutive frames, [N, C].
    Returns:
        from 1 to N; N where scores do not move.
    """
    frames = len(scores)
    moves = scores[:, scores.std(axis=0) > 0]
    if frames < 2 or moves.shape[1] == 0:
        return float(frames)
    standard = (moves - moves.mean(axis=0)) / moves.std(axis=0)
    spectrum = np.abs(np.fft.rfft(standard, 2 * frames, axis=0)) ** 2
    correlation = np.fft.irfft(spectrum.mean(axis=1))[:frames] / frames
    apart = np.flatnonzero(correlation < _NOTHING)
    lags = int(apart[0]) if len(apart) else frames
    return float(np.clip(frames / (1 + 2 * correlation[1:lags].sum()), 1, frames))
