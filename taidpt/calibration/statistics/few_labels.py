"""A handful of labels on top of what the unlabelled frames said."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from taidpt.calibration.statistics.decision import above_all, decide
from taidpt.calibration.statistics.estimator import Calibration, TagCalibration
from taidpt.calibration.statistics.hierarchy import compress
from taidpt.runtime.errors import InputError

__all__ = ["PRIOR_STRENGTH", "refine"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]

PRIOR_STRENGTH = 50.0  # the unlabelled estimate counts as this many labels
_SURE_FROM = 10  # labels of either kind
_ISOTONIC_FROM = 30  # labels of either kind before the curve may take any rising shape
_EDGE = 1e-6
_LEAST_CHANCE = 1e-4  # of the curve so far, where it is taken as log odds
_TILT = 0.1  # log odds a spread of scores, so that labels move a curve that is flat, too
_CHOSEN = 10.0  # log odds by which labels may hold more positives than frames do
_LOOSE = 1e3  # scikit-learn's C: the pseudo-labels are the prior, not the penalty
_WHOLE = 0.9  # share of the labelled tags that a frame which was looked through has labels of
_LEAST_WHOLE = 3  # tags


def refine(calibration: Calibration, scores: Floats, labels: Targets) -> Calibration:
    """Move each labelled tag's map, and its thresholds with it.

    The map so far is a beta prior of 50 pseudo-labels spread over the tag's scores; Platt's
    logistic curve over its log odds is fitted to those and the labels. Who looks for a tag finds
    more of it than frames have, so labels may have log odds of their own, which do not stay in
    the map. Where frames were looked through whole, every labelled tag in each, labels are taken
    at their word, and with 30 of both kinds the curve is isotonic. A tag without labels stays as
    it is. One with a positive label is seen; of others the map says it, by `Decision.seen`.

    Args:
        scores: of all frames, [N, C]. labels: 1, −1, or 0 for unknown, [N, C].
    """
    if labels.shape != scores.shape:
        raise InputError(
            f"labels {list(labels.shape)} and scores {list(scores.shape)} should be of one shape"
        )
    whole = _are_whole(labels)
    tags = [
        _refine_tag(tag, scores[:, index], labels[:, index], whole)
        if labels[:, index].any()
        else tag
        for index, tag in enumerate(calibration.tags)
    ]
    return dataclasses.replace(calibration, tags=tuple(tags))


def _are_whole(labels: Targets) -> bool:
    """Whether frames were labelled with all their tags, and not tags with chosen frames."""
    known = labels != 0
    tags, frames = known.any(axis=0), known.any(axis=1)
    both_kinds = (labels > 0).any() and (labels < 0).any()
    covered = known[np.ix_(frames, tags)]
    return bool(both_kinds and tags.sum() >= _LEAST_WHOLE and covered.mean() >= _WHOLE)


def _refine_tag(
    tag: TagCalibration, scores: Floats, labels: Targets, whole: bool
) -> TagCalibration:
    sample = compress(scores[:, None])
    values, counts = sample.values[0], sample.counts[0]
    if values[0] == values[-1]:
        return tag
    after = _curve_after(tag, values, counts / counts.sum(), scores, labels, whole)
    decision = decide(sample, after[None])[0]
    seen = bool((labels > 0).any()) or decision.seen
    on, off = (decision.on, decision.off) if seen else above_all(np.sort(scores))
    return dataclasses.replace(
        tag,
        on=on,
        off=off,
        band=decision.band,
        state="seen" if seen else "not seen",
        expected_share=float(decision.expected_sightings / counts.sum()),
        expected_f1=decision.expected_f1 if seen else 0.0,
        sureness=_sureness(tag, labels),
        scores=tuple(decision.curve[0].tolist()),
        probabilities=tuple(decision.curve[1].tolist()),
    )


def _curve_after(
    tag: TagCalibration,
    values: Floats,
    shares: Floats,
    scores: Floats,
    labels: Targets,
    whole: bool,
) -> Floats:
    """Probabilities at some scores, from pseudo-labels there and the labels.

    Args:
        values: [B]. shares: of all frames, that each value stands for, [B].
        scores, labels: of one tag, [N].
    """
    known = labels != 0
    hits = labels[known] > 0
    before = np.clip(np.interp(values, tag.scores, tag.probabilities), _LEAST_CHANCE, 1)
    pseudo = PRIOR_STRENGTH * shares
    x = np.concatenate([values, values, scores[known]])
    y = np.concatenate([np.ones(len(values)), np.zeros(len(values)), hits])
    weights = np.concatenate([pseudo * before, pseudo * (1 - before), np.ones(len(hits))])
    if whole and min(hits.sum(), (~hits).sum()) >= _ISOTONIC_FROM:
        return _isotonic(x, y, weights, values)
    chosen = np.where(np.arange(len(x)) < 2 * len(values), 0.0, 0.0 if whole else _CHOSEN)
    tilt = _TILT / scores.std()

    def log_odds(at: Floats) -> Floats:
        chance = np.interp(at, tag.scores, tag.probabilities)
        return np.asarray(logit(np.clip(chance, _LEAST_CHANCE, 1 - _LEAST_CHANCE)) + tilt * at)

    return _platt(np.stack([log_odds(x), chosen], 1), y, weights, log_odds(values))


def _isotonic(x: Floats, y: Floats, weights: Floats, at: Floats) -> Floats:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=_EDGE, y_max=1 - _EDGE, out_of_bounds="clip")
    return np.asarray(model.fit(x, y, sample_weight=weights).predict(at))


def _platt(x: Floats, y: Floats, weights: Floats, at: Floats) -> Floats:
    """A logistic curve over log odds, x's first column; its second is what labels add."""
    from sklearn.linear_model import LogisticRegression

    scaled = x / [1.0, np.sqrt(_LOOSE)]
    model = LogisticRegression(C=_LOOSE, max_iter=500, solver="newton-cholesky")
    model.fit(scaled, y, sample_weight=weights)
    return np.asarray(model.predict_proba(np.stack([at, np.zeros(len(at))], 1))[:, 1])


def _sureness(tag: TagCalibration, labels: Targets) -> str:
    """One step surer with a label of each kind, and sure with ten."""
    fewest = int(min((labels > 0).sum(), (labels < 0).sum()))
    if fewest >= _SURE_FROM:
        return "high"
    return "medium" if fewest >= 1 and tag.sureness == "low" else tag.sureness
