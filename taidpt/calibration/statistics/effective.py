"""How many independent frames a recording is worth: neighbouring frames are nearly one frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["effective_frames"]

Floats = npt.NDArray[np.float64]

_NOTHING = 0.05  # correlation from which on two frames count as apart


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
