"""What our thresholds are measured against; the first two look at the labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from taidpt.judging.measures import best_f1_thresholds

__all__ = ["best_single_threshold", "oracle_thresholds", "otsu_thresholds", "two_gaussians"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]

_CANDIDATES = 400  # cuts that the single threshold is chosen from
_EM_STEPS = 60  # no cut moves any more


def oracle_thresholds(scores: Floats, targets: Targets) -> Floats:
    """The best threshold of every tag on these very labels, [C]."""
    return best_f1_thresholds(scores, targets)


def best_single_threshold(scores: Floats, targets: Targets) -> Floats:
    """The one threshold with the best macro-F1 on these very labels, repeated [C]."""
    tops = np.concatenate([scores[targets > 0], np.quantile(scores, np.linspace(0, 1, 200))])
    candidates = np.unique(np.quantile(tops, np.linspace(0, 1, _CANDIDATES)))
    curves = [
        _f1_curve(scores[counts, tag], targets[counts, tag] > 0, candidates)
        for tag, counts in enumerate((targets != 0).T)
        if (targets[:, tag] > 0).any()
    ]
    return np.full(scores.shape[1], candidates[int(np.mean(curves, axis=0).argmax())])


def _f1_curve(values: Floats, hits: npt.NDArray[np.bool_], cuts: Floats) -> Floats:
    """F1 of one tag at every cut."""
    order = np.argsort(values)
    below = np.searchsorted(values[order], cuts)
    true = hits.sum() - np.append(0, np.cumsum(hits[order]))[below]
    result: Floats = 2 * true / (len(values) - below + hits.sum())
    return result


def otsu_thresholds(scores: Floats, bins: int = 256) -> Floats:
    """Otsu's threshold of each tag: two groups with the most variance between them, [C]."""
    return np.array([_otsu(scores[:, tag], bins) for tag in range(scores.shape[1])])


def two_gaussians(scores: Floats) -> Floats:
    """A mixture of two Gaussians a tag; the threshold is where the upper one becomes likelier."""
    return np.array([_gaussian_cut(scores[:, tag]) for tag in range(scores.shape[1])])


def _otsu(values: Floats, bins: int) -> float:
    counts, edges = np.histogram(values, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * centres)
    above = len(values) - below
    gap = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][int(np.argmax(below * above * gap**2))])


def _gaussian_cut(values: Floats) -> float:
    """By expectation–maximisation, from the means of the upper tenth and of the others."""
    if len(values) < 3 or np.ptp(values) == 0:
        return float(values.max())
    middle, spread = values.mean(), values.std()
    z = (values - middle) / spread
    seen = (z > np.quantile(z, 0.9)).astype(np.float64)
    log_odds = seen
    for _ in range(_EM_STEPS):
        parts = []
        for weights in (1 - seen, seen):
            share = weights.sum() + 1e-9
            mean = weights @ z / share
            scale = np.sqrt(weights @ (z - mean) ** 2 / share + 1e-6)
            parts.append(np.log(share / scale) - 0.5 * ((z - mean) / scale) ** 2)
        log_odds = parts[1] - parts[0]
        seen = expit(log_odds)
    likely = np.sort(z[(log_odds >= 0) & (z > np.median(z))])
    return float(middle + spread * (likely[0] if len(likely) else z.max()))
