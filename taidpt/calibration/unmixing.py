"""What of a tag's score the other tags' scores do not explain.

A picture of a bus lifts "car" and "train" too, so a tag's raw scores have heaps that are not the
tag. What is left after a ridge regression on all other tags is far closer to "the tag and noise".
It serves to learn how often and where a tag occurs; the switch itself stays on the raw score.
Once it is known about where each tag is, what the presence of one tag adds to another's score can
be taken away by itself, which leaves the tag's own part whole.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["unexplained", "without_others"]

Floats = npt.NDArray[np.float64]

_RIDGE = 0.2  # 0 takes everything away that is linear, 1 nothing
_PRESENCE_RIDGE = 3.0  # frames that say nothing of what one tag adds to another
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
    rest = _unpredicted(standard)
    explained = 1 - float(np.median(rest.var(axis=0)))
    return rest if explained > _WORTH + tags / frames else scores


def without_others(scores: Floats, chances: Floats) -> Floats:
    """Scores minus what the presence of other tags adds and what the other tags' rest foretells.

    Args:
        scores: [N, C], none of the C constant. chances: probability of each tag, [N, C].
    """
    spread = scores.std(axis=0)
    standard = (scores - scores.mean(axis=0)) / spread
    presence = chances - chances.mean(axis=0)
    gram = presence.T @ presence + _PRESENCE_RIDGE * np.eye(scores.shape[1])
    lifts = np.linalg.solve(gram, presence.T @ standard)  # [tag that is there, score that it lifts]
    rest = standard - presence @ lifts
    scale = np.maximum(rest.std(axis=0), 1e-12)
    return np.asarray(
        (_unpredicted(rest / scale) * scale + presence * np.diag(lifts)) * spread, np.float64
    )


def _unpredicted(standard: Floats) -> Floats:
    """Each column minus its ridge regression on all others, [N, C]; columns of unit variance."""
    frames, tags = standard.shape
    ridge = max(_RIDGE, tags / (tags + 2 * frames))
    correlation = (1 - ridge) * (standard.T @ standard) / frames + ridge * np.eye(tags)
    precision = np.linalg.inv(correlation)
    return np.asarray(standard @ precision / np.diag(precision), np.float64)
