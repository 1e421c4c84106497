"""Thresholds a tag from held-out texts, until pictures calibrate them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bank import Threshold

__all__ = ["best_threshold", "split_held_out", "thresholds_from_texts"]

_LEAST_A_TAG = 3
_OFF_SHARE = 0.95  # a tag may fall to where F1 is still this share of its best before it goes off

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


def split_held_out(
    labels: Sequence[Sequence[int]], tags: int, fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split texts into those to train on and those held out, by their numbers in ascending order.

    A random fraction is held out; a tag that gets fewer than three is topped up, as long as most
    of its texts stay in training.

    Args:
        labels: tag numbers of each text.
    Returns:
        training rows and held-out rows.
    """
    count = len(labels)
    order = np.random.default_rng([seed, 1]).permutation(count)
    held = np.zeros(count, bool)
    held[order[: round(count * fraction)]] = True
    if fraction > 0:
        owners: list[list[int]] = [[] for _ in range(tags)]
        for row in order.tolist():
            for tag in labels[row]:
                owners[tag].append(row)
        for rows in owners:
            missing = min(_LEAST_A_TAG, len(rows) // 4) - int(held[rows].sum())
            spare = [row for row in rows if not held[row]]
            held[spare[: max(missing, 0)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def best_threshold(scores: Floats, positive: Bools) -> tuple[float, float]:
    """The threshold with the best F1, and the lowest one that keeps 95 % of that.

    Args:
        scores: [N]; positive: [N], at least one True.
    Returns:
        on and off; each lies midway between two neighbouring scores.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], positive[order]
    true = np.cumsum(hits)
    f1 = 2 * true / (np.arange(1, len(ranked) + 1) + hits.sum())
    cuts = np.append((ranked[:-1] + ranked[1:]) / 2, ranked[-1] - 1e-3)
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # no threshold parts equal scores
    best = int(f1.argmax())
    last = int(np.flatnonzero(f1 >= _OFF_SHARE * f1[best])[-1])
    return float(cuts[best]), float(cuts[max(best, last)])


def thresholds_from_texts(scores: Floats, positive: Bools) -> tuple[Threshold, ...]:
    """A threshold a tag from held-out texts; a tag without any takes that of all tags together.

    Args:
        scores: merged scores of held-out texts, [N, C].
        positive: whether the text names the tag, [N, C], at least one True.
    """
    pooled = best_threshold(scores.ravel(), positive.ravel())
    found = []
    for tag in range(scores.shape[1]):
        named = bool(positive[:, tag].any())
        on, off = best_threshold(scores[:, tag], positive[:, tag]) if named else pooled
        found.append(Threshold(on, off, "from texts" if named else "from texts, all tags"))
    return tuple(found)
