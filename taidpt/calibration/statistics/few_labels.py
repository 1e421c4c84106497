"""A handful of labels on top of the unlabelled estimate."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit

from taidpt.calibration.statistics.estimator import Calibration, TagCalibration
from taidpt.calibration.statistics.sample import compress
from taidpt.calibration.statistics.switch import above_all, choose_switches
from taidpt.runtime.errors import InputError

__all__ = ["PRIOR_STRENGTH", "refine"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]

# The unlabelled estimate counts as this many labels: three of each kind hardly move a good estimate
# and a hundred replace it. From ten labels of each kind on a tag is sure, from thirty on its curve
# may take any rising shape.
PRIOR_STRENGTH = 50.0
_SURE_FROM = 10
_ISOTONIC_FROM = 30
# The logistic curve is fitted over log odds, which are kept finite, and tilted a little by the
# score so that labels can move a curve that is flat. Labels that somebody searched for may have log
# odds of their own, with this prior spread.
_LEAST_CHANCE = 1e-4
_TILT = 0.1
_CHOSEN = 10.0
_NEWTON_STEPS = 40
# Frames count as looked through whole when they have labels of this share of the labelled tags, and
# of at least so many tags.
_WHOLE, _LEAST_WHOLE = 0.9, 3


def refine(calibration: Calibration, scores: Floats, labels: Targets) -> Calibration:
    """Move each labelled tag's map, and its thresholds with it.

    The map so far is a beta prior of 50 pseudo-labels spread over the tag's scores; Platt's
    logistic curve over its log odds is fitted to those and the labels. People who search for a tag
    find more of it than frames have, so labels may have log odds of their own, which do not stay in
    the map. Where frames were looked through whole, labels count at face value, and with 30 of both
    kinds the curve is isotonic. A tag without labels stays as it is. A tag with a positive label is
    seen; for others the map decides, by `Switch.seen`.

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
    switch = choose_switches(sample, after[None])[0]
    seen = bool((labels > 0).any()) or switch.seen
    on, off = (switch.on, switch.off) if seen else (tag.on, tag.off)
    if tag.state == "seen" and not seen:
        on, off = above_all(np.sort(scores))
    return dataclasses.replace(
        tag,
        on=on,
        off=off,
        band=switch.band,
        state="seen" if seen else "not seen",
        expected_share=float(switch.expected_sightings / counts.sum()),
        expected_f1=switch.expected_f1 if seen else 0.0,
        sureness=_sureness(tag, labels),
        scores=tuple(switch.curve[0].tolist()),
        probabilities=tuple(switch.curve[1].tolist()),
        learned=tag.learned or seen,
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
        values: [B]. shares: share of all frames behind each value, [B].
        scores, labels: of one tag, [N].
    """
    known = labels != 0
    hits = labels[known] > 0
    before = np.clip(np.interp(values, tag.scores, tag.probabilities), _LEAST_CHANCE, 1)
    pseudo = PRIOR_STRENGTH * shares
    x = np.concatenate([values, scores[known]])
    y = np.concatenate([before, hits])
    weights = np.concatenate([pseudo, np.ones(len(hits))])
    if whole and min(hits.sum(), (~hits).sum()) >= _ISOTONIC_FROM:
        order = np.argsort(x, kind="stable")
        rising = isotonic_regression(y[order], weights=weights[order]).x
        curve = np.clip(rising, _LEAST_CHANCE, 1 - _LEAST_CHANCE)
        return np.asarray(np.interp(values, x[order], curve))
    tilt = _TILT / scores.std()

    def log_odds(at: Floats) -> Floats:
        chance = np.interp(at, tag.scores, tag.probabilities)
        return np.asarray(logit(np.clip(chance, _LEAST_CHANCE, 1 - _LEAST_CHANCE)) + tilt * at)

    searched = (np.arange(len(x)) >= len(values)) & (not whole)
    columns = np.stack([np.ones(len(x)), log_odds(x), searched.astype(np.float64)], axis=1)
    level, slope, _ = _logistic(columns, y, weights)
    return np.asarray(expit(level + max(slope, 0.0) * log_odds(values)))


def _logistic(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Coefficients of a logistic regression of y in [0, 1] on columns x, by Newton's method."""
    penalty = np.array([1e-6, 1e-3, 1 / _CHOSEN**2])
    found = np.array([0.0, 1.0, 0.0])

    def loss(at: Floats) -> float:
        z = x @ at
        return float(weights @ (np.logaddexp(0, z) - y * z) + 0.5 * penalty @ (at * at))

    for _ in range(_NEWTON_STEPS):
        p = expit(x @ found)
        gradient = x.T @ (weights * (p - y)) + penalty * found
        curvature = (x.T * (weights * p * (1 - p) + 1e-9)) @ x + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        while loss(found - step) > loss(found) and np.abs(step).max() > 1e-9:
            step = step / 2
        found = found - step
    return found


def _sureness(tag: TagCalibration, labels: Targets) -> str:
    """One step surer with a label of each kind, and sure with ten."""
    fewest = int(min((labels > 0).sum(), (labels < 0).sum()))
    if fewest >= _SURE_FROM:
        return "high"
    return "medium" if fewest >= 1 and tag.sureness == "low" else tag.sureness
