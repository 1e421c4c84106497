"""How likely each tag is in each frame, from the scores of all frames and tags together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.decision import SIGN
from taidpt.calibration.statistics.hierarchy import Hint, compress, fit_family
from taidpt.calibration.statistics.mixture import responsibility
from taidpt.calibration.statistics.sample import Sample
from taidpt.calibration.statistics.unmixing import are_echoes, unexplained, without_others

__all__ = ["chances_of"]

Floats = npt.NDArray[np.float64]

_EXPLAINING_ROUNDS = 2
_PRESSED = 0.02  # this near to 0 or 1 a score counts as pressed against it
_MOSTLY = 0.5  # share of frames that a tag is not in which did not show at first …
_OFTEN = 0.05  # … nor this share, where its chances …
_BLURRED = 0.55  # … leave so much of the doubt that their mean leaves
_TOO_OFTEN = 1.4  # on in so many times the frames that are thought to have the tag


def chances_of(scores: Floats, hint: Hint | None, worth: float) -> Floats:
    """Probability of each tag in each frame, [N, C].

    Where other tags foretell much of a tag's score, what they add is taken away, beginning with
    the tags that the raw scores show. Where these are but echoes of each other, what others do not
    foretell shows the tags first, and two views must agree: their geometric mean is taken, as what
    looks like the tag in one view alone is most often something else.

    Args:
        scores: none of the C tags constant, [N, C].
        hint: what texts say about each tag, in units of the tags' spreads.
        worth: how much of an independent frame each frame is.
    """
    scores = _unsquashed(scores)
    raw = _fitted(scores, hint, worth)
    rest = unexplained(scores)
    if rest is None:
        return raw
    echoes = are_echoes(raw)
    first = _fitted(rest, hint, worth) if echoes else raw
    last = first
    for _ in range(_EXPLAINING_ROUNDS):
        last = _fitted(without_others(scores, last, presence_alone=echoes), hint, worth)
    found = np.asarray(np.sqrt(first * last), np.float64) if echoes else last
    vague = np.array([_says_nothing(*pair) for pair in zip(scores.T, found.T, strict=True)])
    return np.where(vague | _conjured(raw, found), raw, found)


def _unsquashed(scores: Floats) -> Floats:
    """Scores, or their logits where a sigmoid has pressed most of them against 0 and 1, [N, C]."""
    low, high = scores.min(), scores.max()
    pressed = (scores < _PRESSED) | (scores > 1 - _PRESSED)
    if low < 0 or high > 1 or pressed.mean() < 0.5:
        return scores
    apart = np.minimum(scores, 1 - scores)
    least = apart[apart > 0].min(initial=_PRESSED)
    clipped = np.clip(scores, least, 1 - least)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


def _conjured(raw: Floats, found: Floats) -> npt.NDArray[np.bool_]:
    """Which tags show only once others are taken away, and then in most frames or a blur, [C].

    What a tag is thought to add is kept while its noise is taken away, so one hump that was once
    parted in two parts further each time. The two halves then overlap, which the two humps of a
    tag that is really there seldom do.
    """
    unseen = raw.max(axis=0) < SIGN
    share = found.mean(axis=0)
    doubt = (found * (1 - found)).mean(axis=0)
    blurred = (share > _OFTEN) & (doubt > _BLURRED * share * (1 - share))
    return np.asarray(unseen & ((share > _MOSTLY) | blurred))


def _says_nothing(scores: Floats, chances: Floats) -> bool:
    """Whether chances hang so little on a tag's score that it would be on far too often."""
    order = np.argsort(-scores)
    found = np.cumsum(chances[order])
    share = found[-1] / len(scores)
    f1 = 2 * found / (np.arange(1, len(scores) + 1) + found[-1])
    on = (int(f1.argmax()) + 1) / len(scores)
    return bool(on > _TOO_OFTEN * share and on > 0.5)


def _fitted(parts: Floats, hint: Hint | None, worth: float) -> Floats:
    """Probability of each tag, [N, C], under mixtures fitted to all tags' parts together.

    A long right tail may be background or a rare tag. The geometric mean is taken of a fit whose
    backgrounds have equal tails and one whose right tails are free, and a tag is as likely to
    occur at all as the one says that doubts it more.

    Args:
        worth: how much of an independent frame each frame is.
    """
    middle = np.median(parts, axis=0)
    spread = 1.4826 * np.median(np.abs(parts - middle), axis=0)
    spread = np.where(spread > 0, spread, parts.std(axis=0))
    scaled = (parts - np.median(middle)) / np.median(spread)
    sample = compress(scaled)
    weighted = Sample(sample.values, worth * sample.counts)
    families = [fit_family(weighted, hint, own_tail) for own_tail in (False, True)]
    equal, free = (responsibility(family.fit.parameters, scaled.T) for family in families)
    occurs = np.minimum(*(family.occurs for family in families))
    chances = np.sqrt(equal * free) * occurs[:, None]
    order = np.argsort(scaled.T, axis=1)
    rising = np.maximum.accumulate(np.take_along_axis(chances, order, 1), axis=1)
    np.put_along_axis(chances, order, rising, 1)
    return np.asarray(chances.T, np.float64)
