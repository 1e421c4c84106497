"""What held-out captions' scores say about pictures' scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.hierarchy import Hint
from taidpt.runtime.errors import InputError

__all__ = ["hint_from_texts"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]

_LEAST = 3


def hint_from_texts(scores: Floats, targets: Targets) -> Hint:
    """How far a caption that names a tag scores above those that do not, in their spreads.

    Captions and pictures score on different levels. Only how tags differ from each other is
    carried over; the level is learned from the pictures.

    Args:
        scores: merged scores of captions, [M, C]. targets: 1 names the tag, −1 not, [M, C].
    Raises:
        InputError: no tag is named by three captions.
    """
    lifts = np.full(scores.shape[1], np.nan)
    for tag in range(scores.shape[1]):
        named, others = scores[targets[:, tag] > 0, tag], scores[targets[:, tag] < 0, tag]
        if len(named) >= _LEAST and len(others) >= _LEAST and others.std() > 0:
            lift = (np.median(named) - np.median(others)) / others.std()
            lifts[tag] = np.log(max(lift, 0.1))
    if not np.isfinite(lifts).any():
        raise InputError(f"no tag is named by {_LEAST} of the texts; give more texts")
    return Hint(lifts)
