"""What of a tag's score the other tags' scores do not explain.

A picture of a bus lifts "car" and "train" too, so a tag's raw scores have heaps that are not the
tag. What is left after a ridge regression on all other tags is far closer to "the tag and noise".
It serves to learn how often and where a tag occurs; the switch itself stays on the raw score.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["unexplained"]

Floats = npt.NDArray[np.float64]

_RIDGE = 0.2  # 0 takes everything away that is linear, 1 nothing
_WORTH = 0.1  # share of a typical tag's variance; chance alone explains about C / N of it


def unexplained(scores: Floats) -> Floats:
    """Standardised scores minus their ridge regression on all other tags, where that takes much.

    Args:
        scores: [N, C], none of the C constant.
    Returns:
        [N, C]; the scores themselves when other tags explain next to nothing, as then only noise
        would be added.
    """
    frames, tags = scores.shape
    standard = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    ridge = max(_RIDGE, tags / (tags + 2 * frames))
    correlation = (1 - ridge) * (standard.T @ standard) / frames + ridge * np.eye(tags)
    precision = np.linalg.inv(correlation)
    rest = np.asarray(standard @ precision / np.diag(precision), np.float64)
    explained = 1 - float(np.median(rest.var(axis=0)))
    return rest if explained > _WORTH + tags / frames else scores
