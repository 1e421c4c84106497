"""How good thresholds and probabilities are, when the truth is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["best_f1_thresholds", "expected_calibration_error", "f1_scores", "false_on_rate"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]


def f1_scores(scores: Floats, targets: Targets, thresholds: Floats) -> Floats:
    """F1 of each tag at its threshold; NaN for a tag without a positive.

    Args:
        scores: [N, C]. targets: 1, −1, or 0 for left out, [N, C].
        thresholds: a score of at least this is a yes, [C].
    """
    said = (scores >= thresholds) & (targets != 0)
    true = (said & (targets > 0)).sum(axis=0)
    positives = (targets > 0).sum(axis=0)
    total = said.sum(axis=0) + positives
    return np.where(positives > 0, 2 * true / np.maximum(total, 1), np.nan)


def false_on_rate(scores: Floats, targets: Targets, thresholds: Floats) -> float:
    """Share of (picture, tag) that is on, over tags without any positive; NaN without such."""
    absent = ~(targets > 0).any(axis=0)
    if not absent.any():
        return float("nan")
    return float((scores >= thresholds)[:, absent].mean())


def best_f1_thresholds(scores: Floats, targets: Targets) -> Floats:
    """The threshold of each tag with the best F1 on these very targets, [C].

    A tag without a positive takes a threshold above all of its scores.
    """
    found = np.empty(scores.shape[1])
    for tag in range(scores.shape[1]):
        counts = targets[:, tag] != 0
        values, hits = scores[counts, tag], targets[counts, tag] > 0
        found[tag] = _best_cut(values, hits) if hits.any() else np.inf
    return found


def _best_cut(values: Floats, hits: npt.NDArray[np.bool_]) -> float:
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    true = np.cumsum(hits[order])
    f1 = 2 * true / (np.arange(1, len(ranked) + 1) + true[-1])
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # no threshold parts equal scores
    return float(ranked[int(f1.argmax())])


def expected_calibration_error(probabilities: Floats, targets: Targets, bins: int = 15) -> float:
    """Mean gap between probability and frequency, weighted by how many fall in each bin.

    Args:
        probabilities: of each picture and tag, [N, C]; bins are of equal width.
    """
    counted = targets != 0
    values, hits = probabilities[counted], targets[counted] > 0
    bin_of = np.minimum((values * bins).astype(int), bins - 1)
    gap = np.bincount(bin_of, values - hits, bins)
    return float(np.abs(gap).sum() / len(values))
