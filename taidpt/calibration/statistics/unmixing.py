"""What of a tag's score the other tags' scores do not explain.

A picture of a bus lifts "car" and "train" too, so a tag's raw scores have heaps that are not the
tag. What is left after a ridge regression on all other tags is far closer to "the tag and noise".
It serves to learn how often and where a tag occurs; the switch itself stays on the raw score.
Once it is known about where each tag is, what the presence of one tag adds to another's score can
be taken away by itself, which leaves the tag's own part whole.

Every frame is foretold from all other frames (leave-one-out by the hat matrix, Allen 1974), so that
few frames do not seem to explain what they only remember.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["are_echoes", "unexplained", "without_others"]

Floats = npt.NDArray[np.float64]

_RIDGES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)  # 0 takes all away that is linear, 1 nothing
_PRESENCE_RIDGE = 3.0  # frames that say nothing of what one tag adds to another
_WORTH = 0.1  # share of a typical tag's variance, below which taking it away adds but noise
_CENTRED = 1e-4  # spread of frames' means, as a share of that of all scores
_ECHO = 0.3  # the same of presences: things that come together explain less, echoes more
_STILL = 1e-6  # spread of a probability that does not move


def unexplained(scores: Floats) -> Floats | None:
    """Standardised scores minus what all other tags foretell of them.

    Args:
        scores: [N, C], none of the C constant.
    Returns:
        [N, C]; None where other tags foretell next to nothing.
    """
    rest, explained = _unforetold(_standardised(scores))
    return rest if explained > _worth_taking(scores) else None


def are_echoes(chances: Floats) -> bool:
    """Whether tags seem to be where others are, so that most are but look-alikes of one thing.

    Args:
        chances: probability of each tag, [N, C].
    """
    moves = chances[:, chances.std(axis=0) > _STILL]
    return moves.shape[1] > 0 and _unforetold(_standardised(moves))[1] > _ECHO


def without_others(scores: Floats, chances: Floats, presence_alone: bool) -> Floats:
    """Scores minus what the presence of other tags adds.

    Args:
        scores: [N, C], none of the C constant. chances: probability of each tag, [N, C].
        presence_alone: leave what else other tags foretell.
    """
    spread = scores.std(axis=0)
    standard = _standardised(scores)
    presence = chances - chances.mean(axis=0)
    gram = presence.T @ presence + _PRESENCE_RIDGE * np.eye(scores.shape[1])
    lifts = np.linalg.solve(gram, presence.T @ standard)  # [tag that is there, score that it lifts]
    rest = standard - presence @ lifts
    if not presence_alone:
        scale = np.maximum(rest.std(axis=0), 1e-12)
        unforetold, explained = _unforetold(rest / scale)
        rest = unforetold * scale if explained > _worth_taking(scores) else rest
    return np.asarray((rest + presence * np.diag(lifts)) * spread, np.float64)


def _worth_taking(scores: Floats) -> float:
    """Share of a typical tag's variance from which on it is taken away.

    Where each frame's mean was subtracted, a tag is minus the sum of all others, so that even tags
    that have nothing to do with each other foretell some of each other's scores.
    """
    level = scores.mean(axis=1)
    if level.std() > _CENTRED * scores.std():
        return _WORTH
    least = _RIDGES[0] / (1 - _RIDGES[0])
    left = 1 - 1 / (1 + (scores.shape[1] - 1) * least)
    return float(1 - (1 - _WORTH) * left**2)


def _standardised(values: Floats) -> Floats:
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0), np.float64)


def _unforetold(standard: Floats) -> tuple[Floats, float]:
    """Each value minus its ridge regression on all other tags in all other frames.

    Args:
        standard: columns of mean 0 and variance 1, [N, C].
    Returns:
        [N, C] with the ridge that foretells best, and the share of a typical tag's variance that
        is foretold: about zero or less where tags have nothing to do with each other.
    """
    frames, tags = standard.shape
    narrow = frames <= tags
    values, basis = np.linalg.eigh(standard @ standard.T if narrow else standard.T @ standard)
    left, right = (basis, basis.T @ standard) if narrow else (standard @ basis, basis.T)
    best, least = standard, np.inf
    for ridge in _RIDGES:
        penalty = frames * ridge / (1 - ridge)
        rest = _left_out(standard, left / (values + penalty) @ right, penalty)
        error = float(np.median((rest**2).mean(axis=0)))
        if error < least:
            best, least = rest, error
    return best, 1 - least


def _left_out(standard: Floats, weights: Floats, penalty: float) -> Floats:
    """Leave-one-out residuals of every column on all others.

    Args:
        weights: X A⁻¹ with A = XᵀX + penalty, [N, C].
    """
    precision = (1 - (standard * weights).sum(axis=0)) / penalty  # A⁻¹'s diagonal
    rest = weights / precision
    leverage = (standard * weights).sum(axis=1)[:, None] - rest**2 * precision
    free = 1 - 1 / len(standard) - leverage
    return np.asarray(rest / np.maximum(free, 1e-6), np.float64)
